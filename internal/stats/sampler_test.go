package stats_test

import (
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/stats"
)

func TestSampler(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(second int, cpu time.Duration) stats.Usage {
		return stats.Usage{Time: begin.Add(time.Duration(second) * time.Second), CPU: uint64(cpu), WorkingSet: uint64(second)}
	}
	var s stats.Sampler
	want := func(id string, window time.Duration, nano uint64) {
		t.Helper()
		got, ok := s.Rate(id)
		if ok != (window > 0) || got.Window != window || got.NanoCores != nano {
			t.Errorf("%s: %+v %v, want %d over %s", id, got, ok, nano, window)
		}
	}
	s.Take([]stats.Reading{
		{ID: "node", Usage: at(10, 40*time.Second)},
		{ID: "old", Since: begin, Usage: at(10, time.Second)},
		{ID: "new", Since: begin.Add(6 * time.Second), Usage: at(10, time.Second)},
	})
	want("node", 0, 0)
	want("old", 10*time.Second, 100_000_000)
	want("new", 0, 0)
	s.Take([]stats.Reading{
		{ID: "node", Usage: at(20, 45*time.Second)},
		{ID: "new", Since: begin.Add(6 * time.Second), Usage: at(20, 3*time.Second)},
	})
	want("node", 10*time.Second, 500_000_000)
	want("old", 0, 0)
	want("new", 10*time.Second, 200_000_000)
	if r, _ := s.Rate("new"); r.WorkingSet != 20 || !r.End.Equal(begin.Add(20*time.Second)) {
		t.Errorf("new: %+v", r)
	}
	// A clock that went back, a counter that began anew: nothing is said.
	s.Take([]stats.Reading{{ID: "node", Usage: at(15, 50*time.Second)}, {ID: "new", Usage: at(30, 0)}})
	want("node", 0, 0)
	want("new", 0, 0)
	s.Take([]stats.Reading{{ID: "node", Usage: at(25, 60*time.Second)}})
	want("node", 10*time.Second, 1_000_000_000)
}
