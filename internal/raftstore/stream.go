package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

var (
	errStreamEnded = errors.New("the stream to the peer has ended")
	errStreamBusy  = errors.New("too many requests to the peer are on their way")
	errSilent      = errors.New("no answer in time")
)

// appendStream sends append-entries requests and matches the answers, which
// come in order. A peer that leaves a request without an answer for too long
// ends it.
type appendStream struct {
	stream  grpc.BidiStreamingClient[wherryv1.AppendRequest, wherryv1.AppendResponse]
	cancel  context.CancelFunc
	to      recipient
	durable func() uint64
	stopped func() error
	timeout time.Duration
	room    chan struct{} // a token for each request on its way
	dead    chan struct{} // closed when the stream has ended

	sendMu sync.Mutex // keeps queue and wire in one order

	mu    sync.Mutex
	queue []*appendCall
	timer *time.Timer
	ended bool
}

// appendCall is one request on its way.
type appendCall struct {
	req   *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	start time.Time
	done  chan struct{} // closed when resp or err is there
	err   error
	// answered is called before done is closed, in order; it must not block.
	answered func(*appendCall)
}

// openAppend starts a stream on a connection, within timeout.
func (t *transport) openAppend(to recipient, conn grpc.ClientConnInterface, open, answer time.Duration, room int) (*appendStream, error) {
	ctx, cancel := context.WithCancel(t.ctx)
	guard := time.AfterFunc(open, cancel)
	stream, err := wherryv1.NewRaftClient(conn).Append(ctx)
	if !guard.Stop() {
		err = errSilent
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open append stream: %w", err)
	}
	s := &appendStream{
		stream: stream, cancel: cancel, to: to, durable: t.durable, stopped: t.stopped, timeout: answer,
		room: make(chan struct{}, room), dead: make(chan struct{}),
	}
	s.timer = time.AfterFunc(answer, cancel)
	s.timer.Stop()
	t.wg.Go(s.receive)
	return s, nil
}

// send puts a call on its way. With wait it waits for room, else a full stream
// is an error.
func (s *appendStream) send(c *appendCall, wait bool) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	if err := s.stopped(); err != nil {
		return err
	}
	select {
	case s.room <- struct{}{}:
	default:
		if !wait {
			return errStreamBusy
		}
		select {
		case s.room <- struct{}{}:
		case <-s.dead:
			return errStreamEnded
		}
	}
	if !s.enqueue(c) {
		return errStreamEnded
	}
	messages := appendOut(s.to, c.req)
	messages[0].CommitIndex = min(messages[0].CommitIndex, s.durable())
	for _, m := range messages {
		if err := s.stream.Send(m); err != nil {
			s.close() // the receiver learns the reason and ends all calls
			return errStreamEnded
		}
	}
	return nil
}

func (s *appendStream) enqueue(c *appendCall) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if s.queue = append(s.queue, c); len(s.queue) == 1 {
		s.timer.Reset(s.timeout)
	}
	return true
}

func (s *appendStream) dequeue() *appendCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	c := s.queue[0]
	s.queue[0] = nil
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.timer.Stop()
	} else {
		s.timer.Reset(s.timeout)
	}
	return c
}

func (s *appendStream) receive() {
	var err error
	for {
		var m *wherryv1.AppendResponse
		if m, err = s.stream.Recv(); err != nil {
			break
		}
		c := s.dequeue()
		if c == nil {
			err = errors.New("the peer answered what nobody asked")
			break
		}
		if m.GetError() != "" {
			c.err = errors.New(m.GetError())
		}
		appendResponseIn(m, c.resp)
		c.finish()
		<-s.room
	}
	s.close()
	s.mu.Lock()
	rest := s.queue
	s.queue, s.ended = nil, true
	s.timer.Stop()
	s.mu.Unlock()
	close(s.dead)
	for _, c := range rest {
		c.err = fmt.Errorf("append to the peer: %w", err)
		close(c.done)
	}
}

func (c *appendCall) finish() {
	if c.answered != nil {
		c.answered(c)
	}
	close(c.done)
}

func (s *appendStream) close() { s.cancel() }

func (s *appendStream) alive() bool {
	select {
	case <-s.dead:
		return false
	default:
		return s.stream.Context().Err() == nil
	}
}
