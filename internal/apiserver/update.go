package apiserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/patch"
	"github.com/wherry-project/wherry/internal/store"
)

// write is one change of an existing object, made anew on each try.
type write struct {
	target  api.Target
	options api.WriteOptions
	// change makes the new object from the current one, which is shared. A
	// resourceVersion or uid that it leaves in the result must be current.
	change func(old api.Object) (api.Object, []string, error)
	// applied says that change records the managed fields itself; else they are
	// recorded as of the subresource manages, if it is not the target's.
	applied bool
	manages string
	// absent gives the object to be made if there is none; nil answers 404.
	absent func() (api.Object, error)
}

// Update implements api.Resources.
func (s *Server) Update(ctx context.Context, u api.User, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	k, err := s.enter(u, t, "update")
	if err != nil {
		return api.Value{}, err
	}
	if err := checkUpdate(o); err != nil {
		return api.Value{}, err
	}
	if t.Subresource == "scale" {
		return s.updateScale(ctx, u, k, t, obj, o)
	}
	object, err := typed(k, obj)
	if err != nil {
		return api.Value{}, err
	}
	if err := placeIn(k, t, object); err != nil {
		return api.Value{}, err
	}
	if object.GetName() == "" {
		return api.Value{}, apierr.BadRequest("name must be provided")
	}
	if object.GetName() != t.Name {
		return api.Value{}, errNames(object.GetName(), t.Name)
	}
	w := write{target: t, options: o, change: func(old api.Object) (api.Object, []string, error) {
		obj, err := stored(k, object.DeepCopyObject().(api.Object), old)
		return obj, nil, err
	}}
	if k.CreateOnUpdate && t.Subresource == "" {
		w.absent = func() (api.Object, error) { return s.put(u, k, t, object) }
	}
	v, err := s.modify(ctx, u, k, w)
	return s.shown(k, v, err)
}

// put is the new object that an update makes, where its kind allows that.
func (s *Server) put(u api.User, k *api.Kind, t api.Target, object api.Object) (api.Object, error) {
	if err := s.Authorize(u, t, "create"); err != nil {
		return nil, err
	}
	if uid := object.GetUID(); uid != "" {
		return nil, apierr.Conflict(k.KeyResource(), t.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: ", uid))
	}
	obj := object.DeepCopyObject().(api.Object)
	obj.SetResourceVersion("")
	return stored(k, obj, nil)
}

// Patch implements api.Resources.
func (s *Server) Patch(ctx context.Context, u api.User, t api.Target, pt types.PatchType, body []byte, o api.WriteOptions) (api.Value, error) {
	k, err := s.enter(u, t, "patch")
	if err != nil {
		return api.Value{}, err
	}
	if err := checkPatch(o, pt); err != nil {
		return api.Value{}, err
	}
	var repeated []string
	if pt == types.ApplyPatchType {
		if repeated, err = patch.Repeated(body, o.FieldValidation); err != nil {
			return api.Value{}, err
		}
	}
	v, err := s.patch(ctx, u, k, t, pt, body, o)
	v, err = s.shown(k, v, err)
	v.Warnings = append(repeated, v.Warnings...)
	return v, err
}

func (s *Server) patch(ctx context.Context, u api.User, k *api.Kind, t api.Target, pt types.PatchType, body []byte, o api.WriteOptions) (api.Value, error) {
	if t.Subresource == "scale" {
		return s.patchScale(ctx, u, k, t, pt, body, o)
	}
	w := write{target: t, options: o, applied: pt == types.ApplyPatchType, change: func(old api.Object) (api.Object, []string, error) {
		return s.patched(k, old, t, pt, body, o)
	}}
	if pt == types.ApplyPatchType && t.Subresource == "" {
		w.absent = func() (api.Object, error) {
			if err := s.Authorize(u, t, "create"); err != nil {
				return nil, err
			}
			obj, err := s.merge.New(k, t.Namespace, t.Name, body, o)
			if err == nil {
				err = sameName(t, obj)
			}
			if err != nil {
				return nil, err
			}
			return checked(k, obj, nil)
		}
	}
	return s.modify(ctx, u, k, w)
}

// sameName checks that an object which a patch made is the one of the URL.
func sameName(t api.Target, obj api.Object) error {
	if obj.GetName() != t.Name {
		return errNames(obj.GetName(), t.Name)
	}
	if obj.GetNamespace() != t.Namespace {
		return apierr.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// patched makes the object that a patch asks for. A revision that the patch did
// not touch is the current one: a lost race is then tried again here.
func (s *Server) patched(k *api.Kind, old api.Object, t api.Target, pt types.PatchType, body []byte, o api.WriteOptions) (obj api.Object, warnings []string, err error) {
	if pt == types.ApplyPatchType {
		if obj, err = s.merge.Apply(k, old, body, o.FieldManager, t.Subresource, o.Force); err == nil {
			obj, err = checked(k, obj, old)
		}
	} else if obj, warnings, err = s.merge.Patch(k, k.FromStored(old), pt, body, o.FieldValidation); err == nil {
		obj, err = stored(k, obj, old)
	}
	if err != nil {
		return nil, nil, err
	}
	return obj, warnings, sameName(t, obj)
}

// checked is an applied object, which is of the stored kind, after the checks of
// the version in which it was applied.
func checked(k *api.Kind, obj, old api.Object) (api.Object, error) {
	if k.As == nil {
		return obj, nil
	}
	return stored(k, k.FromStored(obj), old)
}

// modify changes an object until nobody was faster. The request speaks of it as
// of the kind spoken; what is read, changed and answered is of the stored kind.
func (s *Server) modify(ctx context.Context, u api.User, spoken *api.Kind, w write) (v api.Value, err error) {
	k := spoken.Stored()
	key := k.Key(w.target.Namespace, w.target.Name)
	err = s.attempt(ctx, func(snap *store.Snapshot) (bool, error) {
		r, ok := snap.Get(key)
		if !ok && w.absent == nil {
			return false, apierr.NotFound(k.KeyResource(), key.Name)
		}
		if !ok {
			obj, err := w.absent()
			if err != nil {
				return false, err
			}
			v, err = s.insert(ctx, u, spoken, obj, w.options, w.applied)
			if errors.Is(err, apierr.ErrAlreadyExists) {
				err = &store.CompareError{Key: key} // somebody else made it: change that
			}
			v.Created = err == nil
			return true, err
		}
		old, err := s.codec.Decode(r)
		if err != nil {
			return false, err
		}
		obj, decoded, err := w.change(old)
		if err != nil {
			return false, err
		}
		var settled bool
		v, settled, err = s.replace(ctx, u, spoken, r, old, obj, snap, w)
		if len(decoded) > 0 {
			v.Warnings = append(decoded, v.Warnings...)
		}
		return settled, err
	})
	if err != nil {
		return api.Value{}, err
	}
	return v, nil
}

// replace writes obj over old, whose record is r.
func (s *Server) replace(ctx context.Context, u api.User, spoken *api.Kind, r *api.Record, old, obj api.Object, snap *store.Snapshot, w write) (api.Value, bool, error) {
	k := spoken.Stored()
	sub, o := w.target.Subresource, w.options
	if err := preconditions(k, r, old, obj, sub); err != nil {
		return api.Value{}, false, err
	}
	keepMeta(obj, old)
	switch {
	case sub == "status" && k.OnStatus != nil:
		k.OnStatus(obj, old)
	case sub == "finalize":
		obj = finalized(obj, old)
	case sub == "" && k.OnUpdate != nil:
		k.OnUpdate(obj, old)
	default:
		if way, ok := k.Subresource(sub); ok && way.OnUpdate != nil {
			way.OnUpdate(obj, old)
		}
	}
	var track func(api.Object) error
	if !w.applied {
		track = func(obj api.Object) error {
			return s.merge.Update(spoken, old, obj, manager(u, o), cmp.Or(w.manages, sub))
		}
	}
	changes, err := s.prepare(u, k, obj, old, sub, snap, track)
	if err != nil {
		return api.Value{}, false, err
	}
	// That a pod is bound is no change of what was asked for.
	if k.SpecOf != nil && sub != "binding" && !equality.Semantic.DeepEqual(k.SpecOf(obj), k.SpecOf(old)) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	if w.applied {
		patch.KeepTimes(old, obj)
	}
	next, err := k.Record(obj)
	if err != nil {
		return api.Value{}, false, err
	}
	warned := warnings(spoken, obj, old, sub)
	if bytes.Equal(next.Full(), r.Full()) && len(changes) == 0 {
		return api.Value{Record: r, Warnings: warned}, false, nil
	}
	if o.DryRun { // nothing is written: the revision stays
		obj.SetResourceVersion(r.ResourceVersion())
	}
	if releasable(obj) {
		v, err := s.remove(ctx, k, obj, next, r, o)
		v.Warnings = warned
		return v, err == nil, err
	}
	changes = append(changes, store.Change{Op: store.Put, If: store.Cond{Revision: r.Revision}, Key: r.Key, Record: next})
	v, err := s.commit(ctx, k, obj, next, changes, o)
	v.Warnings = warned
	return v, err == nil, err
}

// warnings tell what the writer of an object should know of it and of its kind.
func warnings(spoken *api.Kind, obj, old api.Object, sub string) []string {
	var out []string
	if spoken.Deprecated != "" {
		out = []string{spoken.Deprecated}
	}
	if warn := spoken.Stored().Warn; warn != nil && sub == "" {
		out = append(out, warn(obj, old)...)
	}
	return out
}

// preconditions compares the revision and uid that obj names, if any.
func preconditions(k *api.Kind, r *api.Record, old, obj api.Object, sub string) error {
	rv, err := strconv.ParseUint(cmp.Or(obj.GetResourceVersion(), "0"), 10, 64)
	refused := field.NewPath("metadata", "resourceVersion")
	switch {
	case err != nil:
		return apierr.Invalid(k.GVK().GroupKind().String(), obj.GetName(), field.ErrorList{
			field.Invalid(refused, obj.GetResourceVersion(), "must be a decimal number")})
	case rv == 0 && k.NeedsRevision && (sub == "" || sub == "status"):
		return apierr.Invalid(k.GVK().GroupKind().String(), obj.GetName(), field.ErrorList{
			field.Invalid(refused, rv, "must be specified for an update")})
	case rv != 0 && rv != r.Revision:
		return apierr.Conflict(k.KeyResource(), r.Name, nil)
	}
	if uid := obj.GetUID(); uid != "" && uid != old.GetUID() {
		return apierr.Conflict(k.KeyResource(), r.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.GetUID()))
	}
	return nil
}

// keepMeta keeps what only the server may set.
func keepMeta(obj, old api.Object) {
	obj.SetResourceVersion("")
	obj.SetUID(old.GetUID())
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	obj.SetGeneration(old.GetGeneration())
	obj.SetSelfLink("")
	if obj.GetGenerateName() == "" {
		obj.SetGenerateName(old.GetGenerateName())
	}
}

// finalized is old with the finalizers of a namespace's spec as obj has them.
func finalized(obj, old api.Object) api.Object {
	out := old.DeepCopyObject().(api.Object)
	from, ok := obj.(*corev1.Namespace)
	if to, ok2 := out.(*corev1.Namespace); ok && ok2 {
		to.Spec.Finalizers = from.Spec.Finalizers
		to.ResourceVersion = ""
	}
	return out
}
