package raftstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
