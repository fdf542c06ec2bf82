package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

// meanwhile does something once, after a snapshot was taken.
type meanwhile struct {
	store.Store
	do func()
}

// Snapshot implements store.Reader.
func (m *meanwhile) Snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	snap, err := m.Store.Snapshot(ctx, at)
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return snap, err
}

// TestStraysWhileOneEnters has a member enter while the members are compared
// with the identities: it stays.
func TestStraysWhileOneEnters(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	var id string
	entering := &meanwhile{Store: b.store, do: func() {
		r, err := b.join(token, newJoiner(token, control, "c2"))
		if err != nil {
			t.Error(err)
			return
		}
		id = r.GetMemberId()
		if err := b.raft.AddMember(t.Context(), id, id); err != nil {
			t.Error(err)
		}
	}}
	if err := b.raft.AddMember(t.Context(), "stray", "stray"); err != nil {
		t.Fatal(err)
	}
	s := cluster.New(cluster.Config{Store: entering, Members: b.raft, Self: "c1-0", Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.KeepMembers(ctx) }()
	testkit.Eventually(t, 10*time.Second, func() error {
		if slices.ContainsFunc(b.raft.Members(), func(m raftstore.Member) bool { return m.ID == "stray" }) {
			return errors.New("the members were not compared yet")
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := b.raft.Members(); !slices.ContainsFunc(got, func(m raftstore.Member) bool { return m.ID == id }) {
		t.Errorf("%s was taken out as it entered: %v", id, got)
	}
}
