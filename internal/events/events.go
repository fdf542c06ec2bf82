// Package events records what happens to objects, as Kubernetes Events. Events
// are merged (the same thing about the same object counts up) and written in
// batches, so that a crash loop costs neither the disk nor the log.
package events

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	flushEvery = time.Second
	// maxPending bounds what waits for the next batch; more is dropped and
	// counted.
	maxPending = 1000
	// maxKnown bounds the events that can still be counted up.
	maxKnown = 4096
	// keepFor is how long an event is counted up before a new one begins.
	keepFor = 10 * time.Minute
)

// Sink stores a batch of events.
type Sink interface {
	PutEvents(ctx context.Context, events []*corev1.Event) error
}

// Recorder implements reconcile.Recorder for one component.
type Recorder struct {
	sink      Sink
	kinds     *api.Kinds
	component string
	host      string
	log       *slog.Logger

	mu      sync.Mutex
	known   map[uint64]*corev1.Event
	pending map[uint64]bool
	dropped int
	wake    chan struct{}
}

// New makes a recorder; Run must run for events to be stored.
func New(sink Sink, kinds *api.Kinds, component, host string, log *slog.Logger) *Recorder {
	return &Recorder{
		sink: sink, kinds: kinds, component: component, host: host, log: log,
		known: map[uint64]*corev1.Event{}, pending: map[uint64]bool{}, wake: make(chan struct{}, 1),
	}
}

// Event notes something about an object. It never blocks.
func (r *Recorder) Event(about api.Object, eventType, reason, message string) {
	ref := reference(r.kinds, about)
	now := metav1.Time{Time: time.Now().Truncate(time.Second)}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%s/%s/%s/%s", ref.Kind, ref.Namespace, ref.Name, ref.UID, reason, message)
	id := h.Sum64()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) >= maxPending {
		r.dropped++
		return
	}
	e := r.known[id]
	if e == nil || now.Sub(e.FirstTimestamp.Time) > keepFor {
		if len(r.known) >= maxKnown {
			clear(r.known)
			clear(r.pending)
		}
		e = r.fresh(ref, eventType, reason, message, now, id)
		r.known[id] = e
	}
	e.Count++
	e.LastTimestamp = now
	r.pending[id] = true
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Recorder) fresh(ref corev1.ObjectReference, eventType, reason, message string, now metav1.Time, id uint64) *corev1.Event {
	ns := ref.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	if len(message) > 1024 {
		message = message[:1021] + "..."
	}
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("%s.%x", ref.Name, uint64(now.UnixNano())^id), UID: uuid.NewUUID(), CreationTimestamp: now},
		InvolvedObject: ref, Type: eventType, Reason: reason, Message: message,
		FirstTimestamp: now, Source: corev1.EventSource{Component: r.component, Host: r.host},
		ReportingController: r.component, ReportingInstance: r.host,
	}
}

func reference(kinds *api.Kinds, o api.Object) corev1.ObjectReference {
	ref := corev1.ObjectReference{Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion()}
	if k, ok := kinds.Of(o); ok {
		ref.APIVersion, ref.Kind = k.APIVersion(), k.Kind
	}
	return ref
}

// Run writes batches until ctx ends, and then the last one.
func (r *Recorder) Run(ctx context.Context) error {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			r.flush(last)
			return nil
		case <-r.wake:
		}
		select { // let a batch gather
		case <-ctx.Done():
		case <-t.C:
		}
		r.flush(ctx)
	}
}

func (r *Recorder) flush(ctx context.Context) {
	batch, dropped := r.take()
	if dropped > 0 {
		r.log.Warn("events dropped", "count", dropped)
	}
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := r.sink.PutEvents(ctx, batch); err != nil && ctx.Err() == nil {
		r.log.Warn("events not stored", "count", len(batch), "err", err)
	}
}

// take gives copies of what changed since the last batch.
func (r *Recorder) take() (batch []*corev1.Event, dropped int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.pending {
		if e := r.known[id]; e != nil {
			batch = append(batch, e.DeepCopy())
		}
	}
	clear(r.pending)
	dropped, r.dropped = r.dropped, 0
	return batch, dropped
}
