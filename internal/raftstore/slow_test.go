package raftstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

// faultyCluster makes a cluster whose disks can have faults.
func faultyCluster(t *testing.T, size int, timeouts Timeouts) (*cluster, map[string]*diskfault.Faulty) {
	var mu sync.Mutex
	disks := map[string]*diskfault.Faulty{}
	c := newClusterOn(t, size, Limits{}, timeouts, "", func(id string) raftlog.FS {
		mu.Lock()
		defer mu.Unlock()
		if disks[id] == nil {
			disks[id] = diskfault.NewFaulty(raftlog.Disk{})
		}
		return disks[id]
	})
	t.Cleanup(func() { // before the members are closed
		for _, d := range disks {
			d.SetDelay(0)
			d.SetFull(false)
		}
	})
	return c, disks
}

// TestSlowDisk makes syncs take long, on one member after the other and then on
// all: nobody stops leading, reads go on, and writes come when the disk has
// them, not before.
func TestSlowDisk(t *testing.T) {
	// Syncs take longer than a leader may be silent, and that is longer than a
	// busy machine makes it.
	const delay = 2 * time.Second
	c, disks := faultyCluster(t, 3, Timeouts{Heartbeat: 1500 * time.Millisecond, Request: patience})
	leader := c.leader()
	c.set(leader, "a", "1")
	before, _ := leader.Leadership()
	for _, slow := range [][]*member{{leader}, c.but(leader)[:1], c.all()} {
		var names []string
		for _, m := range slow {
			disks[m.id].SetDelay(delay)
			names = append(names, m.id)
		}
		// Writes for longer than a sync takes, and reads beside them.
		until := time.Now().Add(delay * 3 / 2)
		var wg sync.WaitGroup
		for _, m := range c.all() {
			wg.Go(func() {
				for time.Now().Before(until) {
					if _, err := m.Commit(c.ctx(), storetest.Set(storetest.Key("a"), "2", store.Cond{})); err != nil {
						t.Errorf("%v slow: write on %s: %v", names, m.id, err)
					}
					time.Sleep(5 * time.Millisecond) // a load, and not the most that goes
				}
			})
		}
		reads := 0
		for time.Now().Before(until) {
			for _, m := range c.all() {
				c.get(m, "a")
				reads++
			}
		}
		wg.Wait()
		for _, m := range slow {
			disks[m.id].SetDelay(0)
		}
		t.Logf("%v slow: %d reads", names, reads)
		if reads < 20 {
			t.Errorf("%v slow: only %d reads", names, reads)
		}
	}
	if now, _ := c.leader().Leadership(); now.Term != before.Term {
		t.Errorf("term %d became %d: leadership was lost", before.Term, now.Term)
	}
}

// TestNotBeforeDurable holds disks back: no write is acknowledged, or seen by
// anybody, that they would have to have.
func TestNotBeforeDurable(t *testing.T) {
	c, disks := faultyCluster(t, 3, calm)
	leader := c.leader()
	value := "0"
	c.set(leader, "a", value)
	for i, held := range [][]*member{c.all(), {leader}, c.but(leader)} {
		for _, m := range held {
			disks[m.id].SetDelay(time.Hour)
		}
		next := strconv.Itoa(i + 1)
		writers := c.all()
		done := make(chan error, len(writers))
		for _, m := range writers {
			go func() {
				_, err := m.Commit(c.ctx(), storetest.Set(storetest.Key("a"), next, store.Cond{}))
				done <- err
			}()
		}
		time.Sleep(600 * time.Millisecond) // a wrong answer would come with the next heartbeat
		for _, m := range c.all() {
			if got := c.get(m, "a"); got != value {
				t.Errorf("round %d: %s has %q, which is not stored", i, m.id, got)
			}
		}
		if len(done) > 0 {
			t.Errorf("round %d: acknowledged, and not stored", i)
		}
		for _, m := range held {
			disks[m.id].SetDelay(0)
		}
		for range writers {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		value = next
	}
}

// TestDiskNews looks at what is told of a slow disk.
func TestDiskNews(t *testing.T) {
	s := diskState{path: "/data"}
	at := time.Unix(1000, 0)
	step := func(after, took time.Duration, full bool) (DiskNews, bool) {
		at = at.Add(after)
		return s.look(at, took, full)
	}
	if _, ok := step(0, 10*time.Millisecond, false); ok {
		t.Error("news of nothing")
	}
	news, ok := step(time.Second, 2*time.Second, false)
	if !ok || !news.Slow || news.Delay != 2*time.Second || !strings.Contains(news.Message, "/data") || !strings.Contains(news.Message, "2s") {
		t.Errorf("a slow disk: %+v, %v", news, ok)
	}
	for range 10 {
		if _, ok := step(2*time.Second, 3*time.Second, false); ok {
			t.Error("the same news again")
		}
	}
	for _, took := range []time.Duration{4 * time.Second, 30 * time.Second} {
		if news, ok := step(time.Second, took, false); !ok || !news.Slow || news.Delay != took || !strings.Contains(news.Message, took.String()) {
			t.Errorf("it takes twice as long, %s: %+v, %v", took, news, ok)
		}
		if _, ok := step(time.Second, took*3/2, false); ok {
			t.Error("not twice as long, and news")
		}
	}
	for _, full := range []bool{true, false} {
		if news, ok := step(time.Second, time.Millisecond, full); !ok || !news.Slow || news.Full != full || news.Delay != 30*time.Second {
			t.Errorf("a slow disk that is full, %v: %+v, %v", full, news, ok)
		}
		if _, ok := step(time.Second, 5*time.Millisecond, full); ok {
			t.Error("news of a quick sync")
		}
	}
	at = at.Add(-4 * time.Second)
	if _, ok := step(calmFor-time.Second, 0, false); ok {
		t.Error("well again too soon")
	}
	if news, ok := step(2*time.Second, 0, false); !ok || news.Slow || news.Full {
		t.Errorf("well again: %+v, %v", news, ok)
	}
	if news, ok := step(0, 0, true); !ok || !news.Full || !strings.Contains(news.Message, "/data is full") {
		t.Errorf("a full disk: %+v, %v", news, ok)
	}
	var w diskWatch
	done := w.begin(false)
	if took := w.take(time.Now().Add(time.Minute)); took < time.Minute {
		t.Errorf("what is on its way took %s so far", took)
	}
	done()
}

// TestDiskFull fills the disks: writes are refused and say why, the members stay
// and read, and when there is room they write again.
func TestDiskFull(t *testing.T) {
	c, disks := faultyCluster(t, 3, calm)
	c.set(c.leader(), "a", "1")
	for _, d := range disks {
		d.SetFull(true)
	}
	big := strings.Repeat("x", 200_000)
	fill := func(m *member) error {
		for i := range 200 {
			ctx, cancel := context.WithTimeout(c.ctx(), 5*time.Second)
			_, err := m.Commit(ctx, storetest.Set(storetest.Key("b"), big, store.Cond{}))
			cancel()
			if err != nil {
				t.Logf("write %d on %s: %v", i, m.id, err)
				return err
			}
		}
		return nil
	}
	var refused error
	deadline := time.Now().Add(2 * patience)
	for time.Now().Before(deadline) {
		m := c.leader()
		if err := fill(m); errors.Is(err, apierr.ErrUnavailable) && strings.Contains(err.Error(), "is full") {
			refused = err
			break
		}
	}
	if refused == nil || !strings.Contains(refused.Error(), "nothing was written") {
		t.Fatalf("no write was refused: %v", refused)
	}
	for _, m := range c.all() {
		if m.Err() != nil {
			t.Errorf("%s has stopped: %v", m.id, m.Err())
		}
		if snap, err := m.Snapshot(c.ctx(), store.At{Level: store.Any}); err != nil {
			t.Errorf("read on %s: %v", m.id, err)
		} else if v, _ := storetest.Value(snap, storetest.Key("a")); v != "1" {
			t.Errorf("%s has %q", m.id, v)
		}
	}
	for _, d := range disks {
		d.SetFull(false)
	}
	for deadline = time.Now().Add(2 * patience); ; {
		_, err := c.leader().Commit(c.ctx(), storetest.Set(storetest.Key("a"), "2", store.Cond{}))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is room again: %v", err)
		}
	}
	if got := c.get(c.followers()[0], "a"); got != "2" {
		t.Errorf("a follower has %q", got)
	}
}
