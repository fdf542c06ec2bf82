package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// relayServer makes a server that leads or not, called by a user.
func relayServer(leads bool, u api.User) *Server {
	return New(Config{
		Leader: func() bool { return leads }, Heartbeat: time.Second, Log: slog.New(slog.DiscardHandler),
		Identify: func(context.Context) (api.User, error) { return u, nil },
	})
}

func TestNodesThatReachOnlyAFollowerAreHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leader := relayServer(true, api.User{Name: "system:wherry:control:c2", Groups: []string{authz.Controls}})
		follower := relayServer(false, api.User{})
		leader.Lead()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		fails, sent := 2, 0
		go func() {
			done <- follower.KeepRelaying(ctx, func(ctx context.Context, r *wherryv1.RelayRequest) error {
				if fails--; fails >= 0 {
					return errors.New("cut")
				}
				sent++
				_, err := leader.Relay(ctx, r)
				return err
			})
		}()
		time.Sleep(500 * time.Millisecond)
		follower.beat("n1")
		at := time.Now()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if seen := leader.LastSeen("n1"); !seen.Equal(at) {
			t.Errorf("the leader last heard of n1 %v after it spoke", seen.Sub(at))
		}
		if sent != 1 {
			t.Errorf("one sign of life was relayed %d times", sent)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyMembersRelay(t *testing.T) {
	s := relayServer(true, api.User{Name: "system:node:n2", Groups: []string{authz.Nodes}})
	s.Lead()
	before := s.LastSeen("n1")
	_, err := s.Relay(t.Context(), &wherryv1.RelayRequest{Heard: []*wherryv1.Heard{{Node: "n1"}}})
	if !errors.Is(err, apierr.ErrForbidden) || !s.LastSeen("n1").Equal(before) {
		t.Errorf("a node relayed: %v", err)
	}
}

func TestARelayNeverSetsBack(t *testing.T) {
	s := relayServer(true, api.User{Groups: []string{authz.Controls}})
	s.Lead()
	s.beat("n1")
	now := s.LastSeen("n1")
	if _, err := s.Relay(t.Context(), &wherryv1.RelayRequest{Heard: []*wherryv1.Heard{{Node: "n1", AgeMillis: 60000}, {Node: "n2", AgeMillis: -5}}}); err != nil {
		t.Fatal(err)
	}
	if !s.LastSeen("n1").Equal(now) {
		t.Error("an older sign of life replaced a newer one")
	}
	if s.LastSeen("n2").After(time.Now()) {
		t.Error("a node was heard of in the future")
	}
}
