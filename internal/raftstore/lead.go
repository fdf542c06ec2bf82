package raftstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/apierr"
)

// Leadership says who leads, as this replica knows it.
type Leadership struct {
	// ID and Address are empty while nobody is known to lead.
	ID, Address string
	// Leader reports that this replica leads.
	Leader bool
	// Ready reports that it leads and has applied everything that was ever
	// acknowledged: controllers may start.
	Ready bool
	// Term counts leaderships; it goes up with each.
	Term uint64
}

// lead keeps what is known of leadership.
type lead struct {
	mu      sync.Mutex
	now     Leadership
	changed chan struct{}
	ready   uint64 // the term in which this replica is ready, or 0
}

// Leadership gives what holds now, and a channel that is closed when it changes.
func (s *Store) Leadership() (Leadership, <-chan struct{}) {
	s.lead.mu.Lock()
	defer s.lead.mu.Unlock()
	return s.lead.now, s.lead.changed
}

// IsLeader reports whether this replica leads.
func (s *Store) IsLeader() bool { return s.leads() }

func (s *Store) leads() bool { return s.raft.State() == raft.Leader }

func (l *lead) readyTerm() (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready, l.ready != 0
}

// refresh looks again and tells everybody if there is news.
func (s *Store) refresh() {
	address, id := s.raft.LeaderWithID()
	l := &s.lead
	l.mu.Lock()
	defer l.mu.Unlock()
	now := Leadership{ID: string(id), Address: string(address), Term: s.raft.CurrentTerm()}
	now.Leader = now.ID == s.cfg.ID && s.leads()
	now.Ready = now.Leader && l.ready == now.Term
	if now != l.now {
		l.now = now
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

func (s *Store) setReady(term uint64) {
	s.lead.mu.Lock()
	s.lead.ready = term
	s.lead.mu.Unlock()
	s.refresh()
}

// followLeadership keeps lead up to date and makes this replica ready whenever
// it is elected.
func (s *Store) followLeadership() {
	// The library waits for nobody on this channel; what overflows is made
	// good by the next look.
	news := make(chan raft.Observation, 16)
	observer := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	s.raft.RegisterObserver(observer)
	defer s.raft.DeregisterObserver(observer)
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		s.refresh()
		select {
		case leads := <-s.elected:
			s.setReady(0)
			if leads {
				s.transport.forgetAcks()
				s.becomeReady()
			}
		case <-news:
		case <-again.C:
			if members := s.Members(); members != nil {
				s.transport.keepOnly(members)
			}
			s.announce()
		case <-s.ctx.Done():
			return
		}
	}
}

// becomeReady commits and applies an empty entry of the new term; everything
// acknowledged before stands ahead of it.
func (s *Store) becomeReady() {
	for s.ctx.Err() == nil && s.leads() {
		s.refresh()
		term := s.raft.CurrentTerm()
		err := s.raft.Apply(newEntry(nil), s.cfg.Timeouts.Request).Error()
		switch {
		case err == nil && s.raft.CurrentTerm() == term:
			s.setReady(term)
			return
		case err != nil && !errors.Is(err, raft.ErrEnqueueTimeout):
			s.log.Warn("new leader could not commit", "err", err)
			return // leadership is lost, and s.elected says so
		}
	}
}

// leaderPeer gives the connections to the leader.
func (s *Store) leaderPeer() (*peer, error) {
	address, id := s.raft.LeaderWithID()
	switch string(id) {
	case "":
		return nil, apierr.Unavailable("no leader is known: a majority of the members must be up and reachable")
	case s.cfg.ID:
		return nil, errNotLeader // not any more, or not yet
	}
	return s.transport.peer(string(id), string(address))
}

// whileLeads gives a context that also ends when a member is not known as the
// leader any more.
func (s *Store) whileLeads(ctx context.Context, id string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	now, changed := s.Leadership()
	if now.ID != "" && now.ID != id {
		cancel()
		return ctx, cancel
	}
	s.spawn(func() {
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			if now, changed = s.Leadership(); now.ID != id {
				cancel()
				return
			}
		}
	})
	return ctx, cancel
}
