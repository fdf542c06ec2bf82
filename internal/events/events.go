// Package events records what happens to objects, as Kubernetes Events. Events
// are merged (the same thing about the same object counts up), limited for each
// object, and written in batches, so that a crash loop costs neither the disk
// nor the log.
package events

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	// maxKnown bounds the events that can still be counted up, and the objects
	// whose events are counted. Beyond it all are forgotten.
	maxKnown = 4096
	// keepFor is for how long after its last time an event is counted up; then
	// the stored one is gone as well.
	keepFor = time.Hour
	// Of one object, a recorder takes burst events at once, and afterwards one
	// in each refill, as Kubernetes' recorders do.
	burst  = 25
	refill = 5 * time.Minute

	maxMessage = 1024
	maxName    = 253
)

// Recorder implements reconcile.Recorder for one component.
type Recorder struct {
	batch     *batch
	kinds     *api.Kinds
	component string
	host      string

	mu     sync.Mutex
	known  map[uint64]*corev1.Event
	limits map[corev1.ObjectReference]*bucket
}

// bucket is how many more events an object may have.
type bucket struct {
	left  float64
	since time.Time
}

// New makes a recorder; Run must run for events to be stored.
func New(sink Sink, kinds *api.Kinds, component, host string, log *slog.Logger) *Recorder {
	return &Recorder{
		batch: newBatch(sink, log), kinds: kinds, component: component, host: host,
		known: map[uint64]*corev1.Event{}, limits: map[corev1.ObjectReference]*bucket{},
	}
}

// Run writes batches until ctx ends, and then the last one.
func (r *Recorder) Run(ctx context.Context) error { return r.batch.run(ctx) }

// Event notes something about an object. It never blocks.
func (r *Recorder) Event(about api.Object, eventType, reason, message string) {
	ref := reference(r.kinds, about)
	now := time.Now()
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00%s\x00%s\x00%s", ref.Kind, ref.Namespace, ref.Name, ref.UID, eventType, reason, message)
	id := h.Sum64()
	stamp := metav1.Time{Time: now.Truncate(time.Second)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.allowed(ref, now) {
		return
	}
	e := r.known[id]
	if e == nil || now.Sub(e.LastTimestamp.Time) > keepFor {
		if len(r.known) >= maxKnown {
			clear(r.known)
		}
		e = r.fresh(ref, eventType, reason, message, now, id)
		r.known[id] = e
	}
	e.Count++
	e.LastTimestamp = stamp
	r.batch.add(e.DeepCopy())
}

// allowed reports whether one more event of an object is taken.
func (r *Recorder) allowed(ref corev1.ObjectReference, now time.Time) bool {
	ref.ResourceVersion = "" // whatever its state
	b := r.limits[ref]
	if b == nil {
		if len(r.limits) >= maxKnown {
			clear(r.limits)
		}
		b = &bucket{left: burst, since: now}
		r.limits[ref] = b
	}
	b.left = min(burst, b.left+float64(now.Sub(b.since))/float64(refill))
	b.since = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (r *Recorder) fresh(ref corev1.ObjectReference, eventType, reason, message string, now time.Time, id uint64) *corev1.Event {
	ns := ref.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	if len(message) > maxMessage {
		message = truncate(message, maxMessage-len("...")) + "..."
	}
	suffix := fmt.Sprintf(".%x", uint64(now.UnixNano())^id)
	stamp := metav1.Time{Time: now.Truncate(time.Second)}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: truncate(ref.Name, maxName-len(suffix)) + suffix, UID: uuid.NewUUID(), CreationTimestamp: stamp,
		},
		InvolvedObject: ref, Type: eventType, Reason: reason, Message: message,
		FirstTimestamp: stamp, Source: corev1.EventSource{Component: r.component, Host: r.host},
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

// truncate cuts a text between characters; a name it leaves without a dot or a
// dash at its end, so that more can follow.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimRight(s[:n], ".-")
}
