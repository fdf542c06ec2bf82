package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// forwarder is the stream on which this follower hands batches to the leader.
type forwarder struct {
	peer   *peer
	stream grpc.BidiStreamingClient[wherryv1.ForwardRequest, wherryv1.ForwardResponse]
	cancel context.CancelFunc
	dead   chan struct{}

	mu   sync.Mutex
	next uint64
	open map[uint64]chan []wherryv1.ForwardOutcome
}

// forwardBatch hands a batch to the leader and waits how it ends there. It
// gives those that may be tried again.
func (s *Store) forwardBatch(batch []*proposal) (again []*proposal) {
	if len(batch) == 0 {
		return nil
	}
	f, err := s.forwarder()
	if err != nil {
		return batch // nothing has been sent
	}
	commands := make([][]byte, len(batch))
	for i, p := range batch {
		commands[i] = p.data
	}
	ctx, cancel := s.whileLeads(s.ctx, f.peer.id)
	defer cancel()
	outcomes, err := f.call(ctx, commands)
	if err != nil {
		return s.settle(batch, err)
	}
	var lost []*proposal
	for i, p := range batch {
		switch outcomes[i] {
		case wherryv1.ForwardOutcome_FORWARD_OUTCOME_COMMITTED: // answered when applied here
		case wherryv1.ForwardOutcome_FORWARD_OUTCOME_REFUSED:
			again = append(again, p)
		case wherryv1.ForwardOutcome_FORWARD_OUTCOME_NO_ROOM:
			p.end(result{err: noRoom(f.peer.id, f.peer.address)})
		default:
			lost = append(lost, p)
		}
	}
	return append(again, s.settle(lost, errors.New("the leader lost its leadership"))...)
}

// forwarder gives the stream to the leader of now.
func (s *Store) forwarder() (*forwarder, error) {
	s.forwardMu.Lock()
	defer s.forwardMu.Unlock()
	p, err := s.leaderPeer()
	if err != nil {
		return nil, err
	}
	if f := s.forward; f != nil {
		if f.peer == p && f.alive() {
			return f, nil
		}
		f.cancel()
		s.forward = nil
	}
	ctx, cancel := context.WithCancel(s.transport.ctx)
	guard := time.AfterFunc(s.transport.callTimeout, cancel)
	stream, err := wherryv1.NewRaftClient(p.bulk).Forward(ctx)
	if !guard.Stop() {
		err = errSilent
	}
	if err != nil {
		cancel()
		return nil, p.failed(err)
	}
	f := &forwarder{peer: p, stream: stream, cancel: cancel, dead: make(chan struct{}), open: map[uint64]chan []wherryv1.ForwardOutcome{}}
	s.transport.wg.Go(f.receive)
	s.forward = f
	return f, nil
}

func (f *forwarder) alive() bool {
	select {
	case <-f.dead:
		return false
	default:
		return f.stream.Context().Err() == nil
	}
}

func (f *forwarder) call(ctx context.Context, commands [][]byte) ([]wherryv1.ForwardOutcome, error) {
	answer := make(chan []wherryv1.ForwardOutcome, 1)
	number, err := f.transmit(commands, answer)
	if err != nil {
		return nil, err
	}
	defer func() {
		f.mu.Lock()
		delete(f.open, number)
		f.mu.Unlock()
	}()
	select {
	case outcomes := <-answer:
		if len(outcomes) != len(commands) {
			return nil, errors.New("the leader answered for another number of commands")
		}
		return outcomes, nil
	case <-f.dead:
		return nil, fmt.Errorf("the connection to the leader %s is lost", f.peer.id)
	case <-ctx.Done():
		// What was sent must not reach it later, when a cut network is whole
		// again and the caller has long been told that it was not done.
		f.peer.t.drop(f.peer)
		return nil, fmt.Errorf("the leader %s is lost", f.peer.id)
	}
}

func (f *forwarder) transmit(commands [][]byte, answer chan []wherryv1.ForwardOutcome) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	f.open[f.next] = answer
	if err := f.stream.Send(&wherryv1.ForwardRequest{Batch: f.next, Commands: commands}); err != nil {
		delete(f.open, f.next)
		return 0, fmt.Errorf("send to the leader %s: %w", f.peer.id, err)
	}
	return f.next, nil
}

func (f *forwarder) receive() {
	defer close(f.dead)
	defer f.cancel()
	for {
		m, err := f.stream.Recv()
		if err != nil {
			_ = f.peer.failed(err) // who waits learns it by dead
			return
		}
		f.mu.Lock()
		answer := f.open[m.GetBatch()]
		delete(f.open, m.GetBatch())
		f.mu.Unlock()
		if answer != nil {
			answer <- m.GetOutcomes()
		}
	}
}

// forwardRoom bounds the batches of one follower that the leader works on.
const forwardRoom = 32

// Forward implements wherryv1.RaftServer. The commands join the leader's own
// queue; each batch is answered when all of it has ended.
func (v *service) Forward(stream grpc.BidiStreamingServer[wherryv1.ForwardRequest, wherryv1.ForwardResponse]) error {
	ctx := stream.Context()
	if err := v.authorize(ctx); err != nil {
		return err
	}
	room := make(chan struct{}, forwardRoom)
	var sendMu sync.Mutex
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-v.s.ctx.Done():
			return nil
		}
		m, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		v.s.forwarded(ctx, m.GetCommands(), func(outcomes []wherryv1.ForwardOutcome) {
			sendMu.Lock()
			defer sendMu.Unlock()
			// A stream that has ended takes the answer for nobody.
			_ = stream.Send(&wherryv1.ForwardResponse{Batch: m.GetBatch(), Outcomes: outcomes})
			<-room
		})
	}
}

// forwarded queues the commands of another member and answers once.
func (s *Store) forwarded(ctx context.Context, commands [][]byte, answer func([]wherryv1.ForwardOutcome)) {
	outcomes := make([]wherryv1.ForwardOutcome, len(commands))
	var left atomic.Int64
	left.Store(int64(len(commands)))
	end := func(i int, o wherryv1.ForwardOutcome) {
		outcomes[i] = o
		if left.Add(-1) == 0 {
			answer(outcomes)
		}
	}
	if len(commands) == 0 {
		answer(nil)
	}
	for i, data := range commands {
		if len(data) < proposalHead || !s.leads() {
			end(i, wherryv1.ForwardOutcome_FORWARD_OUTCOME_REFUSED)
			continue
		}
		p := &proposal{data: data, answer: func(o wherryv1.ForwardOutcome) { end(i, o) }}
		select {
		case s.queue <- p:
		case <-ctx.Done():
			end(i, wherryv1.ForwardOutcome_FORWARD_OUTCOME_REFUSED)
		case <-s.ctx.Done():
			end(i, wherryv1.ForwardOutcome_FORWARD_OUTCOME_REFUSED)
		}
	}
}
