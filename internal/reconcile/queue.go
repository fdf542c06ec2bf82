package reconcile

import (
	"sync"
	"time"
)

const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Minute
)

// queue hands each key to one worker at a time. Its size is bounded by the
// number of distinct keys: a key that waits is not queued twice.
type queue struct {
	mu     sync.Mutex
	ready  *sync.Cond
	order  []Key
	queued map[Key]bool
	busy   map[Key]bool
	again  map[Key]bool // changed while busy
	fails  map[Key]int
	timers map[Key]*time.Timer
	due    map[Key]time.Time
	closed bool
}

func newQueue() *queue {
	q := &queue{
		queued: map[Key]bool{}, busy: map[Key]bool{}, again: map[Key]bool{},
		fails: map[Key]int{}, timers: map[Key]*time.Timer{}, due: map[Key]time.Time{},
	}
	q.ready = sync.NewCond(&q.mu)
	return q
}

func (q *queue) addAll(keys []Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range keys {
		q.addLocked(k)
	}
}

func (q *queue) addLocked(k Key) {
	switch {
	case q.closed || q.queued[k]:
	case q.busy[k]:
		q.again[k] = true
	default:
		q.queued[k] = true
		q.order = append(q.order, k)
		q.ready.Signal()
	}
}

// take waits for a key; not ok when the queue is closed.
func (q *queue) take() (Key, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.order) == 0 && !q.closed {
		q.ready.Wait()
	}
	if q.closed {
		return Key{}, false
	}
	k := q.order[0]
	q.order = q.order[1:]
	delete(q.queued, k)
	q.busy[k] = true
	return k, true
}

// done ends the work on a key; it comes back after again, if above 0, or at
// once if it changed meanwhile.
func (q *queue) done(k Key, again time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.busy, k)
	if q.again[k] {
		delete(q.again, k)
		q.addLocked(k)
	}
	if again > 0 && !q.closed {
		q.laterLocked(k, again)
	}
}

func (q *queue) laterLocked(k Key, d time.Duration) {
	due := time.Now().Add(d)
	if t := q.timers[k]; t != nil {
		if q.due[k].Before(due) && q.due[k].After(time.Now()) {
			return
		}
		t.Stop()
	}
	q.due[k] = due
	q.timers[k] = time.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.due[k].Equal(due) {
			delete(q.timers, k)
			delete(q.due, k)
		}
		q.addLocked(k)
	})
}

// failed counts a failure and gives the pause before the next try.
func (q *queue) failed(k Key) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.fails[k]
	q.fails[k] = n + 1
	return min(firstPause<<min(n, 20), lastPause)
}

func (q *queue) forget(k Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.fails, k)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, t := range q.timers {
		t.Stop()
	}
	q.ready.Broadcast()
}
