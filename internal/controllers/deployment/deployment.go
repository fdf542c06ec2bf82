// Package deployment rolls out Deployments: it makes a ReplicaSet for each
// template, moves replicas from the old ones to the new one within the bounds
// of the strategy, and tells in the status how that goes.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/owner"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "deployment"

const (
	resource = "deployments.apps"
	sets     = "replicasets.apps"
	workers  = 4
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
		Inputs: []reconcile.Input{{Resource: resource}, {Resource: sets, Keys: ofSet}, {Resource: "pods", Keys: ofPod}},
	}
}

// ofSet gives the deployments that a change of a ReplicaSet concerns.
func ofSet(e store.Event, s *store.Snapshot) []reconcile.Key {
	var keys []reconcile.Key
	for _, r := range []*api.Record{e.New, e.Old} {
		if r == nil {
			continue
		}
		rs, err := store.Decode[*appsv1.ReplicaSet](s, r)
		if err != nil {
			continue // what cannot be read belongs to nobody
		}
		if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
			k := reconcile.Key{Namespace: rs.Namespace, Name: ref.Name}
			if ref.Kind == "Deployment" && (len(keys) == 0 || keys[0] != k) {
				keys = append(keys, k)
			}
		} else if r == e.New && len(rs.Labels) > 0 {
			keys = append(keys, selecting(s, rs)...)
		}
	}
	return keys
}

// selecting gives the deployments whose selector picks an orphan.
func selecting(s *store.Snapshot, rs *appsv1.ReplicaSet) []reconcile.Key {
	var keys []reconcile.Key
	for r := range s.Scan(resource, rs.Namespace, api.Key{}) {
		d, err := store.Decode[*appsv1.Deployment](s, r)
		if err != nil {
			continue
		}
		if sel, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && sel.Matches(labels.Set(rs.Labels)) {
			keys = append(keys, reconcile.KeyOf(r))
		}
	}
	return keys
}

// ofPod gives the deployment that waits for a pod to end: one that recreates.
func ofPod(e store.Event, s *store.Snapshot) []reconcile.Key {
	last := e.New
	if last == nil {
		last = e.Old
	} else if p := last.Index.Fields["status.phase"]; p != string(corev1.PodSucceeded) && p != string(corev1.PodFailed) {
		return nil
	}
	pod, err := store.Decode[*corev1.Pod](s, last)
	if err != nil {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	rs, err := store.Get[*appsv1.ReplicaSet](s, api.Key{Resource: sets, Namespace: pod.Namespace, Name: ref.Name})
	if err != nil {
		return nil
	}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil && ref.Kind == "Deployment" {
		return []reconcile.Key{{Namespace: rs.Namespace, Name: ref.Name}}
	}
	return nil
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
	d, err := store.Get[*appsv1.Deployment](s, api.Key{Resource: resource, Namespace: key.Namespace, Name: key.Name})
	if errors.Is(err, apierr.ErrNotFound) {
		return 0, nil // gone; its ReplicaSets go by owner reference
	} else if err != nil {
		return 0, err
	}
	mine, err := c.claim(ctx, s, d)
	if err != nil {
		return 0, err
	}
	do, err := plan(state{deployment: d, sets: mine, now: time.Now(), pods: func(rs *appsv1.ReplicaSet) ([]*corev1.Pod, error) {
		return store.Owned[*corev1.Pod](s, string(rs.UID), "pods")
	}})
	if err != nil {
		return 0, err
	}
	return do.again, c.do(ctx, s, d, do)
}

// claim gives the ReplicaSets of a deployment, after it has adopted and
// released what its selector says.
func (c *controller) claim(ctx context.Context, s *store.Snapshot, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("read the selector: %w", err)
	}
	all, err := store.List[*appsv1.ReplicaSet](s, sets, d.Namespace)
	if err != nil {
		return nil, err
	}
	claim := owner.Of(d, selector, all)
	mine := claim.Mine
	for _, was := range claim.Adopt {
		rs := was.DeepCopy()
		rs.OwnerReferences = append(rs.OwnerReferences, owner.Ref(d, appsv1.SchemeGroupVersion.WithKind("Deployment")))
		obj, err := c.write.Update(ctx, rs)
		if errors.Is(err, apierr.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("adopt ReplicaSet %s: %w", was.Name, err)
		}
		mine = append(mine, obj.(*appsv1.ReplicaSet))
	}
	for _, was := range claim.Release {
		rs := was.DeepCopy()
		owner.Drop(rs, d.UID)
		if _, err := c.write.Update(ctx, rs); err != nil && !errors.Is(err, apierr.ErrNotFound) {
			return nil, fmt.Errorf("release ReplicaSet %s: %w", was.Name, err)
		}
	}
	return mine, nil
}

// do carries a plan out: first the ReplicaSets, then what is said of them.
func (c *controller) do(ctx context.Context, s *store.Snapshot, d *appsv1.Deployment, do actions) error {
	if do.create != nil {
		if done, err := c.create(ctx, s, d, do); done || err != nil {
			return err
		}
	}
	for _, rs := range do.update {
		if _, err := c.write.Update(ctx, rs); err != nil {
			return fmt.Errorf("update ReplicaSet %s: %w", rs.Name, err)
		}
	}
	for _, one := range do.scaled {
		way := "up"
		if one.to < one.from {
			way = "down"
		}
		c.events.Event(d, corev1.EventTypeNormal, "ScalingReplicaSet", fmt.Sprintf("Scaled %s replica set %s from %d to %d", way, one.set, one.from, one.to))
	}
	for _, rs := range do.remove {
		o := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(rs.UID))}
		if err := c.write.Delete(ctx, api.Key{Resource: sets, Namespace: rs.Namespace, Name: rs.Name}, o); err != nil && !errors.Is(err, apierr.ErrNotFound) {
			return fmt.Errorf("delete old ReplicaSet %s: %w", rs.Name, err)
		}
	}
	if do.annotations != nil {
		out := d.DeepCopy()
		out.Annotations = do.annotations
		if _, err := c.write.Update(ctx, out); err != nil {
			return fmt.Errorf("write the revision: %w", err)
		}
	}
	return c.report(ctx, d, do.status)
}

func (c *controller) report(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(&d.Status, &status) {
		return nil
	}
	out := d.DeepCopy()
	out.Status = status
	out.ResourceVersion = "" // nobody else writes it
	if _, err := c.write.UpdateStatus(ctx, out); err != nil && !errors.Is(err, apierr.ErrNotFound) {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// create makes the new ReplicaSet. It is done with this round when the name was
// taken by another template, and the next name must be tried.
func (c *controller) create(ctx context.Context, s *store.Snapshot, d *appsv1.Deployment, do actions) (done bool, err error) {
	_, err = c.write.Create(ctx, do.create.DeepCopy())
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, apierr.ErrAlreadyExists):
		has, get := store.Get[*appsv1.ReplicaSet](s, api.Key{Resource: sets, Namespace: d.Namespace, Name: do.create.Name})
		if get != nil || metav1.IsControlledBy(has, d) && sameTemplate(&has.Spec.Template, &d.Spec.Template) {
			return true, err // it came to be meanwhile: look again
		}
		status := *d.Status.DeepCopy()
		n := int32(1)
		if status.CollisionCount != nil {
			n = *status.CollisionCount + 1
		}
		status.CollisionCount = &n
		return true, c.report(ctx, d, status)
	case terminatingNamespace(err):
		return true, nil // what is left of a namespace needs no rollout
	}
	message := fmt.Sprintf("Failed to create new replica set %q: %v", do.create.Name, err)
	c.events.Event(d, corev1.EventTypeWarning, reasonNotMade, message)
	status := *d.Status.DeepCopy()
	if tracksProgress(d) {
		p := planner{state: state{now: time.Now()}}
		set(&status, p.condition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonNotMade, message))
	}
	return true, errors.Join(fmt.Errorf("create a ReplicaSet: %w", err), c.report(ctx, d, status))
}

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
