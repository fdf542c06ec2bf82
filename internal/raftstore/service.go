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
		return a.Response, a.Error
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-v.s.ctx.Done():
		return nil, errClosed
	}
}

func handed[T any](v *service, ctx context.Context, command any, data io.Reader) (T, error) {
	var none T
	if err := v.authorize(ctx); err != nil {
		return none, err
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

// Append implements wherryv1.RaftServer.
func (v *service) Append(stream grpc.BidiStreamingServer[wherryv1.AppendRequest, wherryv1.AppendResponse]) error {
	if err := v.authorize(stream.Context()); err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		req := appendIn(m)
		for m.GetMore() {
			if m, err = stream.Recv(); err != nil {
				return ended(err)
			}
			req.Entries = entriesIn(req.Entries, m)
		}
		if err := stream.Send(v.append(stream.Context(), req)); err != nil {
			return err
		}
		if v.s.ctx.Err() != nil {
			return apierr.ToGRPC(apierr.Unavailable("%w", errClosed))
		}
	}
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
	r, err := handed[*raft.RequestVoteResponse](v, ctx, &raft.RequestVoteRequest{
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
	r, err := handed[*raft.RequestPreVoteResponse](v, ctx, &raft.RequestPreVoteRequest{
		RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(),
		LastLogIndex: m.GetLastIndex(), LastLogTerm: m.GetLastTerm(),
	}, nil)
	if err != nil {
		return nil, err
	}
	return &wherryv1.PreVoteResponse{Header: headerOut(r.RPCHeader), Term: r.Term, Granted: r.Granted}, nil
}

// TimeoutNow implements wherryv1.RaftServer.
func (v *service) TimeoutNow(ctx context.Context, m *wherryv1.TimeoutNowRequest) (*wherryv1.TimeoutNowResponse, error) {
	r, err := handed[*raft.TimeoutNowResponse](v, ctx, &raft.TimeoutNowRequest{RPCHeader: headerIn(m.GetHeader())}, nil)
	if err != nil {
		return nil, err
	}
	return &wherryv1.TimeoutNowResponse{Header: headerOut(r.RPCHeader)}, nil
}

// InstallSnapshot implements wherryv1.RaftServer.
func (v *service) InstallSnapshot(stream grpc.ClientStreamingServer[wherryv1.InstallSnapshotRequest, wherryv1.InstallSnapshotResponse]) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	if m.GetHeader() == nil {
		return apierr.ToGRPC(apierr.BadRequest("a snapshot begins with its header"))
	}
	r, err := handed[*raft.InstallSnapshotResponse](v, stream.Context(), snapshotIn(m.GetHeader()), &snapshotReader{stream: stream})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&wherryv1.InstallSnapshotResponse{Header: headerOut(r.RPCHeader), Term: r.Term, Success: r.Success})
}

// snapshotReader reads a snapshot's data from its messages.
type snapshotReader struct {
	stream grpc.ClientStreamingServer[wherryv1.InstallSnapshotRequest, wherryv1.InstallSnapshotResponse]
	rest   []byte
}

// Read implements io.Reader.
func (r *snapshotReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = m.GetData()
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
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
