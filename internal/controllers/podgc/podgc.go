// Package podgc removes pods that nobody will ever report on: those bound to a
// node that is gone, those that are deleted and were never bound, and finished
// ones beyond a number.
package podgc

import (
	"context"
	"errors"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "pod-garbage-collector"

const (
	// quarantine is how long a node must be missing before its pods go.
	quarantine = 40 * time.Second
	// keepFinished is how many finished pods are kept.
	keepFinished = 12500
	every        = 20 * time.Second
)

type controller struct {
	write reconcile.Writer
	// missing is since when each node is, as far as this leader has seen. The
	// one worker alone touches it.
	missing map[string]time.Time
}

// New makes the controller.
func New(w reconcile.Writer) reconcile.Controller {
	c := &controller{w, map[string]time.Time{}}
	whole := func(e store.Event, _ *store.Snapshot) []reconcile.Key {
		if e.New != nil && e.Old != nil && (e.New.Index.Deleting == e.Old.Index.Deleting) {
			return nil
		}
		return []reconcile.Key{{}}
	}
	gone := func(e store.Event, _ *store.Snapshot) []reconcile.Key {
		if e.New != nil && e.Old != nil {
			return nil
		}
		return []reconcile.Key{{}}
	}
	return reconcile.Controller{
		Name: Name, Reconcile: c.reconcile,
		Inputs: []reconcile.Input{{Resource: "namespaces", Keys: gone}, {Resource: "nodes", Keys: gone}, {Resource: "pods", Keys: func(e store.Event, s *store.Snapshot) []reconcile.Key {
			if e.New == nil || !e.New.Index.Deleting || e.New.Index.Fields["spec.nodeName"] != "" {
				return nil // only unbound pods that are deleted are urgent
			}
			return whole(e, s)
		}}},
	}
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, _ reconcile.Key) (time.Duration, error) {
	now := time.Now()
	var failed error
	var finished []*corev1.Pod
	still := map[string]bool{}
	for r := range s.Scan("pods", "", api.Key{}) {
		node, phase := r.Index.Fields["spec.nodeName"], corev1.PodPhase(r.Index.Fields["status.phase"])
		over := phase == corev1.PodSucceeded || phase == corev1.PodFailed
		_, there := s.Get(api.Key{Resource: "nodes", Name: node})
		switch {
		case node == "" && r.Index.Deleting:
			failed = errors.Join(failed, c.remove(ctx, s, r, ""))
		case node != "" && !there:
			still[node] = true
			if c.missing[node].IsZero() {
				c.missing[node] = now
			}
			if now.Sub(c.missing[node]) >= quarantine {
				failed = errors.Join(failed, c.remove(ctx, s, r, "PodGC: node no longer exists"))
			}
		case over && !r.Index.Deleting:
			p, err := store.Decode[*corev1.Pod](s, r)
			if err != nil {
				return 0, err
			}
			finished = append(finished, p)
		}
	}
	for n := range c.missing {
		if !still[n] {
			delete(c.missing, n)
		}
	}
	for _, p := range oldest(finished) {
		failed = errors.Join(failed, c.delete(ctx, p))
	}
	return every, failed
}

// oldest are the finished pods beyond those that are kept.
func oldest(list []*corev1.Pod) []*corev1.Pod {
	over := len(list) - keepFinished
	if over <= 0 {
		return nil
	}
	sort.Slice(list, func(i, j int) bool { return list[i].CreationTimestamp.Before(&list[j].CreationTimestamp) })
	return list[:over]
}

// remove deletes a pod at once. One that did not finish is marked as failed
// first, with why.
func (c *controller) remove(ctx context.Context, s *store.Snapshot, r *api.Record, why string) error {
	p, err := store.Decode[*corev1.Pod](s, r)
	if err != nil {
		return err
	}
	if why != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
		next := p.DeepCopy()
		next.Status.Phase = corev1.PodFailed
		next.Status.Conditions = append(next.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: why,
			LastTransitionTime: metav1.Time{Time: time.Now().Truncate(time.Second)},
		})
		if _, err := c.write.UpdateStatus(ctx, next); err != nil {
			return ignore(err)
		}
	}
	return c.delete(ctx, p)
}

func (c *controller) delete(ctx context.Context, p *corev1.Pod) error {
	zero := int64(0)
	o := metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
	return ignore(c.write.Delete(ctx, api.Key{Resource: "pods", Namespace: p.Namespace, Name: p.Name}, o))
}

func ignore(err error) error {
	if errors.Is(err, apierr.ErrNotFound) || errors.Is(err, apierr.ErrConflict) {
		return nil
	}
	return err
}
