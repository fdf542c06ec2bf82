package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// atOnce bounds how many statuses of one node are being stored; concurrent
// ones share Raft entries.
const atOnce = 64

const (
	// storeWithin bounds one write.
	storeWithin = 10 * time.Second
	// firstPause is before the second try of a write, lastPause before the
	// last one.
	firstPause = 100 * time.Millisecond
	lastPause  = 3200 * time.Millisecond
)

// reports stores what a node says: many pods' statuses at once, each pod's in
// order and only the newest of those that wait, the newest status of the node,
// and Events in batches. Nothing of it holds up the session's reader, so that
// heartbeats are answered while nothing can be stored.
type reports struct {
	se    *session
	slots chan struct{}
	group sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	newest  map[string]*wherryv1.PodStatus // by uid, waiting
	busy    map[string]bool
	node    *corev1.NodeStatus // waiting
	events  []*corev1.Event    // waiting
	dropped int
	writing map[string]bool // whether node and events have a writer
}

// maxEvents bounds the Events of a node that wait to be stored.
const maxEvents = 1000

func newReports(se *session) *reports {
	return &reports{
		se: se, slots: make(chan struct{}, atOnce), newest: map[string]*wherryv1.PodStatus{}, busy: map[string]bool{}, writing: map[string]bool{},
	}
}

func (r *reports) put(ctx context.Context, m *wherryv1.PodStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.newest[m.GetUid()] = m
	if !r.busy[m.GetUid()] {
		r.busy[m.GetUid()] = true
		r.group.Go(func() { r.work(ctx, m.GetUid()) })
	}
}

// putNode takes the newest status of the node.
func (r *reports) putNode(ctx context.Context, st *corev1.NodeStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.node = st
	r.writeLocked(ctx, "node", r.storeNode)
}

// putEvent takes an Event; when too many wait the oldest are dropped.
func (r *reports) putEvent(ctx context.Context, e *corev1.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events = append(r.events, e); len(r.events) > maxEvents {
		r.events = r.events[1:]
		r.dropped++
	}
	r.writeLocked(ctx, "events", r.storeEvents)
}

// writeLocked runs store until nothing waits for it, unless it runs already.
func (r *reports) writeLocked(ctx context.Context, what string, store func(context.Context) (more bool)) {
	if r.closed || r.writing[what] {
		return
	}
	r.writing[what] = true
	r.group.Go(func() {
		for store(ctx) {
		}
	})
}

func (r *reports) storeNode(ctx context.Context) (more bool) {
	r.mu.Lock()
	st := r.node
	r.node = nil
	if st == nil || ctx.Err() != nil {
		r.writing["node"] = false
		r.mu.Unlock()
		return false
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	if err := r.se.door.ReportNode(ctx, r.se.node, st); err != nil {
		r.se.s.cfg.Log.Warn("node status not stored", "node", r.se.node, "err", err)
	}
	return true
}

func (r *reports) storeEvents(ctx context.Context) (more bool) {
	r.mu.Lock()
	batch, dropped := r.events, r.dropped
	r.events, r.dropped = nil, 0
	if len(batch) == 0 || ctx.Err() != nil {
		r.writing["events"] = false
		r.mu.Unlock()
		return false
	}
	r.mu.Unlock()
	if dropped > 0 {
		r.se.s.cfg.Log.Warn("events of a node dropped", "node", r.se.node, "count", dropped)
	}
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	if err := r.se.door.PutEvents(ctx, batch); err != nil {
		r.se.s.cfg.Log.Warn("events of a node not stored", "node", r.se.node, "err", err)
	}
	return true
}

// wait ends it: what is being stored is waited for, nothing more is taken.
func (r *reports) wait() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.group.Wait()
}

// work stores what waits for one pod until nothing does. What is refused for now
// is tried again for a while, and then left to the node, which repeats it.
func (r *reports) work(ctx context.Context, uid string) {
	pause := firstPause
	for {
		r.mu.Lock()
		m := r.newest[uid]
		if m == nil || ctx.Err() != nil || pause > lastPause {
			delete(r.newest, uid)
			delete(r.busy, uid)
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		if r.store(ctx, m) {
			pause = firstPause
			r.mu.Lock()
			if r.newest[uid] == m {
				delete(r.newest, uid)
			}
			r.mu.Unlock()
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		pause *= 2
	}
}

// store writes one status and acknowledges it, and reports whether that is
// settled: stored, or never to be. Another refusal may come of a state that this
// member, or the node, has not seen yet, and ends when they have.
func (r *reports) store(ctx context.Context, m *wherryv1.PodStatus) bool {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return false
	}
	one, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	err := r.write(one, m)
	log := r.se.s.cfg.Log.With("node", r.se.node, "pod", m.GetNamespace()+"/"+m.GetName(), "err", err)
	switch {
	case err == nil, errors.Is(err, apierr.ErrNotFound):
	case errors.Is(err, apierr.ErrInvalid):
		log.Warn("pod status refused")
	default:
		if ctx.Err() == nil {
			log.Warn("pod status not stored yet")
		}
		return false
	}
	ack := &wherryv1.StatusAck{Uid: m.GetUid(), Sequence: m.GetSequence()}
	if err := r.se.push(ctx, &wherryv1.SessionResponse{Message: &wherryv1.SessionResponse_StatusAck{StatusAck: ack}}); err != nil {
		r.se.cancel()
	}
	return true
}

// write stores a status, and lets the object go if nothing of the pod is left:
// also if the status cannot be stored.
func (r *reports) write(ctx context.Context, m *wherryv1.PodStatus) error {
	if m.GetStatus() != nil {
		st := &corev1.PodStatus{}
		if err := api.FromAny(m.GetStatus(), st); err != nil {
			return apierr.New(apierr.ErrInvalid, "pod_status.status: %v", err)
		}
		err := r.se.door.ReportPod(ctx, m.GetNamespace(), m.GetName(), m.GetUid(), st)
		if err != nil && (!m.GetTerminated() || !errors.Is(err, apierr.ErrInvalid)) {
			return err
		}
	}
	if !m.GetTerminated() {
		return nil
	}
	zero, uid := int64(0), types.UID(m.GetUid())
	return r.se.door.Delete(ctx, api.Key{Resource: "pods", Namespace: m.GetNamespace(), Name: m.GetName()},
		metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
}
