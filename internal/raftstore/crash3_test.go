package raftstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

// crash3 is three members on disks in memory, and what they must have.
type crash3 struct {
	*cluster
	disks map[string]*diskfault.Mem
	// writers is for those who write while random is for what happens to them.
	random, writers *rand.Rand

	mu           sync.Mutex
	acked, tried map[string]int // the newest values, by key
	writes       int
}

// TestCrashCluster cuts the power of all of three members under writes: of all at
// one moment, of one after the other, or of one a while before the others. They
// start without help, agree, and have every write that was acknowledged.
func TestCrashCluster(t *testing.T) {
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", number)
	c := &crash3{
		disks: map[string]*diskfault.Mem{}, acked: map[string]int{}, tried: map[string]int{},
		random: rand.New(rand.NewPCG(number, 4)), writers: rand.New(rand.NewPCG(number, 5)),
	}
	c.cluster = newClusterOn(t, 3, Limits{SnapshotEntries: 60, TrailingEntries: 20}, quick, "", func(id string) raftlog.FS {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.disks[id] == nil {
			c.disks[id] = diskfault.NewMem(rand.New(rand.NewPCG(number, uint64(id[1]))))
		}
		slow := diskfault.NewFaulty(c.disks[id])
		slow.SetDelay(5 * time.Millisecond) // so that something is always not synced yet
		return slow
	})
	rounds := max(3, *cuts/5)
	for round := range rounds {
		c.leader()
		c.compare(round)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		members := c.all()
		for w := range 2 * len(members) {
			wg.Go(func() { c.write(members[w%len(members)], fmt.Sprint("key", w), stop) })
		}
		c.cut(members)
		close(stop)
		c.killed(members)
		wg.Wait()
		for _, m := range members {
			c.disks[m.id].Restart()
		}
		for _, m := range members {
			if _, err := c.tryStart(m.id, m.cfg.Address); err != nil {
				t.Fatalf("round %d: %s does not start: %v", round, m.id, err)
			}
		}
	}
	c.leader()
	c.compare(rounds)
	same(t, c.cluster)
	t.Logf("%d rounds, %d writes", rounds, c.writes)
	if c.writes == 0 {
		t.Error("nothing was ever written")
	}
}

// compare asks any of the members for all there is.
func (c *crash3) compare(round int) {
	c.t.Helper()
	members := c.all()
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, tried := range c.tried {
		m := members[c.random.IntN(len(members))]
		text, value := c.get(m, key), 0
		if text != "" {
			if _, err := fmt.Sscanf(text, "%d ", &value); err != nil {
				c.t.Fatalf("round %d: %s is %q", round, key, text)
			}
		}
		if value < c.acked[key] || value > tried {
			c.t.Fatalf("round %d: on %s %s is %d; %d was acknowledged, %d was tried", round, m.id, key, value, c.acked[key], tried)
		}
		c.acked[key], c.tried[key] = value, value
	}
}

// write writes one value after the other until that fails, or it is told to stop.
func (c *crash3) write(m *member, key string, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		c.mu.Lock()
		c.tried[key]++
		value, padding := c.tried[key], c.writers.IntN(1000)
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
		_, err := m.Commit(ctx, storetest.Set(storetest.Key(key), fmt.Sprintf("%d %*d", value, padding, 0), store.Cond{}))
		cancel()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.acked[key] = value
		c.writes++
		c.mu.Unlock()
	}
}

// cut lets them work for a while and then cuts the power, in one of three ways.
func (c *crash3) cut(members []*member) {
	way, changes := c.random.IntN(3), c.random.IntN(200)
	enough := c.count() + c.random.IntN(200)
	for until := time.Now().Add(2 * time.Second); c.count() < enough && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	for i, m := range members {
		switch {
		case way == 0:
			c.disks[m.id].CutAfter(0)
		case way == 1:
			c.disks[m.id].CutAfter(c.random.IntN(changes + 1))
		case i == 0:
			c.disks[m.id].CutAfter(changes)
		}
	}
	time.Sleep(time.Duration(100+c.random.IntN(300)) * time.Millisecond)
	for _, m := range members {
		c.disks[m.id].CutAfter(0)
	}
}

// count is how many writes were acknowledged.
func (c *crash3) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// killed ends the members, which have no disks and cannot reach each other.
func (c *crash3) killed(members []*member) {
	for _, m := range members {
		c.net.set(m.id, true)
	}
	for _, m := range members {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = m.Close(ctx) // without power it cannot end well
		m.server.Stop()
		<-m.served
	}
	c.cluster.mu.Lock()
	for _, m := range members {
		delete(c.members, m.id)
	}
	c.cluster.mu.Unlock()
	for _, m := range members {
		c.net.set(m.id, false)
	}
}
