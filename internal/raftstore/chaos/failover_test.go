package chaos

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/store"
)

// TestFailover kills the leader and measures the time to the next write, made
// by whoever asks a survivor. $WHERRY_FAILOVER_ROUNDS makes it a measurement;
// else it only sees that it works.
func TestFailover(t *testing.T) {
	rounds := int(number(t, "WHERRY_FAILOVER_ROUNDS", 3))
	c := newCluster(t, 3)
	var took []time.Duration
	for i := range rounds {
		c.whole(func(s *slot) bool { return write(s, "before", time.Second) })
		leader := c.leader()
		for leader == nil {
			leader = c.leader()
		}
		done := make(chan time.Time, 1)
		var asking sync.WaitGroup
		stop := make(chan struct{})
		killed := time.Now()
		leader.kill()
		for _, s := range c.slots {
			if s == leader {
				continue
			}
			asking.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if write(s, fmt.Sprint("after", i, s.number, n), 2*time.Second) {
						select {
						case done <- time.Now():
						default:
						}
						return
					}
				}
			})
		}
		select {
		case at := <-done:
			took = append(took, at.Sub(killed))
		case <-time.After(patience):
			t.Fatal("no write any more")
		}
		close(stop)
		asking.Wait()
		c.restart(leader)
	}
	slices.Sort(took)
	t.Logf("leader killed to the next write, %d times: p50 %v, p90 %v, max %v", rounds,
		took[len(took)/2].Round(time.Millisecond), took[len(took)*9/10].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

func write(s *slot, key string, patience time.Duration) bool {
	var out Done
	op := set(key, "x", store.Cond{})
	op.Patience = patience
	err := s.ask("Do", op, &out, patience+time.Second)
	return err == nil && !out.Unknown
}

// TestSoak has three members under as much load as the machine gives, and counts
// the elections: none must be needed. $WHERRY_SOAK says for how long.
func TestSoak(t *testing.T) {
	length := time.Duration(number(t, "WHERRY_SOAK", 2)) * time.Second
	c := newCluster(t, 3)
	c.whole(func(s *slot) bool { return write(s, "before", time.Second) })
	began := c.state(t)
	var stop atomic.Bool
	var writes, failed atomic.Int64
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if write(c.slots[n%3], fmt.Sprintf("load%d", n), 20*time.Second) {
					writes.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	for range runtime.NumCPU() { // and what else runs on a machine
		wg.Go(func() {
			x := uint64(1)
			for !stop.Load() {
				for range 1_000_000 {
					x = x*6364136223846793005 + 1442695040888963407
				}
			}
			runtime.KeepAlive(x)
		})
	}
	for until := time.Now().Add(length); time.Now().Before(until); {
		time.Sleep(min(30*time.Second, time.Until(until)))
		if now := c.state(t); now.Term != began.Term && length > time.Minute {
			t.Logf("term %d after %v", now.Term, length-time.Until(until))
		}
	}
	stop.Store(true)
	wg.Wait()
	ended := c.state(t)
	t.Logf("%v of load: %d writes (%d failed), %d elections", length, writes.Load(), failed.Load(), ended.Term-began.Term)
	// On a machine that does other things at the same time it proves nothing.
	if length >= time.Minute && ended.Term != began.Term {
		t.Errorf("the term went from %d to %d", began.Term, ended.Term)
	}
}

// state is the highest term that a member knows.
func (c *cluster) state(t *testing.T) (highest State) {
	t.Helper()
	for _, s := range c.slots {
		var now State
		if err := s.ask("State", struct{}{}, &now, patience); err != nil {
			t.Fatal(err)
		}
		if now.Term > highest.Term {
			highest = now
		}
	}
	return highest
}
