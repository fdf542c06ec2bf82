package raftstore

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/store"
)

// A write goes: Commit → queue → one batch with its neighbours → one log entry,
// here or, forwarded, at the leader → applied on every replica. The replica
// where it began recognises its own proposals when it applies them, and answers
// the caller then. So the answer means durable on a majority and applied here,
// and it comes even if the leader dies right after the commit.

// proposal is one command on its way into the log.
type proposal struct {
	data  []byte
	state atomic.Int32
	// repeatable says that it may be proposed twice, see repeatable.
	repeatable bool
	// repeated says that it may be in the log already.
	repeated atomic.Bool
	// ended gets how it went, once, when it was made here.
	ended chan result
	// answer is called instead for a proposal of another member.
	answer func(wherryv1.ForwardOutcome)
}

// The states of a proposal. It goes from waiting to sent and may come back. Its
// caller drops it when he goes: then it is sent no more, and if it was waiting,
// and never repeated, it is not on its way either.
const (
	waiting = iota
	sent
	dropped
)

type result struct {
	revision uint64
	err      error
}

// Commit implements store.Writer.
func (s *Store) Commit(ctx context.Context, c store.Command) (uint64, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	c, err := c.Sealed(s.cfg.Sealer)
	if err != nil {
		return 0, err
	}
	command, err := c.Encode(s.cfg.Limits.Mem)
	if err != nil {
		return 0, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return 0, notDone(err)
	}
	start := s.metrics.begin()
	number := s.numbers.Add(1)
	p := &proposal{data: newProposal(s.origin, number, command), repeatable: repeatable(c, s.mem.Revision()), ended: make(chan result, 1)}
	s.expect(number, p)
	defer s.forget(number)
	select {
	case s.queue <- p:
	case <-ctx.Done():
		return 0, apierr.New(apierr.ErrTimeout, "too many writes are waiting; nothing was written: %w", ctx.Err())
	case <-s.ctx.Done():
		return 0, apierr.Unavailable("%w; nothing was written", errClosed)
	}
	select {
	case r := <-p.ended:
		s.metrics.committed(start, r.err)
		return r.revision, r.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.ctx.Done():
		err = errClosed
	}
	if p.state.Swap(dropped) == waiting && !p.repeated.Load() {
		return 0, notDone(err)
	}
	return 0, unknown(err)
}

// repeatable reports whether a command may stand in the log twice. The first of
// its two places is the one that is answered, and the second must do nothing:
//   - if the first did it: it changes a key at a given revision, and afterwards
//     the key is never at that revision again;
//   - if the first failed: none of its conditions can come true again. A revision
//     or uid that is gone does not come back; what is there may go, and what is
//     not there may come, so those make it one that is not repeated. A revision
//     that this replica has not reached (now) may be still to come.
func repeatable(c store.Command, now uint64) bool {
	once := false
	for _, change := range c.Changes {
		on := change.If
		if on.Absent || on.Revision > now || change.Op != store.Put && on.Revision == 0 && on.UID == "" {
			return false
		}
		once = once || change.Op != store.Check && on.Revision != 0
	}
	return once
}

func notDone(err error) error {
	return apierr.New(apierr.ErrTimeout, "nothing was written: no leader with a majority of the members took the write in time: %w", err)
}

func unknown(err error) error {
	return apierr.New(apierr.ErrTimeout, "the write may or may not have been done: no majority of the members confirmed it in time: %w", err)
}

func (s *Store) expect(number uint64, p *proposal) {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	s.expected[number] = p
}

func (s *Store) forget(number uint64) {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	delete(s.expected, number)
}

// done is told by the state machine how a proposal ended.
func (s *Store) done(origin, number, revision uint64, err error) {
	if origin != s.origin {
		return
	}
	s.expectedMu.Lock()
	p := s.expected[number]
	s.expectedMu.Unlock()
	if p != nil {
		p.end(result{revision, err})
	}
}

// end answers the caller; the first answer counts.
func (p *proposal) end(r result) {
	select {
	case p.ended <- r:
	default:
	}
}

// propose takes proposals off the queue, as many as fit into an entry, and
// sends them off. While its few places are taken, the next batch grows.
func (s *Store) propose() {
	var held *proposal // did not fit into the last batch
	for {
		select {
		case s.places <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		first := held
		if held = nil; first == nil {
			select {
			case first = <-s.queue:
			case <-s.ctx.Done():
				return
			}
		}
		var batch []*proposal
		batch, held = s.collect(first)
		if !s.spawn(func() {
			s.send(batch)
			<-s.places
		}) {
			return
		}
	}
}

func (s *Store) collect(first *proposal) (batch []*proposal, held *proposal) {
	batch, size := []*proposal{first}, len(first.data)
	for len(batch) < s.cfg.Limits.EntryCommands {
		select {
		case p := <-s.queue:
			if size += len(p.data); size > s.cfg.Limits.EntryBytes {
				return batch, p
			}
			batch = append(batch, p)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// send brings a batch into the log, here or at the leader. It tries until it is
// taken or all callers have gone.
func (s *Store) send(batch []*proposal) {
	for try := 0; ; try++ {
		if batch = take(batch); len(batch) == 0 {
			return
		}
		_, changed := s.Leadership()
		if s.leads() {
			batch = s.apply(batch)
		} else {
			batch = s.forwardBatch(refuseForeign(batch))
		}
		for _, p := range batch {
			p.state.CompareAndSwap(sent, waiting) // or it is dropped, and taken no more
		}
		if len(batch) == 0 || !s.pause(s.ctx, changed, try) {
			return
		}
	}
}

// take marks the proposals whose callers still wait.
func take(batch []*proposal) []*proposal {
	taken := batch[:0]
	for _, p := range batch {
		if p.state.CompareAndSwap(waiting, sent) {
			taken = append(taken, p)
		}
	}
	clear(batch[len(taken):])
	return taken
}

// apply proposes a batch as the leader and gives those that may be tried again.
func (s *Store) apply(batch []*proposal) (again []*proposal) {
	if s.disk.logs.below.full() {
		s.refuse(batch)
		return nil
	}
	err := s.raft.Apply(newEntry(batch), s.cfg.Timeouts.Request).Error()
	s.metrics.entry(len(batch))
	switch {
	case err == nil:
		answerForeign(batch, wherryv1.ForwardOutcome_FORWARD_OUTCOME_COMMITTED)
		return nil // the state machine has answered the others
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return refuseForeign(batch) // it is not in the log
	case errors.Is(err, raftlog.ErrFull): // nor is it then
		s.refuse(batch)
		return nil
	}
	return s.settle(answerForeign(batch, wherryv1.ForwardOutcome_FORWARD_OUTCOME_UNKNOWN), err)
}

// refuse ends a batch for which there is no room on this disk.
func (s *Store) refuse(batch []*proposal) {
	for _, p := range answerForeign(batch, wherryv1.ForwardOutcome_FORWARD_OUTCOME_NO_ROOM) {
		p.end(result{err: noRoom(s.cfg.ID, s.cfg.Dir)})
	}
}

func noRoom(member, where string) error {
	return apierr.Unavailable("insufficient storage: the disk of the leader, member %s (%s), is full; nothing was written; make room there", member, where)
}

// answerForeign answers the proposals of other members and gives the rest.
func answerForeign(batch []*proposal, o wherryv1.ForwardOutcome) (own []*proposal) {
	for _, p := range batch {
		if p.answer != nil {
			p.answer(o)
		} else {
			own = append(own, p)
		}
	}
	return own
}

func refuseForeign(batch []*proposal) []*proposal {
	return answerForeign(batch, wherryv1.ForwardOutcome_FORWARD_OUTCOME_REFUSED)
}

// settle deals with proposals of which it is not known whether they are in the
// log. It gives those that may be proposed again. As for the others: once this
// replica has seen what the next leader has, they have been applied, and
// answered, or it is left open.
func (s *Store) settle(batch []*proposal, cause error) (again []*proposal) {
	var open []*proposal
	for _, p := range batch {
		if p.repeatable {
			p.repeated.Store(true)
			again = append(again, p)
		} else {
			open = append(open, p)
		}
	}
	if len(open) == 0 {
		return again
	}
	s.spawn(func() {
		ctx, cancel := s.bounded(s.ctx)
		defer cancel()
		if revision, err := s.readRevision(ctx); err == nil {
			_ = s.mem.Wait(ctx, revision) // or the callers' own deadlines end it
		}
		for _, p := range open {
			p.end(result{err: unknown(cause)})
		}
	})
	return again
}
