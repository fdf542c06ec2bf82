package raftstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestReplace loses a member with its disk. A blank one under another id takes
// its place; the former id is none any more, and does not count for a majority
// when the next one dies.
func TestReplace(t *testing.T) {
	c := newCluster(t, 3, Limits{SnapshotEntries: 20, TrailingEntries: 5})
	for range 50 {
		c.set(c.leader(), "a", "1")
	}
	gone := c.followers()[0]
	c.stop(gone, true)
	if err := os.RemoveAll(filepath.Join(c.dir, gone.id)); err != nil {
		t.Fatal(err)
	}
	fresh := c.start("m4", gone.cfg.Address) // the address passes to it
	if err := c.leader().ReplaceMember(c.ctx(), gone.id, "m4", fresh.cfg.Address); err != nil {
		t.Fatal(err)
	}
	if err := c.leader().ReplaceMember(c.ctx(), gone.id, "m4", fresh.cfg.Address); err != nil {
		t.Fatalf("again: %v", err)
	}
	var ids []string
	for _, m := range c.leader().Members() {
		ids = append(ids, m.ID)
		if !m.Voter {
			t.Errorf("%+v has no vote", m)
		}
	}
	if got := strings.Join(ids, " "); strings.Contains(got, gone.id) || len(ids) != 3 {
		t.Errorf("members %s", got)
	}
	if got := c.get(fresh, "a"); got != "1" {
		t.Errorf("the new one reads %q", got)
	}
	dead := c.leader()
	if dead == fresh {
		dead = c.followers()[0]
	}
	c.stop(dead, true)
	c.set(fresh, "a", "2")
	same(t, c)
}

// TestBlankGivesNoVote asks a member that was wiped, and lives under a new id
// at its former address, for the vote of the one that it was.
func TestBlankGivesNoVote(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	c.set(c.leader(), "a", "1")
	followers := c.followers()
	wiped, candidate := followers[0], followers[1]
	c.stop(wiped, true)
	blank := c.start("m4", wiped.cfg.Address)
	conn, err := c.config("test", "").Dial(t.Context(), blank.cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	vote := func(to string) (*wherryv1.VoteResponse, error) {
		return wherryv1.NewRaftClient(conn).Vote(t.Context(), &wherryv1.VoteRequest{
			Header: &wherryv1.RaftHeader{Protocol: 3, Id: candidate.id, Address: candidate.cfg.Address, To: to},
			Term:   100,
		})
	}
	if got, err := vote(wiped.id); err == nil || !strings.Contains(err.Error(), "this is member m4, not "+wiped.id) {
		t.Errorf("it answers for the one that it was: %v, %v", got, err)
	}
	if _, err := vote("m4"); err != nil {
		t.Errorf("what is meant for it: %v", err)
	}
}

// TestTwoWithOneIdentity starts a copy of a member's data directory under
// another address while that member runs: the copy stops and says why, the
// member goes on.
func TestTwoWithOneIdentity(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	c.set(c.leader(), "a", "1")
	original := c.followers()[0]
	c.stop(original, true)
	if err := os.CopyFS(filepath.Join(c.dir, "copy"), os.DirFS(filepath.Join(c.dir, original.id))); err != nil {
		t.Fatal(err)
	}
	original = c.restart(original)
	c.get(original, "a")
	cfg := c.config(original.id, "127.0.0.1:1")
	cfg.Dir = filepath.Join(c.dir, "copy")
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Failed():
	case <-time.After(patience):
		t.Error("the copy goes on")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "two members have one identity") {
		t.Errorf("the copy says %v", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	c.set(original, "a", "2")
	for _, m := range c.leader().Members() {
		if m.ID == original.id && m.Address != original.cfg.Address {
			t.Errorf("%s is listed at %s, it is at %s", m.ID, m.Address, original.cfg.Address)
		}
	}
}

// TestChangesThatAreRefused names each mistake.
func TestChangesThatAreRefused(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	m := c.leader()
	m.cfg.Cluster, m.transport.cluster = "here", "here"
	learner := c.start("m2", "")
	if err := m.change(c.ctx(), &wherryv1.ChangeRequest{Change: &wherryv1.ChangeRequest_Add{Add: &wherryv1.AddMember{Id: "m2", Address: learner.cfg.Address}}}); err != nil {
		t.Fatal(err)
	}
	conn, err := c.config("test", "").Dial(t.Context(), m.cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	for name, test := range map[string]struct {
		do   func() error
		kind error
		say  string
	}{
		"the last voter":        {func() error { return m.RemoveMember(c.ctx(), "m1") }, apierr.ErrBadRequest, "only member that votes"},
		"transfer to nobody":    {func() error { return m.TransferLeadership(c.ctx(), "") }, apierr.ErrBadRequest, "no other member votes"},
		"transfer to a learner": {func() error { return m.TransferLeadership(c.ctx(), "m2") }, apierr.ErrBadRequest, "has no vote yet"},
		"transfer to unknown":   {func() error { return m.TransferLeadership(c.ctx(), "m9") }, apierr.ErrNotFound, "m9"},
		"replaced by itself":    {func() error { return m.ReplaceMember(c.ctx(), "m2", "m2", "x:1") }, apierr.ErrBadRequest, "by itself"},
		"no address":            {func() error { return m.AddMember(c.ctx(), "m3", "") }, apierr.ErrBadRequest, "address"},
		"of another cluster": {func() error {
			return ask(conn, &wherryv1.RaftHeader{Protocol: 3, Id: "x", To: "m1", Cluster: "there"})
		}, apierr.ErrConflict, "is of cluster there"},
		"for another member": {func() error { return ask(conn, &wherryv1.RaftHeader{Protocol: 3, Id: "x", To: "m7"}) }, apierr.ErrConflict, "not m7"},
		"of the same name":   {func() error { return ask(conn, &wherryv1.RaftHeader{Protocol: 3, Id: "m1", To: "m1"}) }, apierr.ErrConflict, "two members have one identity"},
	} {
		if err := test.do(); !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s: %v, want %v and %q", name, err, test.kind, test.say)
		}
	}
	if got := m.Members(); len(got) != 2 || !got[0].Voter || got[1].Voter {
		t.Errorf("members %+v", got)
	}
}

func ask(conn grpc.ClientConnInterface, h *wherryv1.RaftHeader) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := wherryv1.NewRaftClient(conn).PreVote(ctx, &wherryv1.PreVoteRequest{Header: h})
	return apierr.FromGRPC(err)
}

// TestDamagedSnapshotIsPassedOver damages the newest snapshot where the log
// reaches back to the one before: nothing is lost, so the member goes on.
func TestDamagedSnapshotIsPassedOver(t *testing.T) {
	c := newCluster(t, 1, Limits{SnapshotEntries: 30, TrailingEntries: 10_000})
	m := c.leader()
	for i := range 200 {
		c.set(m, "a", strconv.Itoa(i))
	}
	testkit.Eventually(t, patience, func() error {
		if metas, err := m.disk.snapshots.List(); err != nil || len(metas) < 2 {
			return fmt.Errorf("%d snapshots, %v", len(metas), err)
		}
		return nil
	})
	c.stop(m, true)
	files, err := filepath.Glob(filepath.Join(c.dir, m.id, "snap", "snapshot-*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("snapshots %v, %v", files, err)
	}
	newest := files[1]
	b, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(newest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	m = c.restart(m)
	if got := c.get(m, "a"); got != "199" {
		t.Errorf("it reads %q", got)
	}
	if _, err := os.Stat(newest); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the damaged one stays: %v", err)
	}
}

func TestMembership(t *testing.T) {
	c := newClusterWith(t, 3, Limits{}, calm)
	c.set(c.leader(), "a", "1")
	// A follower is asked to add a fourth one.
	follower := c.followers()[0]
	fourth := c.start("m4", "")
	if err := follower.AddMember(c.ctx(), "m4", fourth.cfg.Address); err != nil {
		t.Fatal(err)
	}
	if err := follower.AddMember(c.ctx(), "m4", fourth.cfg.Address); err != nil {
		t.Fatalf("adding it again: %v", err)
	}
	if got := c.get(fourth, "a"); got != "1" {
		t.Errorf("the new member reads %q", got)
	}
	testkit.Eventually(t, patience, func() error {
		if voters := fourth.voters(); voters != 4 {
			return fmt.Errorf("%d voters, want 4: %+v", voters, fourth.Members())
		}
		return nil
	})
	if err := follower.TransferLeadership(c.ctx(), "m4"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() error { // who led before learns it a little later
		if leader := c.leader(); leader.id != "m4" {
			return fmt.Errorf("%s leads, want m4", leader.id)
		}
		return nil
	})
	if err := follower.RemoveMember(c.ctx(), "m4"); err != nil {
		t.Fatal(err)
	}
	c.stop(fourth, true)
	c.set(follower, "a", "2")
	if err := follower.RemoveMember(c.ctx(), "m4"); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	if err := follower.Bootstrap(); !errors.Is(err, apierr.ErrConflict) {
		t.Errorf("bootstrap of a cluster that is: %v", err)
	}
	if err := follower.TransferLeadership(c.ctx(), "nobody"); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("transfer to nobody: %v", err)
	}
}

// TestCloseHandsOver stops the leader in an orderly way: somebody else leads at
// once, without an election timeout.
func TestCloseHandsOver(t *testing.T) {
	timeouts := Timeouts{Heartbeat: 20 * time.Second, Election: 20 * time.Second, Lease: 19 * time.Second, Request: patience}
	c := newClusterWith(t, 3, Limits{}, timeouts)
	old := c.leader()
	began := time.Now()
	c.stop(old, false)
	c.set(c.leader(), "a", "1")
	if took := time.Since(began); took > timeouts.Lease*9/10 {
		t.Errorf("the next write took %v", took)
	}
}

// TestNewAddress brings a member back under another address; it tells the
// others itself.
func TestNewAddress(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	moved := c.followers()[0]
	c.stop(moved, true)
	c.set(c.leader(), "a", "1")
	moved = c.start(moved.id, net.JoinHostPort(c.ip, "0"))
	if got := c.get(moved, "a"); got != "1" {
		t.Errorf("under its new address it reads %q", got)
	}
}
