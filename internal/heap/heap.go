// Package heap keeps a daemon's heap: with room while it works, so that the
// collector runs seldom, and without while it rests, so that its memory is the
// machine's again.
//
// A collection costs what is live and comes when as much has been allocated as
// there is room. With room in proportion to what is live, a small heap under
// load is collected many times a second (https://go.dev/doc/gc-guide).
package heap

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Config says how a heap is kept. All fields must be positive.
type Config struct {
	// Percent is the least room, in percent of what is live, as in GOGC.
	Percent int
	// Room is the least room in bytes.
	Room uint64
	// Every is how often Keep looks whether the program rests. It does if it
	// has allocated less than Rest bytes since the last look.
	Every time.Duration
	Rest  uint64
}

// mostPercent bounds the room of a heap that is nearly empty.
const mostPercent = 1000

// Keep keeps the heap of this process until ctx ends. It is called once; the
// collector's settings are the process's.
func Keep(ctx context.Context, c Config) {
	collected := make(chan struct{}, 1)
	watch(collected)
	ticks := time.NewTicker(c.Every)
	defer ticks.Stop()
	k := keeper{Config: c}
	for k.tune(read()); ; {
		select {
		case <-collected:
			watch(collected)
			k.tune(read())
		case <-ticks.C:
			if k.rests(read()) {
				debug.FreeOSMemory()
				k.freed = read().allocated
			}
		case <-ctx.Done():
			return
		}
	}
}

// watch has the next collection tell, once.
func watch(collected chan<- struct{}) {
	unreachable := &struct{ self *int }{new(int)} // with a pointer, lest it share its block
	runtime.AddCleanup(unreachable, func(c chan<- struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}, collected)
}

// sample is what the runtime tells of the heap, in bytes.
type sample struct {
	live      uint64 // after the last collection
	allocated uint64 // ever
}

func read() sample {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return sample{live: s[0].Value.Uint64(), allocated: s[1].Value.Uint64()}
}

type keeper struct {
	Config
	percent int    // as it is set; 0 before
	seen    uint64 // allocated at the last look
	freed   uint64 // allocated when memory was last given back
}

// tune gives a heap its room.
func (k *keeper) tune(s sample) {
	p := k.roomFor(s.live)
	if d := p - k.percent; d*10 < k.percent && -d*10 < k.percent {
		return // setting it stops the program for a moment
	}
	k.percent = p
	debug.SetGCPercent(p)
}

func (k *keeper) roomFor(live uint64) int {
	return max(k.Percent, int(min(100*k.Room/max(live, 1), mostPercent)))
}

// rests reports whether the program has done something since memory was given
// back, and does nothing now.
func (k *keeper) rests(s sample) bool {
	since := s.allocated - k.seen
	k.seen = s.allocated
	return since < k.Rest && s.allocated-k.freed >= k.Rest
}
