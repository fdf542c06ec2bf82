package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/cluster"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

func TestControlJoinsEntersAndIsRemoved(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	j := newJoiner(token, control, "c2", netip.MustParseAddr("192.0.2.9"))
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	id := r.GetMemberId()
	if !strings.HasPrefix(id, "c2-") {
		t.Errorf("member id %q", id)
	}
	if again, err := b.join(token, j); err != nil || again.GetMemberId() != id {
		t.Errorf("again: %v, %v", again, err)
	}
	c := b.with(j.key, r.GetCertificate())
	if _, err := c.Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.admin().Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("a user enters: %v", err)
	}
	m, err := b.admin().Members(t.Context(), &wherryv1.MembersRequest{})
	if err != nil || len(m.GetMembers()) != 2 || m.GetRevision() != 7 {
		t.Fatalf("members: %v, %v", m, err)
	}
	if one, two := m.GetMembers()[0], m.GetMembers()[1]; one.GetName() != "c1" || !one.GetReachable() || two.GetName() != "c2" || two.GetReachable() || two.GetId() != id {
		t.Errorf("members: %v", m)
	}
	for range 2 { // twice is as good as once
		if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: id}); err != nil && !errors.Is(err, apierr.ErrNotFound) {
			t.Fatal(err)
		}
	}
	own := must(pki.SaveKeyPair(t.TempDir(), j.key, r.GetCertificate(), r.GetCa())).Self()
	if err := b.pins.Check(own); !errors.Is(err, pki.ErrPinned) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a removed member passes: %v", err)
	}
	if len(b.raft.Members()) != 1 {
		t.Errorf("members: %v", b.raft.Members())
	}
	if _, err := c.Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a removed member enters: %v", err)
	}
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"}); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("the last member goes: %v", err)
	}
	if _, err := b.join(token, j); err != nil { // with its key of before
		t.Errorf("joining again: %v", err)
	}
	if _, err := c.Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); err != nil {
		t.Errorf("entering again: %v", err)
	}
	for r := range must(b.store.Snapshot(t.Context(), store.At{})).Scan("identities.internal.wherry", "", api.Key{}) {
		if strings.HasPrefix(r.Name, "removed:") {
			t.Errorf("%s: the mark stays after the member is back", r.Name)
		}
	}
}

// TestNodeCannotPassForAMember: a node that calls itself as a member, or as the
// one name of all members, must not be able to serve as that.
func TestNodeCannotPassForAMember(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 0)
	for _, name := range []string{"c1", "cluster.example", "kubernetes"} {
		j := newJoiner(token, node, name)
		r, err := b.join(token, j)
		if err != nil {
			t.Fatal(err)
		}
		leaf := must(pki.SaveKeyPair(t.TempDir(), j.key, r.GetCertificate(), r.GetCa())).Leaf()
		if leaf.VerifyHostname(name) == nil {
			t.Errorf("a node serves as %s", name)
		}
		if leaf.VerifyHostname(name+".node.internal.wherry") != nil {
			t.Errorf("node %s serves as nothing", name)
		}
	}
}

// TestReplace has a machine whose disk was wiped join under its name, and later
// lose its data alone: each time its former id is taken out, and its former key
// is no good any more.
func TestReplace(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	const address = "192.0.2.9:7443"
	enter := func(j joiner, r *wherryv1.JoinResponse, id string) {
		t.Helper()
		if _, err := b.with(j.key, r.GetCertificate()).Enter(t.Context(), &wherryv1.EnterRequest{Address: address, MemberId: id}); err != nil {
			t.Fatal(err)
		}
	}
	ids := func() (out []string) {
		for _, m := range b.raft.Members() {
			out = append(out, m.ID)
		}
		return out
	}
	first := newJoiner(token, control, "c2")
	one, err := b.join(token, first)
	if err != nil {
		t.Fatal(err)
	}
	enter(first, one, "")
	b.raft.answers(address)
	wiped := newJoiner(token, control, "c2")
	if _, err := b.join(token, wiped); !errors.Is(err, apierr.ErrConflict) || !strings.Contains(err.Error(), "answers at "+address) {
		t.Errorf("a second one joins under the name of one that runs: %v", err)
	}
	b.raft.there = nil
	two, err := b.join(token, wiped)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.join(token, wiped); err != nil || again.GetMemberId() != two.GetMemberId() {
		t.Errorf("joining again: %v, %v", again, err)
	}
	own := must(pki.SaveKeyPair(t.TempDir(), first.key, one.GetCertificate(), one.GetCa())).Self()
	if err := b.pins.Check(own); !errors.Is(err, pki.ErrPinned) {
		t.Errorf("the former key passes: %v", err)
	}
	enter(wiped, two, "")
	if got := ids(); len(got) != 2 || got[1] != two.GetMemberId() || got[1] == one.GetMemberId() {
		t.Errorf("members %v, want the new one of %s", got, two.GetMemberId())
	}
	const anew = "c2-anew"
	for range 2 {
		enter(wiped, two, anew)
		b.raft.members = slices.Compact(b.raft.members) // the fake adds what is there
	}
	if got := ids(); len(got) != 2 || got[1] != anew {
		t.Errorf("members %v, want %s", got, anew)
	}
	if _, err := b.with(wiped.key, two.GetCertificate()).Enter(t.Context(), &wherryv1.EnterRequest{Address: address, MemberId: "c1-0"}); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("it enters under another's id: %v", err)
	}
}

// TestStrays has members without an identity be taken out, and no others.
func TestStrays(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	j := newJoiner(token, control, "c2")
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	wiped := newJoiner(token, control, "c2") // its former id waits for the new one
	two, err := b.join(token, wiped)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"c2-stray", r.GetMemberId(), two.GetMemberId()} {
		if err := b.raft.AddMember(t.Context(), id, id); err != nil {
			t.Fatal(err)
		}
	}
	s := cluster.New(cluster.Config{Store: b.store, Members: b.raft, Self: "c1-0", Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.KeepMembers(ctx) }()
	gone := func(id string) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() error {
			for _, m := range b.raft.Members() {
				if m.ID == id {
					return fmt.Errorf("%s is still a member", id)
				}
			}
			return nil
		})
	}
	gone("c2-stray")
	if got := b.raft.Members(); len(got) != 3 {
		t.Errorf("members %v", got)
	}
	b.raft.answers(two.GetMemberId())
	b.raft.answers(r.GetMemberId())
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: two.GetMemberId()}); err != nil {
		t.Fatal(err)
	}
	gone(two.GetMemberId())
	gone(r.GetMemberId())
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOnlyMastersSeeMembers(t *testing.T) {
	b := newBed(t)
	joe := b.as(pki.Request{User: "joe"})
	_, members := joe.Members(t.Context(), &wherryv1.MembersRequest{})
	_, remove := joe.RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"})
	_, transfer := joe.TransferLeadership(t.Context(), &wherryv1.TransferLeadershipRequest{})
	for _, err := range []error{members, remove, transfer} {
		if !errors.Is(err, apierr.ErrForbidden) || !strings.Contains(err.Error(), `user "joe" may not`) {
			t.Errorf("got %v", err)
		}
	}
}

func TestLeaderThatIsRemovedHandsOver(t *testing.T) {
	b := newBed(t)
	b.raft.members = append(b.raft.members, raftstore.Member{ID: "c2-0", Address: "192.0.2.2:7443", Voter: true})
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"}); !errors.Is(err, apierr.ErrConflict) || !strings.Contains(err.Error(), "no majority") {
		t.Errorf("a removal that leaves no majority: %v", err)
	}
	b.raft.answers("192.0.2.2:7443")
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"}); err != nil {
		t.Fatal(err)
	}
	if b.raft.moved != 1 {
		t.Error("leadership was not handed over")
	}
}

func TestPins(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 0)
	j := newJoiner(token, node, "n1")
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	keys := must(pki.SaveKeyPair(t.TempDir(), j.key, r.GetCertificate(), r.GetCa()))
	own := keys.Self()
	other := own
	other.Key = "another"
	stranger := pki.Peer{Role: pki.Node, Name: "n9", Key: "x"}
	behind := pki.Peer{Role: pki.Member, Name: "c9", Key: "x"}
	wrong := pki.Peer{Role: pki.Member, Name: "c1", Key: "x"}
	for name, tt := range map[string]struct {
		peer pki.Peer
		ok   bool
	}{"own key": {own, true}, "another key": {other, false}, "unknown node": {stranger, false}, "unknown member": {behind, true}, "member with another key": {wrong, false}} {
		err := b.pins.Check(tt.peer)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, pki.ErrPinned) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var empty cluster.Pins
	if empty.Check(own) == nil || empty.Check(wrong) != nil {
		t.Error("before there is a state, members pass and nodes do not")
	}
}
