package raftstore

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// pulse is what heartbeats tell of a member.
type pulse struct {
	// away is nil while heartbeats are answered, else a channel that is closed
	// when one is.
	away chan struct{}
	// waiting counts the requests that wait for it.
	waiting int
	// beats counts the answered heartbeats.
	beats uint64
}

// beat notes how a heartbeat went.
func (t *transport) beat(id string, err error) {
	t.pulseMu.Lock()
	defer t.pulseMu.Unlock()
	p := t.pulses[id]
	if p == nil {
		p = &pulse{}
		t.pulses[id] = p
	}
	if err == nil {
		p.beats++
	}
	switch {
	case err != nil && p.away == nil:
		p.away = make(chan struct{})
	case err == nil && p.away != nil:
		close(p.away)
		p.away = nil
	}
}

// awaitBack holds a request to a member that does not answer heartbeats until
// it does. The library tries heartbeats again soon, but entries and snapshots
// later and later, up to every ten seconds: a member that comes back would be
// of no use for as long. It gives up when the member is none any more, or this
// one does not lead in the request's term.
func (t *transport) awaitBack(id raft.ServerID, target raft.ServerAddress, term uint64) error {
	back := t.waitBegins(string(id))
	if back == nil {
		return nil
	}
	defer t.waitEnds(string(id))
	look := time.NewTicker(t.callTimeout)
	defer look.Stop()
	for {
		select {
		case <-back:
			return nil
		case <-look.C:
			if t.wanted != nil && !t.wanted(id, target, term) {
				return fmt.Errorf("member %s at %s is away, and not waited for any more", id, target)
			}
		case <-t.ctx.Done():
			return errClosed
		}
	}
}

func (t *transport) waitBegins(id string) <-chan struct{} {
	t.pulseMu.Lock()
	defer t.pulseMu.Unlock()
	p := t.pulses[id]
	if p == nil || p.away == nil {
		return nil
	}
	p.waiting++
	return p.away
}

func (t *transport) waitEnds(id string) {
	t.pulseMu.Lock()
	defer t.pulseMu.Unlock()
	t.pulses[id].waiting--
}

// waitsFor reports whether requests wait for a member.
func (t *transport) waitsFor(id string) bool {
	t.pulseMu.Lock()
	defer t.pulseMu.Unlock()
	p := t.pulses[id]
	return p != nil && p.waiting > 0
}

// isAway reports whether a member's last heartbeat was not answered.
func (t *transport) isAway(id string) bool {
	t.pulseMu.Lock()
	defer t.pulseMu.Unlock()
	p := t.pulses[id]
	return p != nil && p.away != nil
}

// lives waits whether a member answers heartbeats at the address that it is
// known under. One answer may have been on its way before the call.
func (t *transport) lives(ctx context.Context, id string) bool {
	beats := func() uint64 {
		t.pulseMu.Lock()
		defer t.pulseMu.Unlock()
		if p := t.pulses[id]; p != nil {
			return p.beats
		}
		return 0
	}
	enough := beats() + 2
	ctx, cancel := context.WithTimeout(ctx, t.callTimeout)
	defer cancel()
	look := time.NewTicker(t.callTimeout / 50)
	defer look.Stop()
	for beats() < enough {
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// wanted reports whether this replica leads in a term and has a member at an
// address.
func (s *Store) wanted(id raft.ServerID, address raft.ServerAddress, term uint64) bool {
	r := s.running.Load()
	if r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return false
	}
	for _, m := range f.Configuration().Servers {
		if m.ID == id && m.Address == address {
			return true
		}
	}
	return false
}
