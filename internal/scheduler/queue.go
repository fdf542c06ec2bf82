package scheduler

import (
	"container/heap"
	"time"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	firstPause = time.Second
	lastPause  = 10 * time.Second
	// flushAfter is when a pod that found no node is tried again though
	// nothing seems to have changed.
	flushAfter = 5 * time.Minute
)

// where says where a waiting pod is.
type where int

const (
	ready   where = iota // in the heap
	paused               // until its pause is over
	parked               // until a change may help
	gated                // until its gates are gone
	binding              // on its way to a node
)

// waiting is a pod without a node.
type waiting struct {
	record   *api.Record
	priority int32
	since    time.Time // when it became ready, for fairness
	seq      uint64    // tells equals apart
	index    int       // in the heap

	state       where
	tries       int
	triedAt     time.Time
	neighbourly bool
}

// queue orders the pods that wait: higher priority first, then who waits
// longest. It is bounded by the number of pods.
type queue struct {
	pods map[string]*waiting // by uid
	heap byUrgency
	seq  uint64
	// idle counts those paused or parked, so that a change costs nothing
	// when nobody waits for it.
	idle int
}

func newQueue() *queue { return &queue{pods: map[string]*waiting{}} }

// byUrgency implements heap.Interface.
type byUrgency []*waiting

func (h byUrgency) Len() int { return len(h) }
func (h byUrgency) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.priority != b.priority {
		return a.priority > b.priority
	}
	if !a.since.Equal(b.since) {
		return a.since.Before(b.since)
	}
	return a.seq < b.seq
}
func (h byUrgency) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *byUrgency) Push(x any) {
	w := x.(*waiting)
	w.index = len(*h)
	*h = append(*h, w)
}

// Pop implements heap.Interface.
func (h *byUrgency) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return w
}

// put adds a pod or brings what is known of it up to date. A change of its spec
// or labels lets it be tried again.
func (q *queue) put(r *api.Record, priority int32, changed bool, now time.Time) {
	w := q.pods[r.UID]
	if w == nil {
		q.seq++
		w = &waiting{record: r, priority: priority, since: now, seq: q.seq, state: binding}
		q.pods[r.UID] = w
		q.move(w, ready, now)
		return
	}
	w.record = r
	if changed && (w.state == parked || w.state == gated) {
		q.wake(w, now)
	}
}

// move brings a pod into another state.
func (q *queue) move(w *waiting, to where, now time.Time) {
	if w.state == ready && to != ready {
		heap.Remove(&q.heap, w.index)
	}
	if w.state == paused || w.state == parked {
		q.idle--
	}
	if to == paused || to == parked {
		q.idle++
	}
	was := w.state
	w.state = to
	if to == ready && was != ready {
		w.since = now
		heap.Push(&q.heap, w)
	}
}

func (q *queue) drop(uid string) {
	if w := q.pods[uid]; w != nil {
		q.move(w, binding, time.Time{})
		delete(q.pods, uid)
	}
}

// take gives the pod whose turn it is; nil if there is none.
func (q *queue) take(now time.Time) *waiting {
	if len(q.heap) == 0 {
		return nil
	}
	w := q.heap[0]
	q.move(w, binding, now)
	w.tries++
	w.triedAt = now
	return w
}

// over is when a pod's pause is over.
func (w *waiting) over() time.Time {
	return w.triedAt.Add(min(firstPause<<min(max(w.tries-1, 0), 10), lastPause))
}

// wake lets a pod be tried again, when its pause is over.
func (q *queue) wake(w *waiting, now time.Time) {
	if w.over().After(now) {
		q.move(w, paused, now)
		return
	}
	q.move(w, ready, now)
}

// helped wakes the parked pods for which something may have changed.
func (q *queue) helped(h hint, now time.Time) {
	if h == helpsNobody || q.idle == 0 {
		return
	}
	for _, w := range q.pods {
		if w.state == parked && (h == helpsAll || w.neighbourly) {
			q.wake(w, now)
		}
	}
}

// due readies the pods whose time has come, and gives when the next one's
// comes; zero if there is none.
func (q *queue) due(now time.Time) time.Time {
	var next time.Time
	if q.idle == 0 {
		return next
	}
	for _, w := range q.pods {
		var at time.Time
		switch w.state {
		case paused:
			at = w.over()
		case parked:
			at = w.triedAt.Add(flushAfter)
		default:
			continue
		}
		if !at.After(now) {
			q.move(w, ready, now)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}
