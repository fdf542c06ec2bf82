package events

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

const (
	// flushEvery is the least time between two batches.
	flushEvery = time.Second
	// maxPending bounds what waits for the next batch; more is dropped and
	// counted.
	maxPending = 1000
	// storeWithin bounds the storing of one batch, lastWithin that of the last.
	storeWithin = 10 * time.Second
	lastWithin  = 2 * time.Second
)

// Sink stores a batch of events.
type Sink interface {
	PutEvents(ctx context.Context, events []*corev1.Event) error
}

// batch hands Events on in batches. Of several states of one Event that wait
// only the newest is handed on. What cannot be stored now waits for the next
// batch.
type batch struct {
	sink Sink
	log  *slog.Logger

	mu      sync.Mutex
	pending map[api.Key]*corev1.Event
	order   []api.Key
	dropped int
	wake    chan struct{}
}

func newBatch(sink Sink, log *slog.Logger) *batch {
	return &batch{sink: sink, log: log, pending: map[api.Key]*corev1.Event{}, wake: make(chan struct{}, 1)}
}

// add takes an event, which becomes the batch's. It never blocks.
func (b *batch) add(e *corev1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addLocked(e)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *batch) addLocked(e *corev1.Event) {
	key := api.Key{Resource: "events", Namespace: e.Namespace, Name: e.Name}
	switch {
	case b.pending[key] != nil:
	case len(b.pending) >= maxPending:
		b.dropped++
		return
	default:
		b.order = append(b.order, key)
	}
	b.pending[key] = e
}

// run stores batches until ctx ends, and then the last one.
func (b *batch) run(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return b.last(ctx)
		case <-b.wake:
		}
		failing = b.flush(ctx, failing)
		rest := time.NewTimer(flushEvery)
		select { // let the next batch gather
		case <-ctx.Done():
			rest.Stop()
			return b.last(ctx)
		case <-rest.C:
		}
	}
}

// last stores what is left when ctx has ended. Nobody waits for it long.
func (b *batch) last(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWithin)
	defer cancel()
	b.flush(ctx, false)
	return nil
}

// flush stores one batch, and reports whether it has to be tried again. That is
// told once, not with every try.
func (b *batch) flush(ctx context.Context, failing bool) bool {
	events, dropped := b.take()
	if dropped > 0 {
		b.log.Warn("events dropped", "count", dropped)
	}
	if len(events) == 0 {
		return false
	}
	within, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	err := b.sink.PutEvents(within, events)
	switch again := passing(err); {
	case err == nil:
		return false
	case again:
		b.putBack(events)
		if !failing && ctx.Err() == nil {
			b.log.Warn("events not stored yet", "count", len(events), "err", err)
		}
		return true
	}
	b.log.Warn("events not stored", "count", len(events), "err", err)
	return false
}

// passing reports whether an error may be gone the next time.
func passing(err error) bool {
	return errors.Is(err, apierr.ErrUnavailable) || errors.Is(err, apierr.ErrTimeout) || errors.Is(err, apierr.ErrServerTimeout) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// take gives what waits, oldest first.
func (b *batch) take() (events []*corev1.Event, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range b.order {
		events = append(events, b.pending[key])
	}
	clear(b.pending)
	b.order = b.order[:0]
	dropped, b.dropped = b.dropped, 0
	return events, dropped
}

// putBack lets a batch wait once more, before what came after it. Events of
// which there is something newer are left out.
func (b *batch) putBack(events []*corev1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	newer := b.order
	b.order = nil
	for _, e := range events {
		key := api.Key{Resource: "events", Namespace: e.Namespace, Name: e.Name}
		if b.pending[key] == nil {
			b.addLocked(e)
		}
	}
	b.order = append(b.order, newer...)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
