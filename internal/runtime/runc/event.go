package runc

import (
	"context"
	"sync"

	"github.com/wherry-project/wherry/internal/runtime"
)

// eventQueue holds what has not been received yet: one event per container and
// sandbox, in the order in which they happened.
type eventQueue struct {
	out  chan runtime.Event
	wake chan struct{}

	mu      sync.Mutex
	waiting []runtime.Event
}

func newEventQueue() *eventQueue {
	return &eventQueue{out: make(chan runtime.Event), wake: make(chan struct{}, 1)}
}

// push adds an event. Each container ends once and each sandbox is lost once, so
// the queue is bounded by what there is.
func (q *eventQueue) push(e runtime.Event) {
	q.mu.Lock()
	q.waiting = append(q.waiting, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run hands the events out until ctx ends.
func (q *eventQueue) run(ctx context.Context) {
	defer close(q.out)
	for {
		q.mu.Lock()
		batch := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		for _, e := range batch {
			select {
			case q.out <- e:
			case <-ctx.Done():
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return
		}
	}
}
