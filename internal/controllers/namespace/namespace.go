// Package namespace empties namespaces that are being deleted: pods first, and
// when those are gone everything else; then it lets the namespace go.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "namespace"

const (
	// lookAgain bounds how long a namespace waits for content that goes by
	// itself.
	lookAgain = 15 * time.Second
	// atOnce bounds the deletions under way.
	atOnce = 64
)

type controller struct {
	write reconcile.Writer
	kinds *api.Kinds
}

// New makes the controller for the kinds that are served.
func New(w reconcile.Writer, kinds *api.Kinds) reconcile.Controller {
	c := &controller{w, kinds}
	in := []reconcile.Input{{Resource: "namespaces", Keys: func(e store.Event, _ *store.Snapshot) []reconcile.Key {
		if e.New == nil || !e.New.Index.Deleting {
			return nil
		}
		return []reconcile.Key{{Name: e.New.Name}}
	}}}
	for _, k := range kinds.Stored() {
		if k.Namespaced {
			in = append(in, reconcile.Input{Resource: k.KeyResource(), Keys: gone})
		}
	}
	return reconcile.Controller{Name: Name, Workers: 4, Inputs: in, Reconcile: c.reconcile}
}

// gone gives the namespace of a deleted object, if that is being deleted too.
func gone(e store.Event, s *store.Snapshot) []reconcile.Key {
	if e.New != nil {
		return nil
	}
	ns, ok := s.Get(api.Key{Resource: "namespaces", Name: e.Old.Namespace})
	if !ok || !ns.Index.Deleting {
		return nil
	}
	return []reconcile.Key{{Name: ns.Name}}
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
	ns, err := store.Get[*corev1.Namespace](s, api.Key{Resource: "namespaces", Name: key.Name})
	if errors.Is(err, apierr.ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	left := content(s, c.kinds, ns.Name)
	if len(left) == 0 {
		free := ns.DeepCopy()
		free.Spec.Finalizers = slices.DeleteFunc(free.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		_, err := c.write.UpdateSubresource(ctx, free, "finalize")
		return 0, ignore(err)
	}
	failed := c.empty(ctx, next(left))
	return lookAgain, errors.Join(failed, c.report(ctx, s.Codec(), ns, left, failed))
}

// empty deletes objects, many at once: they share log entries.
func (c *controller) empty(ctx context.Context, list []*api.Record) error {
	slots := make(chan struct{}, atOnce)
	errs := make([]error, len(list))
	background := metav1.DeletePropagationBackground
	var group sync.WaitGroup
	for i, r := range list {
		if r.Index.Deleting {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			o := metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: metav1.NewUIDPreconditions(r.UID)}
			errs[i] = ignore(c.write.Delete(ctx, r.Key, o))
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// ignore drops the errors that say that somebody else was faster.
func ignore(err error) error {
	if errors.Is(err, apierr.ErrNotFound) || errors.Is(err, apierr.ErrConflict) {
		return nil
	}
	return err
}

// content is what a namespace still holds, by resource in the order of kinds.
func content(s *store.Snapshot, kinds *api.Kinds, namespace string) map[string][]*api.Record {
	left := map[string][]*api.Record{}
	for _, k := range kinds.Stored() {
		if !k.Namespaced || k.KeyResource() == "events" {
			continue
		}
		for r := range s.Scan(k.KeyResource(), namespace, api.Key{}) {
			left[k.KeyResource()] = append(left[k.KeyResource()], r)
		}
	}
	if len(left) > 0 {
		return left
	}
	// Events tell of the others to the last.
	for r := range s.Scan("events", namespace, api.Key{}) {
		left["events"] = append(left["events"], r)
	}
	return left
}

// next is what may be deleted now: the pods, and once there are none the rest.
func next(left map[string][]*api.Record) []*api.Record {
	if pods := left["pods"]; len(pods) > 0 {
		return pods
	}
	var out []*api.Record
	for _, list := range left {
		out = append(out, list...)
	}
	return out
}

// report writes the conditions that tell what the deletion waits for.
func (c *controller) report(ctx context.Context, codec *api.Codec, ns *corev1.Namespace, left map[string][]*api.Record, failed error) error {
	var remaining []string
	for resource, list := range left {
		remaining = append(remaining, fmt.Sprintf("%s has %d resource instances", resource, len(list)))
	}
	sort.Strings(remaining)
	waits := held(codec, left)
	want := ns.DeepCopy()
	set(want, corev1.NamespaceDeletionDiscoveryFailure, false, "ResourcesDiscovered", "All resources successfully discovered")
	set(want, corev1.NamespaceContentRemaining, true, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(remaining, ", "))
	if len(waits) > 0 {
		set(want, corev1.NamespaceFinalizersRemaining, true, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(waits, ", "))
	} else {
		set(want, corev1.NamespaceFinalizersRemaining, false, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	}
	if failed != nil {
		set(want, corev1.NamespaceDeletionContentFailure, true, "ContentDeletionFailed", failed.Error())
	} else {
		set(want, corev1.NamespaceDeletionContentFailure, false, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	}
	if equality.Semantic.DeepEqual(want.Status, ns.Status) {
		return nil
	}
	_, err := c.write.UpdateStatus(ctx, want)
	return ignore(err)
}

// held counts the objects that wait for each finalizer.
func held(codec *api.Codec, left map[string][]*api.Record) []string {
	count := map[string]int{}
	for _, list := range left {
		for _, r := range list {
			if !r.Index.Deleting {
				continue
			}
			obj, err := codec.Decode(r)
			if err != nil {
				continue // it is of no kind that is served
			}
			for _, f := range obj.GetFinalizers() {
				count[f]++
			}
		}
	}
	var out []string
	for f, n := range count {
		out = append(out, fmt.Sprintf("%s in %d resource instances", f, n))
	}
	sort.Strings(out)
	return out
}

func set(ns *corev1.Namespace, t corev1.NamespaceConditionType, ok bool, reason, message string) {
	status := corev1.ConditionFalse
	if ok {
		status = corev1.ConditionTrue
	}
	c := corev1.NamespaceCondition{Type: t, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Time{Time: time.Now().Truncate(time.Second)}}
	for i, old := range ns.Status.Conditions {
		if old.Type == t {
			if old.Status == status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			ns.Status.Conditions[i] = c
			return
		}
	}
	ns.Status.Conditions = append(ns.Status.Conditions, c)
}
