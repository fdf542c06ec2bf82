package raftstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

var (
	cuts = flag.Int("cuts", 12, "how often the power is cut")
	seed = flag.Uint64("seed", 0, "what the faults depend on; 0 for another each time")
)

// crash is a replica on a disk in memory, and what it must have.
type crash struct {
	t      *testing.T
	random *rand.Rand
	disk   *diskfault.Mem
	// elsewhere, if it is set, puts the replica on another disk. told, if it is
	// set, hears of everything that is had, tried and acknowledged.
	elsewhere func(*Config)
	told      func(what, key string, value int)

	mu    sync.Mutex
	acked map[string]int // the newest value that was acknowledged, by key
	tried map[string]int // the newest that was tried
}

func (c *crash) config() Config {
	config := Config{
		ID: "m1", Address: "127.0.0.1:1", Dir: "/data", Codec: storetest.Codec(), FS: c.disk,
		Logger: slog.New(slog.DiscardHandler), Timeouts: Timeouts{Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, Lease: 40 * time.Millisecond},
		// Small, so that snapshots are made and segments removed between cuts.
		Limits: Limits{SnapshotEntries: 40, TrailingEntries: 20},
		Dial: func(context.Context, string) (grpc.ClientConnInterface, error) {
			return nil, errors.New("there is nobody else")
		},
	}
	if c.elsewhere != nil {
		c.elsewhere(&config)
	}
	return config
}

func (c *crash) tell(what, key string, value int) {
	if c.told != nil {
		c.told(what, key, value)
	}
}

// live starts the replica, compares what it has, and writes until the power is
// cut. It reports how many writes were acknowledged.
func (c *crash) live(found bool) (int, error) {
	s, err := Open(c.config())
	if err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Close(ctx) // on a disk without power it cannot end well
	}()
	gone, known := c.powerGoes()
	defer known()
	if found {
		// One that was cut off may have been done.
		if err := s.Bootstrap(); err != nil && !errors.Is(err, apierr.ErrConflict) {
			return 0, err
		}
	}
	for {
		now, changed := s.Leadership()
		if now.Ready {
			break
		}
		select {
		case <-changed:
		case <-s.Failed():
			return 0, s.Err()
		case <-gone:
			return 0, diskfault.ErrCut
		case <-time.After(patience):
			return 0, errors.New("it does not lead")
		}
	}
	c.compare(s)
	c.tell("ready", "-", 0)
	var wg sync.WaitGroup
	var count int
	for client := range 4 {
		wg.Go(func() {
			n := c.write(s, gone, fmt.Sprint("key", client))
			c.mu.Lock()
			count += n
			c.mu.Unlock()
		})
	}
	wg.Wait()
	return count, s.Err()
}

// compare looks whether everything that was acknowledged is there.
func (c *crash) compare(s *Store) {
	c.t.Helper()
	snap := s.mem.Snapshot()
	for key, tried := range c.tried {
		text, _ := storetest.Value(snap, storetest.Key(key))
		var value int
		if text != "" {
			if _, err := fmt.Sscanf(text, "%d ", &value); err != nil {
				c.t.Fatalf("%s is %q", key, text)
			}
		}
		if value < c.acked[key] || value > tried {
			c.t.Fatalf("%s is %d; %d was acknowledged, %d was tried", key, value, c.acked[key], tried)
		}
		c.acked[key], c.tried[key] = value, value
		c.tell("have", key, value)
	}
}

// powerGoes gives a channel that is closed when the power is cut: from then on
// nothing can be acknowledged, and nobody need wait for it. The caller says when
// it has no use for that any more.
func (c *crash) powerGoes() (<-chan struct{}, func()) {
	gone, stop, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for c.disk == nil || !c.disk.Cut() {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		close(gone)
	}()
	return gone, func() {
		close(stop)
		<-stopped
	}
}

// write writes one value after the other until that fails.
func (c *crash) write(s *Store, gone <-chan struct{}, key string) (n int) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*patience)
	defer cancel()
	for {
		c.mu.Lock()
		c.tried[key]++
		value := c.tried[key]
		padding := c.random.IntN(1000)
		c.tell("try", key, value)
		c.mu.Unlock()
		done := make(chan error, 1)
		go func() {
			_, err := s.Commit(ctx, storetest.Set(storetest.Key(key), fmt.Sprintf("%d %*d", value, padding, 0), store.Cond{}))
			done <- err
		}()
		var err error
		select {
		case err = <-done:
		case <-s.Failed():
			cancel()
			err = <-done
		case <-gone:
			cancel()
			err = <-done
		}
		if err != nil {
			return n
		}
		c.mu.Lock()
		c.acked[key] = value
		c.tell("ack", key, value)
		c.mu.Unlock()
		n++
	}
}

// TestCrash cuts the power of a replica at random moments, also while it starts,
// makes snapshots or removes the log behind them. Each time it starts without
// help and has every write that was acknowledged.
func TestCrash(t *testing.T) {
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", number)
	random := rand.New(rand.NewPCG(number, 2))
	c := &crash{t: t, random: random, disk: diskfault.NewMem(rand.New(rand.NewPCG(number, 3))), acked: map[string]int{}, tried: map[string]int{}}
	writes, starts := 0, 0
	found := true
	for round := range *cuts {
		c.disk.CutAfter(random.IntN(400))
		n, err := c.live(found)
		if err != nil && !c.disk.Cut() {
			t.Fatalf("round %d: %v", round, err)
		}
		if n > 0 {
			found = false
			starts++
		}
		writes += n
		if random.IntN(3) == 0 {
			c.disk.Kill()
		} else {
			c.disk.Restart()
		}
	}
	t.Logf("%d cuts, %d writes in %d lives", *cuts, writes, starts)
	if starts == 0 {
		t.Error("it never wrote")
	}
}
