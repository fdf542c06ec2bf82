package chaos

import (
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"time"
)

// watchers follow everything that happens, now on this member, now on that.
type watchers struct {
	c    *cluster
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu     sync.Mutex
	events map[uint64]Change // by revision; every command of the clients has one
	read   []uint64          // how far each has come
	moves  int
	errs   []error
}

func newWatchers(c *cluster, n int, seed int64) *watchers {
	ws := &watchers{c: c, stop: make(chan struct{}), events: map[uint64]Change{}, read: make([]uint64, n)}
	for id := range n {
		ws.wg.Go(func() { ws.run(id, rand.New(rand.NewSource(seed*31+int64(id)))) })
	}
	return ws
}

func (ws *watchers) end() {
	ws.once.Do(func() { close(ws.stop) })
	ws.wg.Wait()
}

func (ws *watchers) run(id int, r *rand.Rand) {
	at := ws.c.slots[r.Intn(len(ws.c.slots))]
	for {
		select {
		case <-ws.stop:
			return
		default:
		}
		var seen Seen
		err := at.ask("Watch", WatchFrom{fmt.Sprint("w", id), ws.reached(id), 100 * time.Millisecond}, &seen, 2*time.Second)
		if err == nil && seen.Err == "" {
			ws.took(id, at, seen)
			if r.Intn(20) > 0 {
				continue
			}
		} else if err == nil && seen.Expired {
			ws.fail(fmt.Errorf("watcher %d on %s after %d: %s", id, at.id, ws.reached(id), seen.Err))
			return
		}
		at = ws.c.slots[r.Intn(len(ws.c.slots))]
		ws.mu.Lock()
		ws.moves++
		ws.mu.Unlock()
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ws.stop:
		}
	}
}

func (ws *watchers) reached(id int) uint64 {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.read[id]
}

func (ws *watchers) fail(err error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.errs = append(ws.errs, err)
}

// took checks what a watcher was given: each revision once, in order, none
// left out, and the same as every other watcher saw.
func (ws *watchers) took(id int, at *slot, seen Seen) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	next := ws.read[id]
	for _, e := range seen.Events {
		if next++; e.Revision != next {
			ws.errs = append(ws.errs, fmt.Errorf("watcher %d on %s got revision %d, want %d", id, at.id, e.Revision, next))
			next = e.Revision
		}
		if before, known := ws.events[e.Revision]; known && before != e {
			ws.errs = append(ws.errs, fmt.Errorf("watcher %d on %s: revision %d is %v, another saw %v", id, at.id, e.Revision, e, before))
		}
		ws.events[e.Revision] = e
	}
	if seen.UpTo != next {
		ws.errs = append(ws.errs, fmt.Errorf("watcher %d on %s: the events end at %d, the watch says %d", id, at.id, next, seen.UpTo))
	}
	ws.read[id] = max(seen.UpTo, next)
}

// check waits until all watchers have read everything that was acknowledged,
// and looks for each of those writes.
func (ws *watchers) check(all []acked) error {
	var last uint64
	for _, a := range all {
		last = max(last, a.revision)
	}
	until := time.Now().Add(patience)
	for id := range ws.read {
		for ws.reached(id) < last && time.Now().Before(until) {
			time.Sleep(10 * time.Millisecond) // until the condition holds
		}
		if got := ws.reached(id); got < last {
			ws.fail(fmt.Errorf("watcher %d has come to revision %d of %d", id, got, last))
		}
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, a := range all {
		if e := ws.events[a.revision]; e.What != a.what {
			ws.errs = append(ws.errs, fmt.Errorf("%q was acknowledged at revision %d; the watchers saw %v there", a.what, a.revision, e))
		}
	}
	if len(ws.errs) > 10 {
		ws.errs = append(ws.errs[:10], fmt.Errorf("and %d more", len(ws.errs)-10))
	}
	return errors.Join(ws.errs...)
}
