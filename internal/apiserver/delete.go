package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	if err := checkDelete(o); err != nil {
		return api.Deletion{}, err
	}
	d, err := s.delete(ctx, u, k.Stored(), t, o)
	if err == nil {
		d.Warnings = append(d.Warnings, deleteWarnings(k, o)...)
		d.Value, err = s.shown(k, d.Value, nil)
	}
	return d, err
}

// deleteWarnings tell what a delete leaves behind that says nothing about it.
func deleteWarnings(k *api.Kind, o metav1.DeleteOptions) []string {
	if k.Deprecated != "" {
		return []string{k.Deprecated}
	}
	if k.Resource != "jobs" || o.PropagationPolicy != nil || o.OrphanDependents != nil { //nolint:staticcheck // old clients send it
		return nil
	}
	return []string{"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"}
}

func (s *Server) delete(ctx context.Context, u api.User, k *api.Kind, t api.Target, o metav1.DeleteOptions) (d api.Deletion, err error) {
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
// anything.
func (s *Server) mark(k *api.Kind, obj api.Object, o metav1.DeleteOptions) bool {
	changed := propagate(k, obj, o)
	if obj.GetDeletionTimestamp() != nil {
		return s.shorten(obj, o.GracePeriodSeconds) || changed
	}
	grace := int64(0)
	if k.Grace != nil {
		grace = k.Grace(obj, o.GracePeriodSeconds)
	}
	due := metav1.Time{Time: s.timestamp().Add(time.Duration(grace) * time.Second)}
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

// shorten does what a second delete may do: it only shortens the grace, and
// only when it names one.
func (s *Server) shorten(obj api.Object, asked *int64) bool {
	had := obj.GetDeletionGracePeriodSeconds()
	if had == nil || *had == 0 || asked == nil {
		return false
	}
	grace := *asked
	if grace < 0 {
		grace = 1
	}
	if grace >= *had {
		return false
	}
	// The new end counts from when the deletion began, and is not moved into
	// the past.
	now := s.timestamp()
	due := metav1.Time{Time: obj.GetDeletionTimestamp().Add(time.Duration(grace-*had) * time.Second)}
	if due.Before(&now) {
		due = now
	}
	obj.SetDeletionTimestamp(&due)
	obj.SetDeletionGracePeriodSeconds(&grace)
	return true
}

// propagate sets the finalizer that the policy asks for, and takes away the one
// that it excludes. Without a policy the finalizer that is there stands for one,
// and then the kind's default.
func propagate(k *api.Kind, obj api.Object, o metav1.DeleteOptions) bool {
	before := obj.GetFinalizers()
	orphan, foreground := false, false
	switch p := o.PropagationPolicy; {
	case p != nil:
		orphan, foreground = *p == metav1.DeletePropagationOrphan, *p == metav1.DeletePropagationForeground
	case o.OrphanDependents != nil: //nolint:staticcheck // old clients send it
		orphan = *o.OrphanDependents //nolint:staticcheck // see above
	case slices.ContainsFunc(before, dependentsFinalizer):
		return false
	default:
		orphan = k.DeleteOrphans
	}
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

// dependentsFinalizer reports whether a finalizer says what becomes of
// dependents.
func dependentsFinalizer(f string) bool {
	return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
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

// atOnce bounds the deletions of one collection that are under way; they share
// entries of the log.
const atOnce = 16

// DeleteCollection implements api.Resources. After an error some may be deleted.
func (s *Server) DeleteCollection(ctx context.Context, u api.User, t api.Target, l api.ListOptions, o metav1.DeleteOptions) (*api.Page, error) {
	return s.deleteCollectionWithin(ctx, u, t, l, o, 0)
}

// deleteCollectionWithin deletes what a list within a limit of bytes holds.
func (s *Server) deleteCollectionWithin(ctx context.Context, u api.User, t api.Target, l api.ListOptions, o metav1.DeleteOptions, limit int) (*api.Page, error) {
	k, err := s.enter(u, t, "deletecollection")
	if err != nil {
		return nil, err
	}
	if err := checkDelete(o); err != nil {
		return nil, err
	}
	p, err := s.list(ctx, k, t, l, limit)
	if err != nil {
		return nil, err
	}
	deleted := make([]bool, len(p.Records))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, r := range p.Records {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() (err error) {
			deleted[i], err = s.deleteListed(gctx, u, k.Stored(), t, r, o)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	kept := p.Records[:0]
	for i, r := range p.Records {
		if deleted[i] {
			kept = append(kept, r)
		}
	}
	p.Records, p.Warnings = kept, deleteWarnings(k, o)
	return s.shownPage(k, p)
}

// deleteListed deletes an object of a list, and reports whether it did: one that
// is gone meanwhile, or was made anew, is none of the collection's any more.
func (s *Server) deleteListed(ctx context.Context, u api.User, k *api.Kind, t api.Target, r *api.Record, o metav1.DeleteOptions) (bool, error) {
	t.Namespace, t.Name = r.Namespace, r.Name
	ours := o.Preconditions == nil
	if ours {
		o.Preconditions = metav1.NewUIDPreconditions(r.UID)
	}
	_, err := s.delete(ctx, u, k, t, o)
	if errors.Is(err, apierr.ErrNotFound) || ours && errors.Is(err, apierr.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}
