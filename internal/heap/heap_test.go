package heap

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

func TestRoom(t *testing.T) {
	k := keeper{Config: Config{Percent: 50, Room: 64 << 20}}
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 1000}, {1 << 20, 1000}, {16 << 20, 400}, {64 << 20, 100}, {128 << 20, 50}, {1 << 30, 50}} {
		if got := k.roomFor(c.live); got != c.want {
			t.Errorf("%d MiB live: %d%%, want %d%%", c.live>>20, got, c.want)
		}
	}
}

func TestRests(t *testing.T) {
	k := keeper{Config: Config{Rest: 10}}
	for i, c := range []struct {
		allocated uint64
		rests     bool
	}{
		{100, false}, // it works
		{105, true},
		{109, false}, // nothing to speak of since
		{114, false}, // still too little in all
		{116, true},  // slowly it has come together
		{190, false},
		{250, false},
		{250, true},
		{250, false},
	} {
		got := k.rests(sample{allocated: c.allocated})
		if got != c.rests {
			t.Errorf("step %d: %v", i, got)
		}
		if got {
			k.freed = c.allocated
		}
	}
}

// TestKeep sees the room follow what is live, and memory go back to the machine.
func TestKeep(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		Keep(ctx, Config{Percent: 30, Room: 32 << 20, Every: 50 * time.Millisecond, Rest: 1 << 20})
		close(ended)
	}()
	defer func() { cancel(); <-ended }()
	eventually := func(what string, ok func() bool) {
		t.Helper()
		testkit.Eventually(t, 20*time.Second, func() error {
			if !ok() {
				return errors.New("no " + what)
			}
			return nil
		})
	}
	percent := func() uint64 { return gauge("/gc/gogc:percent") }
	eventually("much room for little", func() bool { return percent() > 200 })
	held := make([]byte, 96<<20)
	for i := 0; i < len(held); i += os.Getpagesize() {
		held[i] = 1
	}
	eventually("less room for much", func() bool { runtime.GC(); return percent() < 60 })
	used := func() uint64 {
		return gauge("/memory/classes/total:bytes") - gauge("/memory/classes/heap/released:bytes")
	}
	before := used()
	runtime.KeepAlive(held)
	held = nil
	garbage := make([]byte, 2<<20) // it has done something since
	runtime.KeepAlive(garbage)
	eventually("memory given back", func() bool { return used()+80<<20 < before })
	eventually("room again", func() bool { return percent() > 200 })
}

func gauge(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
