package apiserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/admission"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// Delete implements api.Resources.
func (s *Server) Delete(ctx context.Context, u api.User, t api.Target, o metav1.DeleteOptions) (api.Deletion, error) {
	k, err := s.enter(u, t, "delete")
	if err != nil {
		return api.Deletion{}, err
	}
	return s.delete(ctx, u, k, t, o)
}

func (s *Server) delete(ctx context.Context, u api.User, k *api.Kind, t api.Target, o metav1.DeleteOptions) (d api.Deletion, err error) {
	if err := checkDelete(o); err != nil {
		return d, err
	}
	w := api.WriteOptions{DryRun: slices.Contains(o.DryRun, metav1.DryRunAll)}
	err = s.attempt(ctx, func(snap *store.Snapshot) (bool, error) {
		r, ok := snap.Get(k.Key(t.Namespace, t.Name))
		if !ok {
			return false, apierr.NotFound(k.KeyResource(), t.Name)
		}
		old, err := s.codec.Decode(r)
		if err != nil {
			return false, err
		}
		if err := deletable(k, r, o); err != nil {
			return false, err
		}
		if err := s.admit.Admit(&admission.Request{User: u, Kind: k, Operation: admission.Delete, Old: old, Snapshot: snap}); err != nil {
			return false, err
		}
		obj := old.DeepCopyObject().(api.Object)
		changed := s.mark(k, obj, o)
		d = api.Deletion{Kind: k, UID: old.GetUID()}
		next, err := k.Record(obj)
		if err != nil {
			return false, err
		}
		switch {
		case releasable(obj):
			d.Gone = true
			d.Value, err = s.remove(ctx, k, obj, next, r, w)
		case !changed:
			d.Value = api.Value{Record: r}
			return false, nil
		default:
			d.Value, err = s.commit(ctx, k, obj, next, []store.Change{{Op: store.Put, If: store.Cond{Revision: r.Revision}, Key: r.Key, Record: next}}, w)
		}
		return err == nil, err
	})
	if err != nil {
		return api.Deletion{}, err
	}
	return d, nil
}

func checkDelete(o metav1.DeleteOptions) error {
	var errs field.ErrorList
	policies := []metav1.DeletionPropagation{metav1.DeletePropagationForeground, metav1.DeletePropagationBackground, metav1.DeletePropagationOrphan}
	if o.PropagationPolicy != nil && !slices.Contains(policies, *o.PropagationPolicy) {
		errs = append(errs, field.NotSupported(field.NewPath("propagationPolicy"), *o.PropagationPolicy, []string{"Background", "Foreground", "Orphan", "nil"}))
	}
	if o.PropagationPolicy != nil && o.OrphanDependents != nil { //nolint:staticcheck // old clients send it
		errs = append(errs, field.Invalid(field.NewPath("propagationPolicy"), *o.PropagationPolicy, "orphanDependents and deletionPropagation cannot be both set"))
	}
	for _, d := range o.DryRun {
		if d != metav1.DryRunAll {
			errs = append(errs, field.NotSupported(field.NewPath("dryRun"), d, []string{metav1.DryRunAll}))
		}
	}
	if len(errs) > 0 {
		return apierr.Invalid("DeleteOptions.meta.k8s.io", "", errs)
	}
	return nil
}

// deletable compares the preconditions of a delete.
func deletable(k *api.Kind, r *api.Record, o metav1.DeleteOptions) error {
	p := o.Preconditions
	switch {
	case p == nil:
		return nil
	case p.UID != nil && string(*p.UID) != r.UID:
		return apierr.Conflict(k.KeyResource(), r.Name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, r.UID))
	case p.ResourceVersion != nil && *p.ResourceVersion != r.ResourceVersion():
		return apierr.Conflict(k.KeyResource(), r.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, r.ResourceVersion()))
	}
	return nil
}

// mark puts the state of deletion into obj, and reports whether that changed
// anything. A second delete may only shorten the grace.
func (s *Server) mark(k *api.Kind, obj api.Object, o metav1.DeleteOptions) bool {
	grace := int64(0)
	if k.Grace != nil {
		grace = k.Grace(obj, o.GracePeriodSeconds)
	}
	if grace < 0 {
		grace = 1
	}
	now := s.timestamp()
	due := metav1.Time{Time: now.Add(time.Duration(grace) * time.Second)}
	changed := propagate(k, obj, o)
	at := obj.GetDeletionTimestamp()
	if at == nil {
		obj.SetDeletionTimestamp(&due)
		if ns, ok := obj.(*corev1.Namespace); ok {
			ns.Status.Phase = corev1.NamespaceTerminating
		} else {
			obj.SetDeletionGracePeriodSeconds(&grace)
		}
		if k.SpecOf != nil {
			obj.SetGeneration(obj.GetGeneration() + 1)
		}
		return true
	}
	had := obj.GetDeletionGracePeriodSeconds()
	if had == nil || grace >= *had && !(grace == 0 && *had == 0) {
		return changed
	}
	if *had != grace {
		// The new end counts from when the deletion began, and is not moved
		// into the past.
		began := at.Add(-time.Duration(*had) * time.Second)
		due = metav1.Time{Time: began.Add(time.Duration(grace) * time.Second)}
		if due.Before(&now) {
			due = now
		}
		obj.SetDeletionTimestamp(&due)
		obj.SetDeletionGracePeriodSeconds(&grace)
		changed = true
	}
	return changed
}

// propagate sets the finalizer that the policy asks for.
func propagate(k *api.Kind, obj api.Object, o metav1.DeleteOptions) bool {
	orphan, foreground := k.DeleteOrphans, false
	if p := o.PropagationPolicy; p != nil {
		orphan, foreground = *p == metav1.DeletePropagationOrphan, *p == metav1.DeletePropagationForeground
	} else if o.OrphanDependents != nil { //nolint:staticcheck // old clients send it
		orphan = *o.OrphanDependents //nolint:staticcheck // see above
	}
	before := obj.GetFinalizers()
	after := slices.DeleteFunc(slices.Clone(before), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents && !orphan || f == metav1.FinalizerDeleteDependents && !foreground
	})
	if orphan && !slices.Contains(after, metav1.FinalizerOrphanDependents) {
		after = append(after, metav1.FinalizerOrphanDependents)
	}
	if foreground && !slices.Contains(after, metav1.FinalizerDeleteDependents) {
		after = append(after, metav1.FinalizerDeleteDependents)
	}
	if slices.Equal(before, after) {
		return false
	}
	obj.SetFinalizers(after)
	return true
}

// releasable reports that nothing holds an object that is being deleted.
func releasable(obj api.Object) bool {
	if obj.GetDeletionTimestamp() == nil || len(obj.GetFinalizers()) > 0 {
		return false
	}
	if g := obj.GetDeletionGracePeriodSeconds(); g != nil && *g > 0 {
		return false
	}
	ns, ok := obj.(*corev1.Namespace)
	return !ok || len(ns.Spec.Finalizers) == 0
}

// remove takes an object out of the store, with what it was allocated.
func (s *Server) remove(ctx context.Context, k *api.Kind, obj api.Object, last, was *api.Record, o api.WriteOptions) (api.Value, error) {
	changes := []store.Change{{Op: store.Delete, If: store.Cond{Revision: was.Revision}, Key: was.Key}}
	return s.commit(ctx, k, obj, last, append(changes, s.alloc.Release(obj)...), o)
}

// DeleteCollection implements api.Resources.
func (s *Server) DeleteCollection(ctx context.Context, u api.User, t api.Target, l api.ListOptions, o metav1.DeleteOptions) (int, error) {
	k, err := s.enter(u, t, "deletecollection")
	if err != nil {
		return 0, err
	}
	p, err := s.list(ctx, k, t, l)
	if err != nil {
		return 0, err
	}
	for i, r := range p.Records {
		one := t
		one.Namespace, one.Name = r.Namespace, r.Name
		opts := o
		opts.Preconditions = preconditionsOf(o, r)
		if _, err := s.delete(ctx, u, k, one, opts); err != nil {
			switch apierr.KindOf(err) {
			case apierr.ErrNotFound, apierr.ErrConflict:
				continue // gone, or made anew by somebody else
			}
			return i, err
		}
	}
	return len(p.Records), nil
}

func preconditionsOf(o metav1.DeleteOptions, r *api.Record) *metav1.Preconditions {
	if o.Preconditions != nil {
		return o.Preconditions
	}
	return metav1.NewUIDPreconditions(r.UID)
}
