package raftstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestLeaderKilledUnderWrites kills the leader three times while writers on
// all members go on. Every acknowledged write must be there at the end, and a
// watch must have seen every revision once and in order.
func TestLeaderKilledUnderWrites(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	stop := make(chan struct{})
	type write struct {
		name     string
		revision uint64
	}
	var mu sync.Mutex
	acked := map[string]uint64{}
	var wg sync.WaitGroup
	var tried, lost atomic.Int64
	for w := range 6 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				all := c.all()
				m := all[(w+i/50)%len(all)]
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				name := fmt.Sprintf("w%d-%d", w, i)
				revision, err := m.Commit(ctx, storetest.Set(storetest.Key(name), "x", store.Cond{Absent: true}))
				cancel()
				tried.Add(1)
				if err != nil {
					lost.Add(1)
					if !errors.Is(err, apierr.ErrTimeout) && !errors.Is(err, apierr.ErrUnavailable) {
						t.Errorf("write: %v", err)
					}
					continue
				}
				mu.Lock()
				acked[name] = revision
				mu.Unlock()
			}
		})
	}
	for range 3 {
		old := c.leader()
		before := len(c.all())
		killed := time.Now()
		c.stop(old, true)
		c.leader()
		t.Logf("new leader after %v", time.Since(killed).Round(time.Millisecond))
		c.restart(old)
		if before != 3 {
			t.Fatal("members are missing")
		}
		time.Sleep(200 * time.Millisecond) // of writes between the faults
	}
	close(stop)
	wg.Wait()
	t.Logf("%d writes, %d acknowledged, %d left open", tried.Load(), len(acked), lost.Load())
	if len(acked) < 30 {
		t.Errorf("only %d writes were acknowledged", len(acked))
	}
	for _, m := range c.all() {
		snap, err := m.Snapshot(c.ctx(), store.At{})
		if err != nil {
			t.Fatal(err)
		}
		for name, revision := range acked {
			if _, at := storetest.Value(snap, storetest.Key(name)); at != revision {
				t.Errorf("%s: acknowledged write %s of revision %d is at %d", m.id, name, revision, at)
			}
		}
	}
}

// TestFollowerCutOff cuts a follower off: it refuses reads and writes within
// their deadlines, never answers with old data, and is back after healing.
func TestFollowerCutOff(t *testing.T) {
	c := newClusterWith(t, 3, Limits{}, Timeouts{Heartbeat: 2 * time.Second, Election: 2 * time.Second, Lease: 1900 * time.Millisecond, Request: 2 * patience})
	leader := c.leader()
	follower := c.but(leader)[0]
	c.set(leader, "a", "before")
	if got := c.get(follower, "a"); got != "before" {
		t.Fatalf("the follower reads %q", got)
	}
	c.net.set(follower.id, true)
	c.set(leader, "a", "after")
	for _, deadline := range []time.Duration{50 * time.Millisecond, 700 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		began := time.Now()
		snap, err := follower.Snapshot(ctx, store.At{})
		if err == nil {
			value, _ := storetest.Value(snap, storetest.Key("a"))
			t.Errorf("a follower that is cut off reads %q", value)
		} else if !errors.Is(err, apierr.ErrTimeout) && !errors.Is(err, apierr.ErrUnavailable) {
			t.Errorf("read: %v", err)
		}
		_, err = follower.Commit(ctx, storetest.Set(storetest.Key("b"), "x", store.Cond{}))
		if !errors.Is(err, apierr.ErrTimeout) && !errors.Is(err, apierr.ErrUnavailable) {
			t.Errorf("write: %v", err)
		}
		if took := time.Since(began); took > deadline+patience { // less than without a deadline
			t.Errorf("refusing took %v with a deadline of %v", took, deadline)
		}
		cancel()
	}
	if snap, err := follower.Snapshot(t.Context(), store.At{Level: store.Any}); err != nil {
		t.Errorf("any: %v", err)
	} else if value, _ := storetest.Value(snap, storetest.Key("a")); value != "before" {
		t.Errorf("any: %q", value)
	}
	eventually(t, "the follower gives the leader up", func() bool { now, _ := follower.Leadership(); return now.ID == "" })
	before, _ := leader.Leadership()
	healed := time.Now()
	c.net.set(follower.id, false)
	if got := c.get(follower, "a"); got != "after" {
		t.Errorf("after healing the follower reads %q", got)
	}
	t.Logf("reads %v after healing", time.Since(healed).Round(time.Millisecond))
	if now, _ := leader.Leadership(); before.Leader && now != before {
		t.Errorf("the leader lost its place to a follower that came back: %+v, before %+v", now, before)
	}
}

// TestLeaderCutOff cuts the leader off: the others go on, and it never answers
// with what it had, not even in the time before it notices.
func TestLeaderCutOff(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	old := c.leader()
	others := c.but(old)
	c.set(old, "a", "0")
	stop := make(chan struct{})
	var newest atomic.Int64
	var wg sync.WaitGroup
	var reads, refused atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				floor := newest.Load()
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
				snap, err := old.Snapshot(ctx, store.At{})
				cancel()
				if err != nil {
					refused.Add(1)
					continue
				}
				reads.Add(1)
				value, _ := storetest.Value(snap, storetest.Key("a"))
				if n, _ := strconv.ParseInt(value, 10, 64); n < floor {
					t.Errorf("the former leader reads %d, %d is acknowledged", n, floor)
				}
			}
		})
	}
	c.net.set(old.id, true)
	for i := int64(1); i <= 50; i++ {
		// A write that was on its way to the old leader is left open.
		testkit.Eventually(t, patience, func() error {
			_, err := others[i%2].Commit(c.ctx(), storetest.Set(storetest.Key("a"), strconv.FormatInt(i, 10), store.Cond{}))
			return err
		})
		newest.Store(i)
	}
	c.net.set(old.id, false)
	if got := c.get(old, "a"); got != "50" {
		t.Errorf("after healing it reads %q", got)
	}
	close(stop)
	wg.Wait()
	if refused.Load() == 0 {
		t.Error("nothing was refused: the cut did not work")
	}
	t.Logf("%d reads, %d refused", reads.Load(), refused.Load())
}

// TestReadNeedsAMajority asks a leader that has just been cut off and has not
// noticed: it must not answer, since others might lead already.
func TestReadNeedsAMajority(t *testing.T) {
	c := newClusterWith(t, 3, Limits{}, Timeouts{Heartbeat: 20 * time.Second, Election: 20 * time.Second, Lease: 19 * time.Second})
	leader := c.leader()
	c.set(leader, "a", "1")
	c.net.set(leader.id, true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := leader.Snapshot(ctx, store.At{}); !errors.Is(err, apierr.ErrTimeout) && !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("read: %v", err)
	}
	if !leader.IsLeader() {
		t.Error("it has noticed, so nothing was tested")
	}
}

// TestNoMajority leaves one member of three: it refuses, and goes on when
// another is back.
func TestNoMajority(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	c.set(c.leader(), "a", "1")
	all := c.all()
	c.stop(all[1], true)
	c.stop(all[2], true)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := all[0].Commit(ctx, storetest.Set(storetest.Key("a"), "2", store.Cond{}))
	if !errors.Is(err, apierr.ErrTimeout) && !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("write without a majority: %v", err)
	}
	if _, err := all[0].Snapshot(ctx, store.At{}); err == nil {
		t.Error("a linearizable read without a majority was answered")
	}
	back := c.restart(all[1])
	c.set(back, "b", "1")
	if got := c.get(all[0], "b"); got != "1" {
		t.Errorf("after one is back: %q", got)
	}
}

// TestRestart stops and starts all members, with snapshots and log on disk.
func TestRestart(t *testing.T) {
	c := newCluster(t, 3, Limits{SnapshotEntries: 40, TrailingEntries: 10})
	for i := range 150 {
		c.set(c.all()[i%3], fmt.Sprint("k", i%30), strconv.Itoa(i))
	}
	all := c.all()
	for _, m := range all {
		c.stop(m, true)
	}
	var last *member
	for _, m := range all {
		last = c.restart(m)
	}
	compacted(t, last)
	for i := 120; i < 150; i++ {
		if got := c.get(last, fmt.Sprint("k", i%30)); got != strconv.Itoa(i) {
			t.Errorf("after the restart k%d is %q, want %d", i%30, got, i)
		}
	}
	same(t, c)
	c.set(last, "z", "1")
}

// compacted waits until a member has a snapshot, and its log is cut behind it.
func compacted(t *testing.T, m *member) {
	t.Helper()
	testkit.Eventually(t, patience, func() error {
		if metas, err := m.disk.snapshots.List(); err != nil || len(metas) == 0 {
			return fmt.Errorf("no snapshot was made: %w", err)
		}
		if first, err := m.disk.logs.FirstIndex(); err != nil || first < 2 {
			return fmt.Errorf("the log was not cut: it begins at %d (%w)", first, err)
		}
		return nil
	})
}

// same compares the replicas' states byte by byte.
func same(t *testing.T, c *cluster) {
	t.Helper()
	var first []byte
	for _, m := range c.all() {
		if _, err := m.Snapshot(c.ctx(), store.At{}); err != nil {
			t.Fatal(err)
		}
		var b writeBuffer
		if err := m.mem.Image().Persist(&b); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !slices.Equal(first, b) {
			t.Errorf("the state of %s differs", m.id)
		}
	}
}

type writeBuffer []byte

func (b *writeBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// TestSnapshotBringsBack lets a member miss so much that only a snapshot can
// bring it back, larger than one message, while writes go on.
func TestSnapshotBringsBack(t *testing.T) {
	c := newCluster(t, 3, Limits{SnapshotEntries: 50, TrailingEntries: 10})
	away := c.followers()[0]
	c.stop(away, true)
	leader := c.leader()
	big := string(make([]byte, 20<<10))
	for i := range 200 {
		c.set(leader, fmt.Sprint("k", i), big)
	}
	snap, err := leader.Snapshot(c.ctx(), store.At{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.restart(away).Watch(c.ctx(), store.Filter{}, snap.Revision())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range 50 {
		c.set(leader, fmt.Sprint("k", i), "new")
	}
	same(t, c)
}

// TestLogBringsBack lets a member miss more than one message holds.
func TestLogBringsBack(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	away := c.followers()[0]
	c.stop(away, true)
	leader := c.leader()
	big := string(make([]byte, 100<<10))
	for i := range 60 {
		c.set(leader, fmt.Sprint("k", i), big)
	}
	c.restart(away)
	same(t, c)
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

// TestUnknownFormatStops has the log bring an entry of a newer version: the
// replicas stop instead of differing, and write no snapshot.
func TestUnknownFormatStops(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	m := c.leader()
	c.set(m, "a", "1")
	if err := m.raft.Apply([]byte{entryFormat + 1, 1, 2, 3}, patience).Error(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Failed():
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	if _, err := m.Commit(c.ctx(), storetest.Set(storetest.Key("a"), "2", store.Cond{})); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("write: %v", err)
	}
	if _, err := m.Snapshot(c.ctx(), store.At{}); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("read: %v", err)
	}
	if err := m.raft.Snapshot().Error(); err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) {
		t.Errorf("snapshot: %v, want a refusal", err)
	}
	t.Log(m.Err())
}

// TestFollowersApplyAtOnce measures how long after the leader an idle
// cluster's followers apply a write.
func TestFollowersApplyAtOnce(t *testing.T) {
	c := newClusterWith(t, 3, Limits{}, calm)
	leader := c.leader()
	followers := c.but(leader)
	// The slower follower may still be at its disk when the write is done, so
	// each waits by itself.
	var took []time.Duration
	for i := range 60 {
		revision := c.set(leader, "a", strconv.Itoa(i))
		began := time.Now()
		first := make(chan error, len(followers))
		for _, f := range followers {
			go func() {
				_, err := f.Snapshot(c.ctx(), store.At{Level: store.AtLeast, Revision: revision})
				first <- err
			}()
		}
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		if err := <-first; err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(took)
	t.Logf("followers applied after p50 %v, p90 %v", took[30], took[54])
	// 5 ms on a quiet machine. Who is not told at once is told with the next
	// request, never earlier than after commitTimeout.
	if took[15] > commitTimeout/2 {
		t.Errorf("followers applied %v after the leader (p25)", took[15])
	}
}
