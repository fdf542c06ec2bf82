// Package replicaset keeps as many pods as each ReplicaSet wants: it makes and
// deletes them, adopts orphans that the selector picks, and reports their
// number in the status.
package replicaset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/owner"
	"github.com/wherry-project/wherry/internal/podstate"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "replicaset"

const (
	resource = "replicasets.apps"
	// workers is how many ReplicaSets are worked on at once.
	workers = 4
	// atOnce bounds the pods that are made or deleted concurrently; they
	// share log entries.
	atOnce = 64
)

type controller struct {
	write  reconcile.Writer
	events reconcile.Recorder
}

// New makes the controller.
func New(w reconcile.Writer, events reconcile.Recorder) reconcile.Controller {
	c := &controller{w, events}
	return reconcile.Controller{
		Name: Name, Workers: workers, Reconcile: c.reconcile,
		Inputs: []reconcile.Input{{Resource: resource}, {Resource: "pods", Keys: ofPod}},
	}
}

// ofPod gives the ReplicaSets that a change of a pod concerns: those that
// control or controlled it, and for an orphan those that select it.
func ofPod(e store.Event, s *store.Snapshot) []reconcile.Key {
	var keys []reconcile.Key
	for _, r := range []*api.Record{e.New, e.Old} {
		if r == nil {
			continue
		}
		pod, err := store.Decode[*corev1.Pod](s, r)
		if err != nil {
			continue // what cannot be read belongs to nobody
		}
		if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
			k := reconcile.Key{Namespace: pod.Namespace, Name: ref.Name}
			if ref.Kind == "ReplicaSet" && (len(keys) == 0 || keys[0] != k) {
				keys = append(keys, k)
			}
		} else if r == e.New && pod.DeletionTimestamp == nil {
			keys = append(keys, selecting(s, pod)...)
		}
	}
	return keys
}

// selecting gives the ReplicaSets whose selector picks an orphan.
func selecting(s *store.Snapshot, pod *corev1.Pod) []reconcile.Key {
	var keys []reconcile.Key
	if len(pod.Labels) == 0 {
		return nil
	}
	for r := range s.Scan(resource, pod.Namespace, api.Key{}) {
		rs, err := store.Decode[*appsv1.ReplicaSet](s, r)
		if err != nil {
			continue
		}
		if sel, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector); err == nil && sel.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.KeyOf(r))
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
	rs, err := store.Get[*appsv1.ReplicaSet](s, api.Key{Resource: resource, Namespace: key.Namespace, Name: key.Name})
	if errors.Is(err, apierr.ErrNotFound) {
		return 0, nil // gone; its pods go by owner reference
	} else if err != nil {
		return 0, err
	}
	active, terminating, err := c.claim(ctx, s, rs)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	related := active
	if wanted(rs) < len(active) {
		if related, err = siblings(s, rs, active); err != nil {
			return 0, err
		}
	}
	do := plan(rs, active, related, now)
	made, failure, failed := c.create(ctx, rs, do.create)
	active = append(active, made...)
	removed, reason, lost := c.remove(ctx, rs, do.remove)
	active, terminating = without(active, removed), terminating+stillThere(removed)
	if failed == nil {
		failure, failed = reason, lost
	}
	again, err := c.report(ctx, rs, active, terminating, condition(failure, failed, now))
	return again, errors.Join(failed, err)
}

// claim gives the active pods of a ReplicaSet, after it has adopted and
// released what its selector says, and the number of those that are going.
func (c *controller) claim(ctx context.Context, s *store.Snapshot, rs *appsv1.ReplicaSet) (active []*corev1.Pod, terminating int, err error) {
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return nil, 0, fmt.Errorf("read the selector: %w", err)
	}
	all, err := candidates(s, rs, selector)
	if err != nil {
		return nil, 0, err
	}
	var alive []*corev1.Pod
	for _, p := range all {
		switch {
		case podstate.Active(p):
			alive = append(alive, p)
		case podstate.Terminating(p) && metav1.IsControlledBy(p, rs):
			terminating++
		}
	}
	claim := owner.Of(rs, selector, alive)
	active = claim.Mine
	for _, p := range claim.Adopt {
		pod := p.DeepCopy()
		pod.OwnerReferences = append(pod.OwnerReferences, owner.Ref(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet")))
		obj, err := c.write.Update(ctx, pod)
		if errors.Is(err, apierr.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, 0, fmt.Errorf("adopt pod %s: %w", p.Name, err)
		}
		active = append(active, obj.(*corev1.Pod))
	}
	for _, p := range claim.Release {
		pod := p.DeepCopy()
		owner.Drop(pod, rs.UID)
		if _, err := c.write.Update(ctx, pod); err != nil && !errors.Is(err, apierr.ErrNotFound) {
			return nil, 0, fmt.Errorf("release pod %s: %w", p.Name, err)
		}
	}
	return active, terminating, nil
}

// candidates gives the pods that a ReplicaSet owns, and the orphans it selects.
func candidates(s *store.Snapshot, rs *appsv1.ReplicaSet, selector labels.Selector) ([]*corev1.Pod, error) {
	all, err := store.Owned[*corev1.Pod](s, string(rs.UID), "pods")
	if err != nil {
		return nil, err
	}
	for r := range s.Scan("pods", rs.Namespace, api.Key{}) {
		if len(r.Index.Owners) > 0 || r.Index.Deleting || !selector.Matches(labels.Set(r.Index.Labels)) {
			continue
		}
		p, err := store.Decode[*corev1.Pod](s, r)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// siblings gives the active pods of all ReplicaSets of one owner.
func siblings(s *store.Snapshot, rs *appsv1.ReplicaSet, own []*corev1.Pod) ([]*corev1.Pod, error) {
	ref := metav1.GetControllerOfNoCopy(rs)
	if ref == nil {
		return own, nil
	}
	all := own
	for r := range s.OwnedBy(string(ref.UID), resource) {
		if r.UID == string(rs.UID) {
			continue
		}
		pods, err := store.Owned[*corev1.Pod](s, r.UID, "pods")
		if err != nil {
			return nil, err
		}
		for _, p := range pods {
			if podstate.Active(p) {
				all = append(all[:len(all):len(all)], p)
			}
		}
	}
	return all, nil
}

// create makes n pods in batches that double, so that a template nobody accepts
// costs few tries; it stops after the first batch with a failure.
func (c *controller) create(ctx context.Context, rs *appsv1.ReplicaSet, n int) (made []*corev1.Pod, reason string, err error) {
	for size := 1; n > 0 && err == nil; size *= 2 {
		batch := min(size, n)
		n -= batch
		var mu sync.Mutex
		each(batch, func(int) {
			obj, one := c.write.Create(ctx, newPod(rs))
			mu.Lock()
			defer mu.Unlock()
			if one != nil {
				err = errors.Join(err, one)
				return
			}
			made = append(made, obj.(*corev1.Pod))
			c.events.Event(rs, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: "+obj.GetName())
		})
	}
	if err == nil || terminatingNamespace(err) {
		return made, "", nil // what is left of a namespace needs no pods
	}
	c.events.Event(rs, corev1.EventTypeWarning, "FailedCreate", "Error creating: "+firstLine(err))
	return made, "FailedCreate", err
}

// terminatingNamespace reports whether a create was refused because its
// namespace is being deleted.
func terminatingNamespace(err error) bool {
	if d := apierr.StatusOf(err).Details; d != nil {
		for _, cause := range d.Causes {
			if cause.Type == corev1.NamespaceTerminatingCause {
				return true
			}
		}
	}
	return false
}

func firstLine(err error) string {
	if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) > 0 {
		return firstLine(all.Unwrap()[0])
	}
	return err.Error()
}

// remove deletes pods, all at once.
func (c *controller) remove(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod) (removed []*corev1.Pod, reason string, err error) {
	var mu sync.Mutex
	each(len(pods), func(i int) {
		p := pods[i]
		one := c.write.Delete(ctx, api.Key{Resource: "pods", Namespace: p.Namespace, Name: p.Name}, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
		mu.Lock()
		defer mu.Unlock()
		if one != nil && !errors.Is(one, apierr.ErrNotFound) {
			err = errors.Join(err, one)
			return
		}
		removed = append(removed, p)
		c.events.Event(rs, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: "+p.Name)
	})
	if err != nil {
		reason = "FailedDelete"
		c.events.Event(rs, corev1.EventTypeWarning, reason, "Error deleting: "+firstLine(err))
	}
	return removed, reason, err
}

// each calls do for 0 to n-1, some at a time, and waits for all.
func each(n int, do func(i int)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	all.Wait()
}

func without(pods, gone []*corev1.Pod) []*corev1.Pod {
	if len(gone) == 0 {
		return pods
	}
	out := map[*corev1.Pod]bool{}
	for _, p := range gone {
		out[p] = true
	}
	var kept []*corev1.Pod
	for _, p := range pods {
		if !out[p] {
			kept = append(kept, p)
		}
	}
	return kept
}

// stillThere counts the deleted pods that first have to end on their node.
func stillThere(pods []*corev1.Pod) int {
	n := 0
	for _, p := range pods {
		if p.Spec.NodeName != "" {
			n++
		}
	}
	return n
}

func condition(reason string, err error, now time.Time) *appsv1.ReplicaSetCondition {
	if err == nil {
		return nil
	}
	return &appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: reason, Message: firstLine(err),
		LastTransitionTime: metav1.Time{Time: now.Truncate(time.Second)},
	}
}

// report writes the status if it changed, and says when to look again.
func (c *controller) report(ctx context.Context, rs *appsv1.ReplicaSet, active []*corev1.Pod, terminating int, failure *appsv1.ReplicaSetCondition) (time.Duration, error) {
	next, again := status(rs, active, terminating, failure, time.Now())
	if equality.Semantic.DeepEqual(&next, &rs.Status) {
		return again, nil
	}
	out := rs.DeepCopy()
	out.Status = next
	out.ResourceVersion = "" // nobody else writes it
	if _, err := c.write.UpdateStatus(ctx, out); err != nil && !errors.Is(err, apierr.ErrNotFound) {
		return 0, fmt.Errorf("write the status: %w", err)
	}
	return again, nil
}
