package apiserver

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// write is one change of an existing object, made anew on each try.
type write struct {
	target  api.Target
	options api.WriteOptions
	// change makes the new object from the current one, which is shared. A
	// resourceVersion or uid that it leaves in the result must be current.
	change func(old api.Object) (api.Object, []string, error)
	// applied says that change records the managed fields itself.
	applied bool
	// absent makes the object if there is none; nil answers 404.
	absent func() (api.Object, error)
}

// Update implements api.Resources.
func (s *Server) Update(ctx context.Context, u api.User, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	k, err := s.enter(u, t, "update")
	if err != nil {
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
	if k.NeedsRevision && object.GetResourceVersion() == "" && t.Subresource == "" {
		return api.Value{}, apierr.Invalid(k.GVK().GroupKind().String(), t.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "resourceVersion"), "", "must be specified for an update")})
	}
	return s.modify(ctx, u, k, write{target: t, options: o, change: func(api.Object) (api.Object, []string, error) {
		return object.DeepCopyObject().(api.Object), nil, nil
	}})
}

// Patch implements api.Resources.
func (s *Server) Patch(ctx context.Context, u api.User, t api.Target, pt types.PatchType, body []byte, o api.WriteOptions) (api.Value, error) {
	k, err := s.enter(u, t, "patch")
	if err != nil {
		return api.Value{}, err
	}
	if t.Subresource == "scale" {
		return s.patchScale(ctx, u, k, t, pt, body, o)
	}
	w := write{target: t, options: o, applied: pt == types.ApplyPatchType, change: func(old api.Object) (api.Object, []string, error) {
		return s.patched(k, old, t, pt, body, o)
	}}
	if pt == types.ApplyPatchType {
		if o.FieldManager == "" {
			return api.Value{}, apierr.BadRequest("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
		}
		if t.Subresource == "" {
			if err := s.Authorize(u, t, "create"); err == nil {
				w.absent = func() (api.Object, error) { return s.merge.New(k, t.Namespace, t.Name, body, o) }
			}
		}
	}
	return s.modify(ctx, u, k, w)
}

// patched makes the object that a patch asks for.
func (s *Server) patched(k *api.Kind, old api.Object, t api.Target, pt types.PatchType, body []byte, o api.WriteOptions) (api.Object, []string, error) {
	if pt == types.ApplyPatchType {
		obj, err := s.merge.Apply(k, old, body, o.FieldManager, t.Subresource, o.Force)
		return obj, nil, err
	}
	obj, warnings, err := s.merge.Patch(k, old, pt, body, o.FieldValidation)
	if err != nil {
		return nil, nil, err
	}
	if obj.GetName() != t.Name {
		return nil, nil, errNames(obj.GetName(), t.Name)
	}
	if obj.GetNamespace() != old.GetNamespace() {
		return nil, nil, apierr.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	// A revision that the patch did not touch is the current one: a lost race
	// is then tried again here.
	return obj, warnings, nil
}

// modify changes an object until nobody was faster.
func (s *Server) modify(ctx context.Context, u api.User, k *api.Kind, w write) (v api.Value, err error) {
	t := w.target
	err = s.attempt(ctx, func(snap *store.Snapshot) (bool, error) {
		r, ok := snap.Get(k.Key(t.Namespace, t.Name))
		if !ok {
			if w.absent == nil {
				return false, apierr.NotFound(k.KeyResource(), t.Name)
			}
			obj, err := w.absent()
			if err != nil {
				return false, err
			}
			v, err = s.insert(ctx, u, k, obj, w.options, true)
			v.Created = true
			return true, err
		}
		old, err := s.codec.Decode(r)
		if err != nil {
			return false, err
		}
		obj, warnings, err := w.change(old)
		if err != nil {
			return false, err
		}
		var settled bool
		v, settled, err = s.replace(ctx, u, k, r, old, obj, snap, w)
		v.Warnings = append(v.Warnings, warnings...)
		return settled, err
	})
	return v, err
}

// replace writes obj over old, whose record is r.
func (s *Server) replace(ctx context.Context, u api.User, k *api.Kind, r *api.Record, old, obj api.Object, snap *store.Snapshot, w write) (api.Value, bool, error) {
	sub, o := w.target.Subresource, w.options
	if err := preconditions(k, r, old, obj); err != nil {
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
	}
	changes, err := s.prepare(u, k, obj, old, sub, snap)
	if err != nil {
		return api.Value{}, false, err
	}
	if !w.applied {
		if err := s.merge.Update(k, old, obj, manager(u, o), sub); err != nil {
			return api.Value{}, false, err
		}
	}
	if k.SpecOf != nil && !equality.Semantic.DeepEqual(k.SpecOf(obj), k.SpecOf(old)) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	next, err := k.Record(obj)
	if err != nil {
		return api.Value{}, false, err
	}
	if bytes.Equal(next.Bytes, r.Bytes) && len(changes) == 0 {
		return api.Value{Record: r}, false, nil
	}
	if releasable(obj) {
		v, err := s.remove(ctx, k, obj, next, r, o)
		return v, err == nil, err
	}
	changes = append(changes, store.Change{Op: store.Put, If: store.Cond{Revision: r.Revision}, Key: r.Key, Record: next})
	if o.DryRun { // nothing is written: the revision stays
		obj.SetResourceVersion(r.ResourceVersion())
	}
	v, err := s.commit(ctx, k, obj, next, changes, o)
	return v, err == nil, err
}

// preconditions compares the revision and uid that obj names, if any.
func preconditions(k *api.Kind, r *api.Record, old, obj api.Object) error {
	if rv := obj.GetResourceVersion(); rv != "" && rv != r.ResourceVersion() {
		if _, err := strconv.ParseUint(rv, 10, 64); err != nil {
			return apierr.Invalid(k.GVK().GroupKind().String(), obj.GetName(), field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), rv, "must be a decimal number")})
		}
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

// scaleOf is the /scale of an object.
func scaleOf(k *api.Kind, obj api.Object) *autoscalingv1.Scale {
	spec, status := k.Scale.Get(obj)
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec: spec, Status: status,
	}
}

func (s *Server) updateScale(ctx context.Context, u api.User, k *api.Kind, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	scale, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return api.Value{}, apierr.BadRequest("the object provided is unrecognized (must be of type Scale)")
	}
	if scale.Name != "" && scale.Name != t.Name {
		return api.Value{}, errNames(scale.Name, t.Name)
	}
	return s.rescale(ctx, u, k, t, o, func(*autoscalingv1.Scale) (*autoscalingv1.Scale, []string, error) { return scale, nil, nil })
}

func (s *Server) patchScale(ctx context.Context, u api.User, k *api.Kind, t api.Target, pt types.PatchType, body []byte, o api.WriteOptions) (api.Value, error) {
	return s.rescale(ctx, u, k, t, o, func(old *autoscalingv1.Scale) (*autoscalingv1.Scale, []string, error) {
		return s.merge.PatchScale(old, pt, body, o.FieldValidation)
	})
}

// rescale changes spec.replicas through a Scale.
func (s *Server) rescale(ctx context.Context, u api.User, k *api.Kind, t api.Target, o api.WriteOptions, change func(*autoscalingv1.Scale) (*autoscalingv1.Scale, []string, error)) (api.Value, error) {
	parent := t
	parent.Subresource = ""
	v, err := s.modify(ctx, u, k, write{target: parent, options: o, change: func(old api.Object) (api.Object, []string, error) {
		scale, warnings, err := change(scaleOf(k, old))
		if err != nil {
			return nil, nil, err
		}
		if scale.Spec.Replicas < 0 {
			return nil, nil, apierr.Invalid("Scale.autoscaling", t.Name, field.ErrorList{
				field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas, "must be greater than or equal to 0")})
		}
		obj := old.DeepCopyObject().(api.Object)
		obj.SetResourceVersion(scale.ResourceVersion)
		if scale.UID != "" {
			obj.SetUID(scale.UID)
		}
		k.Scale.Set(obj, scale.Spec.Replicas)
		return obj, warnings, nil
	}})
	if err != nil {
		return v, err
	}
	obj, ok := v.Object.(api.Object)
	if !ok {
		if obj, err = s.codec.Decode(v.Record); err != nil {
			return v, err
		}
	}
	return api.Value{Object: scaleOf(k, obj), Warnings: v.Warnings}, nil
}

// setScheduled writes the condition that a binding fulfils.
func setScheduled(pod *corev1.Pod, now metav1.Time) {
	want := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}
	for i, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			pod.Status.Conditions[i] = want
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, want)
}
