package raftstore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/raft"
)

// committedIs tells the followers of a new commit index.
func (t *transport) committedIs(index uint64) {
	t.committed.Store(index)
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.pipelines {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// confirm asks the voters whether this member still leads in a term, and gives
// nil when a majority says so. Only answers to questions asked after the call
// count. (raft.VerifyLeader also counts answers to earlier requests, which may
// be older than a new leader's first commit.)
func (t *transport) confirm(ctx context.Context, term uint64, servers []raft.Server) error {
	voters, yes := 0, 0
	answers := make(chan error, len(servers))
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if string(s.ID) == t.id {
			yes++
			continue
		}
		t.wg.Go(func() { answers <- t.confirmOne(s, term) })
	}
	var err error
	for asked := voters - yes; yes <= voters/2; asked-- {
		if asked == 0 {
			return fmt.Errorf("no majority confirms the leader: %w", err)
		}
		select {
		case e := <-answers:
			if e == nil {
				yes++
			} else {
				err = e
			}
		case <-ctx.Done():
			return fmt.Errorf("no majority confirms the leader: %w", ctx.Err())
		}
	}
	return nil
}

// maxConfirming bounds the questions to one peer that wait.
const maxConfirming = 16

func (t *transport) confirmOne(s raft.Server, term uint64) error {
	p, err := t.peer(string(s.ID), string(s.Address))
	if err != nil {
		return err
	}
	if p.confirming.Add(1) > maxConfirming {
		p.confirming.Add(-1)
		return errStreamBusy
	}
	defer p.confirming.Add(-1)
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.id), Addr: []byte(t.address)},
		Term:      term,
	}
	var resp raft.AppendEntriesResponse
	if err := p.call(p.beatStream, req, &resp, false); err != nil {
		return err
	}
	if !resp.Success || resp.Term != term {
		return fmt.Errorf("member %s is in term %d, this leader in %d", s.ID, resp.Term, term)
	}
	return nil
}

// ackWait waits for a follower to have an entry.
type ackWait struct {
	id    string
	index uint64
	done  chan struct{}
}

// ack notes that a follower has all entries of a request.
func (t *transport) ack(id string, req *raft.AppendEntriesRequest) {
	index := req.PrevLogEntry + uint64(len(req.Entries))
	t.ackMu.Lock()
	defer t.ackMu.Unlock()
	if index <= t.acked[id] {
		return
	}
	t.acked[id] = index
	rest := t.waiting[:0]
	for _, w := range t.waiting {
		if w.id == id && w.index <= index {
			close(w.done)
		} else {
			rest = append(rest, w)
		}
	}
	clear(t.waiting[len(rest):])
	t.waiting = rest
}

// forgetAcks begins a leadership: what followers had before may be gone.
func (t *transport) forgetAcks() {
	t.ackMu.Lock()
	defer t.ackMu.Unlock()
	clear(t.acked)
}

// keepOnly forgets what is known of members that are none any more.
func (t *transport) keepOnly(members []Member) {
	gone := func(id string) bool {
		return !slices.ContainsFunc(members, func(m Member) bool { return m.ID == id })
	}
	t.ackMu.Lock()
	maps.DeleteFunc(t.acked, func(id string, _ uint64) bool { return gone(id) })
	t.ackMu.Unlock()
	t.pulseMu.Lock()
	maps.DeleteFunc(t.pulses, func(id string, p *pulse) bool { return gone(id) && p.waiting == 0 })
	t.pulseMu.Unlock()
}

// waitAcked waits until a follower is known to have an entry.
func (t *transport) waitAcked(ctx context.Context, id string, index uint64) error {
	t.ackMu.Lock()
	if t.acked[id] >= index {
		t.ackMu.Unlock()
		return nil
	}
	w := &ackWait{id, index, make(chan struct{})}
	t.waiting = append(t.waiting, w)
	t.ackMu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	t.ackMu.Lock()
	defer t.ackMu.Unlock()
	for i, other := range t.waiting {
		if other == w {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			break
		}
	}
	return fmt.Errorf("member %s has entry %d of %d: %w", id, t.acked[id], index, ctx.Err())
}
