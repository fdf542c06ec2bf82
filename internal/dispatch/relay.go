package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// relayEvery is how often a follower relays if Config.Heartbeat does not say.
const relayEvery = 4 * time.Second

// Relay implements wherryv1.NodesServer: another member has heard of nodes.
func (s *Server) Relay(ctx context.Context, r *wherryv1.RelayRequest) (*wherryv1.RelayResponse, error) {
	u, err := s.cfg.Identify(ctx)
	if err != nil {
		return nil, err
	}
	if !u.Has(authz.Controls) {
		return nil, apierr.Forbidden("nodes", "", fmt.Errorf("only members of the control plane relay heartbeats; %q is none", u.Name))
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range r.GetHeard() {
		at := now.Add(-time.Duration(max(h.GetAgeMillis(), 0)) * time.Millisecond)
		if at.After(s.seen[h.GetNode()]) && at.After(s.since) {
			s.seen[h.GetNode()] = at
		}
	}
	return &wherryv1.RelayResponse{}, nil
}

// KeepRelaying tells the leader, while another member leads, of the nodes that
// this one has heard of since it last did, until ctx ends. Send reaches the
// leader; what fails is told again next time.
func (s *Server) KeepRelaying(ctx context.Context, send func(context.Context, *wherryv1.RelayRequest) error) error {
	every := cmp.Or(s.cfg.Heartbeat, relayEvery)
	t := time.NewTicker(every)
	defer t.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		now := time.Now()
		heard := s.heardSince(told, now)
		if s.cfg.Leader() || len(heard) == 0 {
			continue
		}
		one, cancel := context.WithTimeout(ctx, every)
		err := send(one, &wherryv1.RelayRequest{Heard: heard})
		cancel()
		if err != nil {
			s.cfg.Log.Debug("heartbeats not relayed", "err", err)
			continue
		}
		told = now
	}
}

// heardSince lists the nodes heard of after a moment.
func (s *Server) heardSince(told, now time.Time) []*wherryv1.Heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*wherryv1.Heard
	for node, at := range s.seen {
		if at.After(told) {
			out = append(out, &wherryv1.Heard{Node: node, AgeMillis: now.Sub(at).Milliseconds()})
		}
	}
	return out
}
