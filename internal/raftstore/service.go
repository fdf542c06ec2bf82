package raftstore

import (
	"context"
	"errors"
	"io"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// service is what other members call.
type service struct {
	wherryv1.UnimplementedRaftServer
	s *Store
}

// authorize lets only members pass.
func (v *service) authorize(ctx context.Context) error {
	if v.s.cfg.Authorize != nil {
		if err := v.s.cfg.Authorize(ctx); err != nil {
			return apierr.ToGRPC(err)
		}
	}
	if v.s.ctx.Err() != nil {
		return apierr.ToGRPC(apierr.Unavailable("%w", errClosed))
	}
	return nil
}

// addressed refuses what is meant for another member or comes from another
// cluster: an address may have passed to somebody else, and two copies of one
// data directory may run.
func (v *service) addressed(h *wherryv1.RaftHeader) error {
	own := v.s.transport
	switch {
	case h.GetCluster() != "" && own.cluster != "" && h.GetCluster() != own.cluster:
		return apierr.New(apierr.ErrConflict, "member %s is of cluster %s, this is member %s of cluster %s: correct the address under which it is listed", h.GetId(), h.GetCluster(), own.id, own.cluster)
	case h.GetTo() != "" && h.GetTo() != own.id:
		return apierr.New(apierr.ErrConflict, "this is member %s, not %s", own.id, h.GetTo())
	case h.GetId() == own.id:
		return apierr.New(apierr.ErrConflict, "%s: %s at %s is another controld with this one's identity", twice, own.id, h.GetAddress())
	}
	return nil
}

// twice is what to do about two members with one identity.
const twice = "two members have one identity: stop the one whose data directory was copied, delete that directory and join again"

// hand gives a request to Raft and waits for its answer.
func (v *service) hand(ctx context.Context, command any, data io.Reader) (any, error) {
	answer := make(chan raft.RPCResponse, 1)
	select {
	case v.s.transport.consume <- raft.RPC{Command: command, Reader: data, RespChan: answer}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-v.s.ctx.Done():
		return nil, errClosed
	}
	select {
	case a := <-answer:
		if err := v.s.Err(); err != nil {
			return nil, err // what Raft says may rest on what is not stored
		}
		return a.Response, a.Error
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-v.s.ctx.Done():
		return nil, errClosed
	}
}

func handed[T any](v *service, ctx context.Context, h *wherryv1.RaftHeader, command any, data io.Reader) (T, error) {
	var none T
	if err := v.authorize(ctx); err != nil {
		return none, err
	}
	if err := v.addressed(h); err != nil {
		return none, apierr.ToGRPC(err)
	}
	resp, err := v.hand(ctx, command, data)
	if err != nil {
		return none, apierr.ToGRPC(apierr.Unavailable("raft: %w", err))
	}
	t, ok := resp.(T)
	if !ok {
		return none, apierr.ToGRPC(apierr.Internal(errors.New("raft gave another kind of answer")))
	}
	return t, nil
}

// maxAnswers bounds the answers of a stream that wait for the disk.
const maxAnswers = 64

// Append implements wherryv1.RaftServer. While the disk works on one request,
// Raft has the next: the answers wait until what they say is true, in order.
func (v *service) Append(stream grpc.BidiStreamingServer[wherryv1.AppendRequest, wherryv1.AppendResponse]) error {
	if err := v.authorize(stream.Context()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	answers := make(chan appended, maxAnswers)
	sent := make(chan error, 1)
	go func() {
		err := v.answer(ctx, stream, answers)
		cancel()
		sent <- err
	}()
	err := v.receive(ctx, stream, answers)
	close(answers)
	return errors.Join(err, <-sent)
}

// appended is an answer, and the last entry that it says is stored here.
type appended struct {
	answer *wherryv1.AppendResponse
	last   uint64
}

func (v *service) receive(ctx context.Context, stream grpc.BidiStreamingServer[wherryv1.AppendRequest, wherryv1.AppendResponse], answers chan<- appended) error {
	var from func()
	defer func() {
		if from != nil {
			from()
		}
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		if err := v.addressed(m.GetHeader()); err != nil {
			return apierr.ToGRPC(err)
		}
		if from == nil {
			from = v.s.alarm.stream(m.GetHeader().GetId())
		}
		req := appendIn(m)
		for m.GetMore() {
			if m, err = stream.Recv(); err != nil {
				return ended(err)
			}
			req.Entries = entriesIn(req.Entries, m)
		}
		a := appended{answer: v.append(ctx, req)}
		if a.answer.GetSuccess() && !isHeartbeat(req) {
			a.last = req.PrevLogEntry + uint64(len(req.Entries))
		}
		select {
		case answers <- a:
		case <-ctx.Done():
			return nil
		}
		if v.s.ctx.Err() != nil {
			return apierr.ToGRPC(apierr.Unavailable("%w", errClosed))
		}
	}
}

func (v *service) answer(ctx context.Context, stream grpc.BidiStreamingServer[wherryv1.AppendRequest, wherryv1.AppendResponse], answers <-chan appended) error {
	for a := range answers {
		if err := v.s.disk.logs.wait(ctx.Done(), a.last); err != nil {
			a.answer.Error, a.answer.Success = err.Error(), false
		}
		if err := stream.Send(a.answer); err != nil {
			return err
		}
	}
	return nil
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (v *service) append(ctx context.Context, req *raft.AppendEntriesRequest) *wherryv1.AppendResponse {
	if beat := v.s.transport.heartbeat.Load(); beat != nil && isHeartbeat(req) {
		answer := make(chan raft.RPCResponse, 1)
		(*beat)(raft.RPC{Command: req, RespChan: answer})
		select {
		case a := <-answer:
			return appendAnswer(a.Response, a.Error)
		default: // Raft has shut down and says nothing
			return appendAnswer(nil, errClosed)
		}
	}
	return appendAnswer(v.hand(ctx, req, nil))
}

func appendAnswer(resp any, err error) *wherryv1.AppendResponse {
	r, ok := resp.(*raft.AppendEntriesResponse)
	if !ok || r == nil {
		r = &raft.AppendEntriesResponse{}
	}
	m := appendResponseOut(r)
	if err != nil {
		m.Error, m.Success = err.Error(), false
	}
	return m
}

// Vote implements wherryv1.RaftServer.
func (v *service) Vote(ctx context.Context, m *wherryv1.VoteRequest) (*wherryv1.VoteResponse, error) {
	r, err := handed[*raft.RequestVoteResponse](v, ctx, m.GetHeader(), &raft.RequestVoteRequest{
		RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(), Candidate: []byte(m.GetHeader().GetAddress()),
		LastLogIndex: m.GetLastIndex(), LastLogTerm: m.GetLastTerm(), LeadershipTransfer: m.GetLeadershipTransfer(),
	}, nil)
	if err != nil {
		return nil, err
	}
	return &wherryv1.VoteResponse{Header: headerOut(r.RPCHeader), Term: r.Term, Granted: r.Granted}, nil
}

// PreVote implements wherryv1.RaftServer.
func (v *service) PreVote(ctx context.Context, m *wherryv1.PreVoteRequest) (*wherryv1.PreVoteResponse, error) {
	r, err := handed[*raft.RequestPreVoteResponse](v, ctx, m.GetHeader(), &raft.RequestPreVoteRequest{
		RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(),
		LastLogIndex: m.GetLastIndex(), LastLogTerm: m.GetLastTerm(),
	}, nil)
	if err != nil {
		return nil, err
	}
	granted := r.Granted && !v.s.votes(m.GetTerm(), m.GetHeader().GetAddress())
	return &wherryv1.PreVoteResponse{Header: headerOut(r.RPCHeader), Term: r.Term, Granted: granted}, nil
}

// TimeoutNow implements wherryv1.RaftServer.
func (v *service) TimeoutNow(ctx context.Context, m *wherryv1.TimeoutNowRequest) (*wherryv1.TimeoutNowResponse, error) {
	r, err := handed[*raft.TimeoutNowResponse](v, ctx, m.GetHeader(), &raft.TimeoutNowRequest{RPCHeader: headerIn(m.GetHeader())}, nil)
	if err != nil {
		return nil, err
	}
	return &wherryv1.TimeoutNowResponse{Header: headerOut(r.RPCHeader)}, nil
}

// ReadIndex implements wherryv1.RaftServer.
func (v *service) ReadIndex(ctx context.Context, _ *wherryv1.ReadIndexRequest) (*wherryv1.ReadIndexResponse, error) {
	if err := v.authorize(ctx); err != nil {
		return nil, err
	}
	if !v.s.leads() {
		return nil, apierr.ToGRPC(errNotLeader)
	}
	revision, err := v.s.reads.join(ctx)
	if err != nil {
		return nil, apierr.ToGRPC(err)
	}
	return &wherryv1.ReadIndexResponse{Revision: revision}, nil
}

// Change implements wherryv1.RaftServer.
func (v *service) Change(ctx context.Context, m *wherryv1.ChangeRequest) (*wherryv1.ChangeResponse, error) {
	if err := v.authorize(ctx); err != nil {
		return nil, err
	}
	var err error
	switch {
	case v.s.leads():
		err = v.s.changeHere(ctx, m)
	case m.GetRelay():
		m.Relay = false
		err = v.s.change(ctx, m)
	default:
		err = errNotLeader
	}
	if err != nil {
		return nil, apierr.ToGRPC(err)
	}
	return &wherryv1.ChangeResponse{}, nil
}
