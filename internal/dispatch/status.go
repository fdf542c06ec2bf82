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

// reports stores pod statuses: many pods at once, each pod's in order, only
// the newest of those that wait.
type reports struct {
	se    *session
	slots chan struct{}
	group sync.WaitGroup

	mu     sync.Mutex
	newest map[string]*wherryv1.PodStatus // by uid, waiting
	busy   map[string]bool
}

func newReports(se *session) *reports {
	return &reports{se: se, slots: make(chan struct{}, atOnce), newest: map[string]*wherryv1.PodStatus{}, busy: map[string]bool{}}
}

func (r *reports) put(ctx context.Context, m *wherryv1.PodStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest[m.GetUid()] = m
	if !r.busy[m.GetUid()] {
		r.busy[m.GetUid()] = true
		r.group.Go(func() { r.work(ctx, m.GetUid()) })
	}
}

func (r *reports) wait() { r.group.Wait() }

// work stores what waits for one pod until nothing does.
func (r *reports) work(ctx context.Context, uid string) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
	}
	for {
		r.mu.Lock()
		m := r.newest[uid]
		delete(r.newest, uid)
		if m == nil || ctx.Err() != nil {
			delete(r.busy, uid)
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		r.store(ctx, m)
	}
}

// store writes one status and acknowledges it if that is settled; the node
// repeats what is not acknowledged.
func (r *reports) store(ctx context.Context, m *wherryv1.PodStatus) {
	one, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := r.write(one, m)
	switch {
	case err == nil:
	case errors.Is(err, apierr.ErrNotFound), errors.Is(err, apierr.ErrConflict), errors.Is(err, apierr.ErrInvalid), errors.Is(err, apierr.ErrForbidden):
		if !errors.Is(err, apierr.ErrNotFound) {
			r.se.s.cfg.Log.Warn("pod status refused", "node", r.se.node, "pod", m.GetNamespace()+"/"+m.GetName(), "err", err)
		}
	default:
		if ctx.Err() == nil {
			r.se.s.cfg.Log.Warn("pod status not stored yet", "node", r.se.node, "pod", m.GetNamespace()+"/"+m.GetName(), "err", err)
		}
		return
	}
	ack := &wherryv1.StatusAck{Uid: m.GetUid(), Sequence: m.GetSequence()}
	if err := r.se.push(ctx, &wherryv1.SessionResponse{Message: &wherryv1.SessionResponse_StatusAck{StatusAck: ack}}); err != nil {
		r.se.cancel()
	}
}

func (r *reports) write(ctx context.Context, m *wherryv1.PodStatus) error {
	if m.GetStatus() != nil {
		st := &corev1.PodStatus{}
		if err := api.FromAny(m.GetStatus(), st); err != nil {
			return apierr.New(apierr.ErrInvalid, "pod_status.status: %v", err)
		}
		if err := r.se.door.ReportPod(ctx, m.GetNamespace(), m.GetName(), m.GetUid(), st); err != nil {
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
