package raftstore

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// alarm tells this replica's Raft in time that its leader is gone. The library
// looks at random times only, up to three heartbeat time-outs apart, and a
// follower that has not noticed refuses the others its pre-vote, so the slowest
// of a majority would count. Here every follower looks at a time of its own,
// soon after the others: once the lease is over if the leader's connections
// are gone, as when its process was killed, and else when it has been silent
// for longer than the heartbeat time-out. A leader that is only slow keeps its
// connections, and so its place.
type alarm struct {
	s    *Store
	wake chan struct{}

	mu     sync.Mutex
	opened map[string]int // append streams by the member that opened them

	reloadMu sync.Mutex // of the library's configuration
}

func newAlarm(s *Store) *alarm {
	return &alarm{s: s, wake: make(chan struct{}, 1), opened: map[string]int{}}
}

// stream notes that a member has opened a stream, until the call of what it
// gives.
func (a *alarm) stream(id string) (ended func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened[id]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.opened[id]--; a.opened[id] > 0 {
			return
		}
		delete(a.opened, id)
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

func (a *alarm) connected(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened[id] > 0
}

// apart is how long one follower looks after another, so that their elections
// do not meet.
const apart = 20 * time.Millisecond

// silence is how long a leader may be silent before this follower calls for an
// election: 0 if it is not for this replica to do so.
func (a *alarm) silence(leader raft.ServerID) time.Duration {
	f := a.s.raft.GetConfiguration()
	if f.Error() != nil || leader == "" {
		return 0
	}
	var voters []string
	for _, m := range f.Configuration().Servers {
		if m.Suffrage == raft.Voter && m.ID != leader {
			voters = append(voters, string(m.ID))
		}
	}
	slices.Sort(voters)
	rank := slices.Index(voters, a.s.cfg.ID)
	if rank < 0 {
		return 0
	}
	own := a.s.cfg.Timeouts
	if a.connected(string(leader)) {
		return own.Heartbeat*5/4 + time.Duration(rank)*apart
	}
	return own.Lease + apart/2 + time.Duration(rank)*apart
}

// run looks after the leader until the store closes.
func (a *alarm) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := a.s.cfg.Timeouts.Lease
		_, leader := a.s.raft.LeaderWithID()
		if limit := a.silence(leader); limit > 0 && a.s.raft.State() == raft.Follower {
			if wait = limit - time.Since(a.s.raft.LastContact()); wait <= 0 {
				a.ring(leader)
				wait = a.s.cfg.Timeouts.Lease
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-a.wake:
		case <-a.s.ctx.Done():
			return
		}
	}
}

// ring has the library look now: it does so when its time-out becomes shorter.
func (a *alarm) ring(leader raft.ServerID) {
	set := func(d time.Duration) bool {
		err := a.reload(func(r *raft.ReloadableConfig) { r.HeartbeatTimeout = d })
		if err != nil {
			a.s.log.Warn("heartbeat time-out could not be set", "err", err)
		}
		return err == nil
	}
	if !set(a.s.cfg.Timeouts.Lease) {
		return
	}
	// It has looked when it does not follow that leader any more.
	timer := time.NewTimer(a.s.cfg.Timeouts.Lease)
	defer timer.Stop()
	for looked := false; !looked; {
		_, changed := a.s.Leadership()
		if _, now := a.s.raft.LeaderWithID(); now != leader {
			break
		}
		select {
		case <-changed:
		case <-timer.C:
			looked = true
		case <-a.s.ctx.Done():
			looked = true
		}
	}
	set(a.s.cfg.Timeouts.Heartbeat)
}

// reload changes a part of the library's configuration.
func (a *alarm) reload(change func(*raft.ReloadableConfig)) error {
	a.reloadMu.Lock()
	defer a.reloadMu.Unlock()
	r := a.s.raft.ReloadableConfig()
	change(&r)
	return a.s.raft.ReloadConfig(r)
}
