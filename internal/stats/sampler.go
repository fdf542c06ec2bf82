package stats

import (
	"sync"
	"time"
)

// FirstWindow is how long something must have run before its first reading,
// held against its start, says how much it uses.
const FirstWindow = 5 * time.Second

// Reading is what one thing has used so far.
type Reading struct {
	// ID names the thing for as long as its processor time only grows.
	ID string
	// Since is when its processor time was 0; zero if that is not known.
	Since time.Time
	Usage
}

// Rate is the mean use over a window.
type Rate struct {
	End        time.Time
	Window     time.Duration
	NanoCores  uint64
	WorkingSet uint64
}

// Sampler turns readings taken now and then into rates. It may be used by many
// goroutines.
type Sampler struct {
	mu    sync.Mutex
	last  map[string]Usage
	rates map[string]Rate
}

// Take takes the readings of all things there are; those it does not name are
// forgotten.
func (s *Sampler) Take(all []Reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, rates := make(map[string]Usage, len(all)), make(map[string]Rate, len(all))
	for _, r := range all {
		last[r.ID] = r.Usage
		from, ok := s.last[r.ID]
		if !ok && !r.Since.IsZero() && r.Time.Sub(r.Since) >= FirstWindow {
			from, ok = Usage{Time: r.Since}, true
		}
		window := r.Time.Sub(from.Time)
		if !ok || window <= 0 || r.CPU < from.CPU {
			continue
		}
		rates[r.ID] = Rate{
			End: r.Time, Window: window, WorkingSet: r.WorkingSet,
			NanoCores: uint64(float64(r.CPU-from.CPU) / window.Seconds()),
		}
	}
	s.last, s.rates = last, rates
}

// Rate gives the newest rate of a thing; not ok if it was not read twice yet.
func (s *Sampler) Rate(id string) (Rate, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rates[id]
	return r, ok
}
