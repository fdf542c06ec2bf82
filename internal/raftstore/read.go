package raftstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

var errNotLeader = apierr.Unavailable("this member does not lead")

// Snapshot implements store.Reader.
func (s *Store) Snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	if at.Level == store.Any {
		return s.mem.Snapshot(), nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	revision := at.Revision
	if at.Level == store.Linearizable {
		var err error
		if revision, err = s.readRevision(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.mem.Wait(ctx, revision); err != nil {
		return nil, err
	}
	if at.Level == store.Exactly {
		return s.mem.SnapshotAt(revision)
	}
	return s.mem.Snapshot(), nil
}

// Watch implements store.Watcher. A replica that has not reached from yet
// waits for it.
func (s *Store) Watch(ctx context.Context, f store.Filter, from uint64) (*store.Watch, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	if from > s.mem.Revision() {
		ctx, cancel := s.bounded(ctx)
		defer cancel()
		revision, err := s.readRevision(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.mem.Wait(ctx, min(from, revision)); err != nil {
			return nil, err
		}
	}
	return s.mem.Watch(f, from)
}

// bounded gives ctx a deadline if it has none, or a later one.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.cfg.Timeouts.Request)
}

// readRevision gives a revision that includes every write acknowledged before
// the call, by asking the leader. It tries until ctx ends.
func (s *Store) readRevision(ctx context.Context) (uint64, error) {
	for try := 0; ; try++ {
		_, changed := s.Leadership()
		revision, err := s.reads.join(ctx)
		if err == nil {
			return revision, nil
		}
		if broken := s.err(); broken != nil {
			return 0, broken
		}
		if !s.pause(ctx, changed, try) {
			if ctx.Err() != nil {
				return 0, apierr.New(apierr.ErrTimeout, "no leader with a majority of the members confirmed in time what is newest: %v: %w", err, ctx.Err())
			}
			return 0, err
		}
	}
}

// pause waits before another try: until leadership changes, or a short while
// that grows. It reports whether there is time for another try.
func (s *Store) pause(ctx context.Context, changed <-chan struct{}, try int) bool {
	timer := time.NewTimer(min(10*time.Millisecond<<min(try, 8), 250*time.Millisecond))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return false
	case <-s.ctx.Done():
		return false
	}
	return true
}

// reads lets all reads that begin while one round is on its way share the next.
type reads struct {
	s *Store

	mu      sync.Mutex
	next    *round
	running bool
}

// round is one question to the leader. Who joins it joins before it begins.
type round struct {
	done     chan struct{}
	revision uint64
	err      error
}

// join waits for a round that begins after the call.
func (r *reads) join(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	if !r.running {
		if !r.s.spawn(r.run) {
			r.mu.Unlock()
			return 0, apierr.Unavailable("%w", errClosed)
		}
		r.running = true
	}
	mine := r.next
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.revision, mine.err
	case <-ctx.Done():
		return 0, apierr.New(apierr.ErrTimeout, "the leader has not confirmed the read: %w", ctx.Err())
	}
}

func (r *reads) run() {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.running = now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		ctx, cancel := context.WithTimeout(r.s.ctx, r.s.transport.callTimeout)
		now.revision, now.err = r.s.askRevision(ctx)
		cancel()
		close(now.done)
	}
}

// askRevision asks the leader, or is the leader, once.
func (s *Store) askRevision(ctx context.Context) (uint64, error) {
	if s.leads() {
		return s.confirmedRevision(ctx)
	}
	p, err := s.leaderPeer()
	if err != nil {
		return 0, err
	}
	// A leader that went silent may be replaced meanwhile.
	asking, cancel := s.whileLeads(ctx, p.id)
	defer cancel()
	m, err := wherryv1.NewRaftClient(p.control).ReadIndex(asking, &wherryv1.ReadIndexRequest{})
	if err != nil {
		_ = p.failed(silent(ctx, err)) // what counts is that it connects again soon
		return 0, fmt.Errorf("ask the leader %s: %w", p.id, apierr.FromGRPC(err))
	}
	return m.GetRevision(), nil
}

// confirmedRevision is the read index of the leader. The commit index says what
// is acknowledged only once an entry of the leader's own term is committed
// (Ready), and only if it still leads, which a majority confirms afterwards.
func (s *Store) confirmedRevision(ctx context.Context) (uint64, error) {
	term, ready := s.lead.readyTerm()
	if !ready {
		return 0, apierr.Unavailable("the leader has just been elected and is not ready")
	}
	// What this disk does not have yet was acknowledged to nobody.
	index := min(s.raft.CommitIndex(), s.disk.logs.durable())
	servers, err := s.servers()
	if err != nil {
		return 0, err
	}
	if err := s.transport.confirm(ctx, term, servers); err != nil {
		return 0, apierr.Unavailable("%w", err)
	}
	if s.raft.State() != raft.Leader || s.raft.CurrentTerm() != term {
		return 0, errNotLeader
	}
	for {
		has, moved := s.fsm.has(index)
		if has {
			return s.mem.Revision(), nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, apierr.New(apierr.ErrTimeout, "the leader is behind with its own log: %w", ctx.Err())
		}
	}
}
