// Package gc collects objects whose owners are gone, and finishes deletions
// that wait for dependents: foreground ones, and those that orphan.
//
// https://kubernetes.io/docs/concepts/architecture/garbage-collection/
//
// An owner is in the namespace of what it owns, or in none. One in another
// namespace counts as absent. An object without a namespace cannot be owned by
// one that has a namespace: such a reference is an error that says nothing of
// the object, which is left alone. An Event about the object tells of either.
package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "generic-garbage-collector"

const workers = 8

type controller struct {
	write  reconcile.Writer
	events reconcile.Recorder
	kinds  *api.Kinds
}

// New makes the controller for the kinds that are served.
func New(w reconcile.Writer, events reconcile.Recorder, kinds *api.Kinds) reconcile.Controller {
	c := &controller{w, events, kinds}
	var in []reconcile.Input
	for _, k := range kinds.Stored() {
		if k.KeyResource() != "events" { // nobody owns Events, and they own nothing
			in = append(in, reconcile.Input{Resource: k.KeyResource(), Keys: c.concerned})
		}
	}
	return reconcile.Controller{Name: Name, Workers: workers, Inputs: in, Reconcile: c.reconcile}
}

// key names an object of any kind as a reconcile.Key.
func key(k api.Key) reconcile.Key {
	return reconcile.Key{Namespace: k.Namespace, Name: k.Resource + "/" + k.Name}
}

func unkey(k reconcile.Key) api.Key {
	resource, name, _ := strings.Cut(k.Name, "/")
	return api.Key{Resource: resource, Namespace: k.Namespace, Name: name}
}

// concerned are the objects that a change may make garbage, or whose deletion
// may go on after it.
func (c *controller) concerned(e store.Event, s *store.Snapshot) []reconcile.Key {
	var keys []reconcile.Key
	fresh := e.Old == nil || e.New == nil || e.Old.UID != e.New.UID
	moved := fresh || !slices.Equal(e.Old.Index.Owners, e.New.Index.Owners)
	if e.New != nil && (e.New.Index.Deleting || moved && len(e.New.Index.Owners) > 0) {
		keys = append(keys, key(e.New.Key))
	}
	begun := e.New != nil && e.New.Index.Deleting && (fresh || !e.Old.Index.Deleting)
	if e.New == nil || begun {
		for r := range s.OwnedBy(uid(e), "") {
			keys = append(keys, key(r.Key))
		}
	}
	if e.Old != nil && len(e.Old.Index.Owners) > 0 && (moved || e.New.Index.Deleting) {
		obj, err := s.Codec().Decode(e.Old)
		if err != nil {
			return keys // it is of no kind that is served
		}
		for _, ref := range obj.GetOwnerReferences() {
			if k, ok := c.ownerKey(ref, e.Old.Namespace); ok {
				keys = append(keys, key(k))
			}
		}
	}
	return keys
}

// ownerKey names the object that a reference means; not ok for kinds that are
// not served.
func (c *controller) ownerKey(ref metav1.OwnerReference, namespace string) (api.Key, bool) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return api.Key{}, false
	}
	k, ok := c.kinds.ByGVK(gv.WithKind(ref.Kind))
	if !ok {
		return api.Key{}, false
	}
	if !k.Namespaced {
		namespace = ""
	}
	return k.Key(namespace, ref.Name), true
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, k reconcile.Key) (time.Duration, error) {
	r, ok := s.Get(unkey(k))
	if !ok {
		return 0, nil
	}
	shared, err := s.Codec().Decode(r)
	if err != nil {
		return 0, err
	}
	if shared.GetDeletionTimestamp() != nil {
		return 0, ignore(c.finish(ctx, s, r, shared))
	}
	return 0, ignore(c.collect(ctx, s, r, shared))
}

func ignore(err error) error {
	if errors.Is(err, apierr.ErrNotFound) {
		return nil
	}
	return err
}

// verdict is what an object's owners mean for it. Wrong are the owners that are
// in another namespace: they are among the absent too.
type verdict struct {
	solid, absent, waiting, wrong []metav1.OwnerReference
	// impossible says that the object is in no namespace and an owner in one:
	// nothing is to be done about it.
	impossible bool
}

// judge looks for the owners by uid. An owner of a kind that is not served
// counts as solid: nothing is known of it.
func (c *controller) judge(s *store.Snapshot, obj api.Object) verdict {
	var v verdict
	for _, ref := range obj.GetOwnerReferences() {
		k, ok := c.ownerKey(ref, obj.GetNamespace())
		if !ok {
			v.solid = append(v.solid, ref)
			continue
		}
		v.impossible = v.impossible || c.misplaced(k.Resource, obj)
		owner, there := s.Get(k)
		switch {
		case !there || owner.UID != string(ref.UID):
			v.absent = append(v.absent, ref)
			if c.elsewhere(s, k, string(ref.UID)) {
				v.wrong = append(v.wrong, ref)
			}
		case owner.Index.Deleting && foreground(s, owner):
			v.waiting = append(v.waiting, ref)
		default:
			v.solid = append(v.solid, ref)
		}
	}
	return v
}

// misplaced reports whether an object is in no namespace, and would have an
// owner that is in one.
func (c *controller) misplaced(resource string, obj api.Object) bool {
	k, ok := c.kinds.ByKey(resource)
	return ok && k.Namespaced && obj.GetNamespace() == ""
}

// elsewhere reports whether the owner of that name and uid is in a namespace
// other than k's.
func (c *controller) elsewhere(s *store.Snapshot, k api.Key, uid string) bool {
	if kind, ok := c.kinds.ByKey(k.Resource); !ok || !kind.Namespaced {
		return false
	}
	for ns := range s.Scan("namespaces", "", api.Key{}) {
		k.Namespace = ns.Name
		if r, there := s.Get(k); there && r.UID == uid {
			return true
		}
	}
	return false
}

// tell notes which owners of an object are in another namespace.
func (c *controller) tell(obj api.Object, wrong []metav1.OwnerReference) {
	for _, ref := range wrong {
		c.events.Event(obj, corev1.EventTypeWarning, "OwnerRefInvalidNamespace", fmt.Sprintf(
			"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
			ref.APIVersion, ref.Kind, obj.GetNamespace(), ref.Name, ref.UID, obj.GetNamespace()))
	}
}

func foreground(s *store.Snapshot, r *api.Record) bool {
	obj, err := s.Codec().Decode(r)
	return err == nil && slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents)
}

// collect deletes an object that no owner holds any more, or takes the dead
// owners' references away.
func (c *controller) collect(ctx context.Context, s *store.Snapshot, r *api.Record, obj api.Object) error {
	v := c.judge(s, obj)
	c.tell(obj, v.wrong)
	if v.impossible || len(v.absent)+len(v.waiting) == 0 {
		return nil
	}
	if len(v.solid) > 0 {
		next := obj.DeepCopyObject().(api.Object)
		next.SetOwnerReferences(v.solid)
		_, err := c.write.Update(ctx, next)
		return err
	}
	if len(v.waiting) > 0 && circular(s, r.UID) {
		if err := c.unblock(ctx, obj); err != nil {
			return err
		}
	}
	policy := metav1.DeletePropagationBackground
	switch f := obj.GetFinalizers(); {
	case len(v.waiting) > 0 && blockers(s, r.UID):
		policy = metav1.DeletePropagationForeground
	case slices.Contains(f, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(f, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	return c.write.Delete(ctx, r.Key, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: metav1.NewUIDPreconditions(r.UID)})
}

// blockers reports whether anything depends on an object.
func blockers(s *store.Snapshot, uid string) bool {
	for range s.OwnedBy(uid, "") {
		return true
	}
	return false
}

// circular reports whether something that depends on an object waits itself for
// its dependents, of which this object may be one.
func circular(s *store.Snapshot, uid string) bool {
	for r := range s.OwnedBy(uid, "") {
		if r.Index.Deleting && foreground(s, r) {
			return true
		}
	}
	return false
}

// unblock lets the owners of an object go before it: else they would wait for
// each other for ever.
func (c *controller) unblock(ctx context.Context, obj api.Object) error {
	next := obj.DeepCopyObject().(api.Object)
	refs := next.GetOwnerReferences()
	no := false
	for i := range refs {
		refs[i].BlockOwnerDeletion = &no
	}
	next.SetOwnerReferences(refs)
	_, err := c.write.Update(ctx, next)
	return err
}

// finish goes on with a deletion that waits for dependents.
func (c *controller) finish(ctx context.Context, s *store.Snapshot, r *api.Record, obj api.Object) error {
	switch f := obj.GetFinalizers(); {
	case slices.Contains(f, metav1.FinalizerOrphanDependents):
		for d := range s.OwnedBy(r.UID, "") {
			if err := ignore(c.disown(ctx, s, d, r.UID)); err != nil {
				return fmt.Errorf("orphan %s: %w", d.Key, err)
			}
		}
		return c.release(ctx, obj, metav1.FinalizerOrphanDependents)
	case slices.Contains(f, metav1.FinalizerDeleteDependents):
		held, err := c.dependents(ctx, s, r)
		if held || err != nil {
			return err // their own end brings us back
		}
		return c.release(ctx, obj, metav1.FinalizerDeleteDependents)
	}
	return nil
}

// dependents deletes what depends on an object that waits for that, and reports
// whether some of it holds the object.
func (c *controller) dependents(ctx context.Context, s *store.Snapshot, owner *api.Record) (held bool, err error) {
	for r := range s.OwnedBy(owner.UID, "") {
		obj, err := s.Codec().Decode(r)
		if err != nil {
			return false, err
		}
		if c.misplaced(owner.Resource, obj) {
			continue // it is not collected, so nobody may wait for it
		}
		for _, ref := range obj.GetOwnerReferences() {
			held = held || string(ref.UID) == owner.UID && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
		}
		if !r.Index.Deleting {
			if err := ignore(c.collect(ctx, s, r, obj)); err != nil {
				return held, fmt.Errorf("delete dependent %s: %w", r.Key, err)
			}
		}
	}
	return held, nil
}

// disown takes the reference to an owner away.
func (c *controller) disown(ctx context.Context, s *store.Snapshot, r *api.Record, owner string) error {
	obj, err := s.Codec().Decode(r)
	if err != nil {
		return err
	}
	next := obj.DeepCopyObject().(api.Object)
	next.SetOwnerReferences(slices.DeleteFunc(next.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return string(ref.UID) == owner }))
	_, err = c.write.Update(ctx, next)
	return err
}

// release takes a finalizer away.
func (c *controller) release(ctx context.Context, obj api.Object, finalizer string) error {
	next := obj.DeepCopyObject().(api.Object)
	next.SetFinalizers(slices.DeleteFunc(next.GetFinalizers(), func(f string) bool { return f == finalizer }))
	_, err := c.write.Update(ctx, next)
	return err
}

func uid(e store.Event) string {
	if e.New != nil {
		return e.New.UID
	}
	return e.Old.UID
}
