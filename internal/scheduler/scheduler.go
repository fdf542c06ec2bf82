package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the value of schedulerName that this scheduler serves, and its name
// in Events.
const Name = corev1.DefaultSchedulerName

// binds bounds the writes under way: concurrent ones share a log entry.
const binds = 128

// Door is what the scheduler writes through; apiserver.Direct is one.
type Door interface {
	Bind(ctx context.Context, pod *corev1.Pod, node string) error
	UpdateStatus(ctx context.Context, obj api.Object) (api.Object, error)
}

// Scheduler binds pods to nodes.
type Scheduler struct {
	src    reconcile.Source
	door   Door
	events reconcile.Recorder
	log    *slog.Logger
}

// New makes a scheduler.
func New(src reconcile.Source, door Door, events reconcile.Recorder, log *slog.Logger) *Scheduler {
	return &Scheduler{src, door, events, log}
}

// Run schedules until ctx ends; then it returns nil.
func (s *Scheduler) Run(ctx context.Context) error {
	for pause := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		err := s.term(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, apierr.ErrExpired):
			pause = 0
		default:
			s.log.Warn("scheduler starts over", "err", err)
			pause = min(pause*2+50*time.Millisecond, 5*time.Second)
		}
	}
}

// term is one walk from a list of everything until the watch fails.
func (s *Scheduler) term(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	snap, err := s.src.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		cancel()
		return err
	}
	w, err := s.src.Watch(ctx, store.Filter{}, snap.Revision())
	if err != nil {
		cancel()
		return err
	}
	l := &loop{
		Scheduler: s, codec: snap.Codec(), view: NewView(), queue: newQueue(),
		batches: make(chan []store.Event), taken: make(chan struct{}, 1), failed: make(chan error, 1),
		results: make(chan result),
	}
	l.all.Go(func() { l.follow(ctx, w) })
	err = l.run(ctx, snap)
	cancel()
	w.Stop()
	l.drain()
	return err
}

// loop is a term's state. All of it belongs to the goroutine of run, but for
// the channels.
type loop struct {
	*Scheduler
	codec *api.Codec
	view  *View
	queue *queue

	batches chan []store.Event
	taken   chan struct{} // says that a batch has been read; has room for it, since follow may have ended
	failed  chan error
	results chan result
	flying  int // writes under way
	all     sync.WaitGroup
}

// result is how a write ended.
type result struct {
	uid string
	pod *corev1.Pod
	// node is empty for a condition that was written.
	node string
	err  error
}

// follow hands over the changes of the store.
func (l *loop) follow(ctx context.Context, w *store.Watch) {
	for {
		events, _, err := w.Next(ctx)
		if err != nil {
			l.failed <- err
			return
		}
		select {
		case l.batches <- events:
		case <-ctx.Done():
			l.failed <- ctx.Err()
			return
		}
		select {
		case <-l.taken:
		case <-ctx.Done():
			l.failed <- ctx.Err()
			return
		}
	}
}

// run takes in changes first, then decides for one pod, and so on.
func (l *loop) run(ctx context.Context, snap *store.Snapshot) error {
	for _, resource := range []string{"namespaces", "nodes", "pods"} {
		for r := range snap.Scan(resource, "", api.Key{}) {
			l.change(store.Event{Revision: r.Revision, New: r})
		}
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := l.queue.due(time.Now())
		idle := len(l.queue.heap) == 0 || l.flying >= binds
		if idle {
			timer.Reset(until(next))
			if err := l.wait(ctx, timer.C); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-l.failed:
			return err
		case events := <-l.batches:
			l.take(events)
		case r := <-l.results:
			l.ended(r)
		default:
			l.one(ctx)
		}
	}
}

func until(t time.Time) time.Duration {
	if t.IsZero() {
		return time.Hour
	}
	return max(0, time.Until(t))
}

// wait blocks until there is something to take in.
func (l *loop) wait(ctx context.Context, timer <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-l.failed:
		return err
	case events := <-l.batches:
		l.take(events)
	case r := <-l.results:
		l.ended(r)
	case <-timer:
	}
	return nil
}

// drain waits for all writes under way and for follow.
func (l *loop) drain() {
	for ; l.flying > 0; l.flying-- {
		<-l.results
	}
	l.all.Wait()
}

func (l *loop) take(events []store.Event) {
	for _, e := range events {
		l.change(e)
	}
	l.taken <- struct{}{}
}

// change takes in one change of the store.
func (l *loop) change(e store.Event) {
	h, err := l.view.Apply(l.codec, e)
	if err != nil {
		l.log.Error("scheduler cannot read an object", "key", e.Key().String(), "err", err)
		return
	}
	now := time.Now()
	if e.Key().Resource == "pods" {
		l.pod(e, now)
	}
	l.queue.helped(h, now)
}

// pod keeps the queue of those that wait.
func (l *loop) pod(e store.Event, now time.Time) {
	if e.Old != nil && (e.New == nil || e.New.UID != e.Old.UID) {
		l.queue.drop(e.Old.UID)
		if p := l.view.pods[e.Old.UID]; p != nil { // it was assumed
			l.queue.helped(l.view.remove(e.Old.UID), now)
		}
	}
	r := e.New
	if r == nil {
		return
	}
	f := r.Index.Fields
	phase := corev1.PodPhase(f["status.phase"])
	if f["spec.nodeName"] != "" || f["spec.schedulerName"] != Name || r.Index.Deleting || phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		l.queue.drop(r.UID)
		return
	}
	priority := int32(0)
	known := l.queue.pods[r.UID]
	if known == nil {
		pod, ok := l.decode(r)
		if !ok {
			return
		}
		if pod.Spec.Priority != nil {
			priority = *pod.Spec.Priority
		}
	}
	l.queue.put(r, priority, known != nil && l.changed(known.record, r), now)
}

// changed reports whether more than the status of a waiting pod moved.
func (l *loop) changed(old, now *api.Record) bool {
	a, ok := l.decode(old)
	b, ok2 := l.decode(now)
	return !ok || !ok2 || a.Generation != b.Generation || !sameLabels(a.Labels, b.Labels)
}

func (l *loop) decode(r *api.Record) (*corev1.Pod, bool) {
	obj, err := l.codec.Decode(r)
	if err != nil {
		l.log.Error("scheduler cannot read an object", "key", r.Key.String(), "err", err)
		return nil, false
	}
	return obj.(*corev1.Pod), true
}

// one decides for the pod whose turn it is.
func (l *loop) one(ctx context.Context) {
	now := time.Now()
	w := l.queue.take(now)
	pod, ok := l.decode(w.record)
	if !ok {
		l.queue.move(w, parked, now)
		return
	}
	if len(pod.Spec.SchedulingGates) > 0 {
		w.tries, w.triedAt = 0, time.Time{} // it has not been tried
		l.queue.move(w, gated, now)
		l.refuse(ctx, pod, corev1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates")
		return
	}
	d := Decide(l.view, pod)
	if d.Node == "" {
		w.neighbourly = d.neighbourly
		l.queue.move(w, parked, now)
		l.events.Event(pod, corev1.EventTypeWarning, "FailedScheduling", d.Message)
		l.refuse(ctx, pod, corev1.PodReasonUnschedulable, d.Message)
		return
	}
	p := placedOf(pod)
	p.node, p.assumed = d.Node, true
	l.view.place(p)
	l.write(func() result {
		return result{uid: p.uid, pod: pod, node: d.Node, err: l.door.Bind(ctx, pod, d.Node)}
	})
}

// write does one write beside the loop.
func (l *loop) write(do func() result) {
	l.flying++
	go func() { l.results <- do() }()
}

// refuse writes the condition that says why a pod has no node.
func (l *loop) refuse(ctx context.Context, pod *corev1.Pod, reason, message string) {
	out, changed := refused(pod, reason, message, time.Now())
	if !changed {
		return
	}
	l.write(func() result {
		_, err := l.door.UpdateStatus(ctx, out)
		return result{uid: string(pod.UID), pod: pod, err: err}
	})
}

// ended takes in how a write ended.
func (l *loop) ended(r result) {
	l.flying--
	now := time.Now()
	switch {
	case r.node == "":
		if r.err != nil && !gone(r.err) {
			l.log.Warn("scheduler cannot write a pod's condition", "pod", r.pod.Namespace+"/"+r.pod.Name, "err", r.err)
		}
		return
	case r.err == nil:
		l.events.Event(r.pod, corev1.EventTypeNormal, "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", r.pod.Namespace, r.pod.Name, r.node))
		return // the change that comes by the watch does the rest
	}
	if p := l.view.pods[r.uid]; p != nil && p.assumed {
		l.queue.helped(l.view.remove(r.uid), now)
	}
	if !gone(r.err) {
		l.log.Warn("scheduler cannot bind a pod", "pod", r.pod.Namespace+"/"+r.pod.Name, "node", r.node, "err", r.err)
		l.events.Event(r.pod, corev1.EventTypeWarning, "FailedScheduling", "binding rejected: "+r.err.Error())
	}
	if w := l.queue.pods[r.uid]; w != nil && w.state == binding {
		l.queue.wake(w, now)
	}
}

// gone reports whether a write failed because the pod went away or changed;
// the watch tells more.
func gone(err error) bool {
	return errors.Is(err, apierr.ErrNotFound) || errors.Is(err, apierr.ErrConflict) || errors.Is(err, context.Canceled)
}
