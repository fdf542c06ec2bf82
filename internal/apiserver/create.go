package apiserver

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/admission"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// Create implements api.Resources. obj becomes the server's.
func (s *Server) Create(ctx context.Context, u api.User, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	k, err := s.enter(u, t, "create")
	if err != nil {
		return api.Value{}, err
	}
	if t.Subresource != "" {
		return s.post(ctx, u, k, t, obj, o)
	}
	object, err := typed(k, obj)
	if err != nil {
		return api.Value{}, err
	}
	if err := placeIn(k, t, object); err != nil {
		return api.Value{}, err
	}
	if t.Name != "" && object.GetName() != "" && t.Name != object.GetName() {
		return api.Value{}, errNames(object.GetName(), t.Name)
	}
	if object.GetResourceVersion() != "" {
		return api.Value{}, apierr.BadRequest("resourceVersion should not be set on objects to be created")
	}
	return s.insert(ctx, u, k, object, o, false)
}

// insert stores a new object. An applied one has its managed fields already.
func (s *Server) insert(ctx context.Context, u api.User, k *api.Kind, given api.Object, o api.WriteOptions, applied bool) (v api.Value, err error) {
	err = s.attempt(ctx, func(snap *store.Snapshot) (bool, error) {
		obj := given.DeepCopyObject().(api.Object)
		s.freshMeta(k, obj)
		changes, err := s.prepare(u, k, obj, nil, "", snap)
		if err != nil {
			return false, err
		}
		if _, there := snap.Get(k.Key(obj.GetNamespace(), obj.GetName())); there {
			if given.GetName() == "" {
				return false, &store.CompareError{Key: k.Key(obj.GetNamespace(), obj.GetName())} // draw another suffix
			}
			return false, apierr.AlreadyExists(k.KeyResource(), obj.GetName())
		}
		if !applied {
			err = s.merge.Update(k, nil, obj, manager(u, o), "")
		}
		if err != nil {
			return false, err
		}
		r, err := k.Record(obj)
		if err != nil {
			return false, err
		}
		changes = append(changes, store.Change{Op: store.Put, If: store.Cond{Absent: true}, Key: r.Key, Record: r})
		if k.Namespaced {
			changes = append(changes, store.Change{Op: store.Check, Key: api.Key{Resource: "namespaces", Name: obj.GetNamespace()}})
		}
		v, err = s.commit(ctx, k, obj, r, changes, o)
		return err == nil, err
	})
	return v, err
}

// typed checks that a body is of the kind that the path names.
func typed(k *api.Kind, obj runtime.Object) (api.Object, error) {
	object, ok := obj.(api.Object)
	if !ok || fmt.Sprintf("%T", object) != fmt.Sprintf("%T", k.New()) {
		return nil, apierr.BadRequest("the object provided is unrecognized (must be of type %s)", k.Kind)
	}
	return object, nil
}

func errNames(body, url string) error {
	return apierr.BadRequest("the name of the object (%s) does not match the name on the URL (%s)", body, url)
}

// placeIn gives an object the namespace of the request.
func placeIn(k *api.Kind, t api.Target, obj api.Object) error {
	if !k.Namespaced {
		obj.SetNamespace("")
		return nil
	}
	if t.Namespace == "" {
		return apierr.BadRequest("an empty namespace may not be set during creation")
	}
	if ns := obj.GetNamespace(); ns != "" && ns != t.Namespace {
		return apierr.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	obj.SetNamespace(t.Namespace)
	return nil
}

// freshMeta sets what the server alone sets on a new object.
func (s *Server) freshMeta(k *api.Kind, obj api.Object) {
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(s.timestamp())
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	obj.SetGeneration(0)
	if k.SpecOf != nil {
		obj.SetGeneration(1)
	}
	if prefix := obj.GetGenerateName(); obj.GetName() == "" && prefix != "" {
		obj.SetName(prefix[:min(len(prefix), 58)] + rand.String(5))
	}
}

// prepare defaults, admits, allocates and validates obj; it gives the changes
// that must be made together with it.
func (s *Server) prepare(u api.User, k *api.Kind, obj, old api.Object, sub string, snap *store.Snapshot) ([]store.Change, error) {
	op := admission.Update
	if old == nil {
		op = admission.Create
		if k.OnCreate != nil {
			k.OnCreate(obj)
		}
	}
	if k.Default != nil {
		k.Default(obj)
	}
	if err := s.admit.Admit(&admission.Request{User: u, Kind: k, Operation: op, Subresource: sub, Object: obj, Old: old, Snapshot: snap}); err != nil {
		return nil, err
	}
	errs := s.validate(k, obj, old, sub)
	var changes []store.Change
	if len(errs) == 0 && sub == "" {
		var more field.ErrorList
		changes, more = s.allocate(snap, obj, old)
		errs = append(errs, more...)
	}
	if len(errs) > 0 {
		return nil, apierr.Invalid(k.GVK().GroupKind().String(), obj.GetName(), errs)
	}
	return changes, nil
}

// manager is who is named in managedFields.
func manager(u api.User, o api.WriteOptions) string {
	if o.FieldManager != "" {
		return o.FieldManager
	}
	return u.Name
}

func (s *Server) validate(k *api.Kind, obj, old api.Object, sub string) field.ErrorList {
	errs := api.ValidateMeta(k, obj)
	if old != nil {
		errs = append(errs, api.ValidateMetaUpdate(obj, old)...)
	}
	switch sub {
	case "status":
		if k.ValidateStatus != nil {
			errs = append(errs, k.ValidateStatus(obj, old)...)
		}
		return errs
	case "binding", "finalize": // they change one thing, which was checked
		return errs
	}
	if k.Validate != nil {
		errs = append(errs, k.Validate(obj)...)
	}
	if old != nil && k.ValidateUpdate != nil {
		errs = append(errs, k.ValidateUpdate(obj, old)...)
	}
	return errs
}

func (s *Server) allocate(snap *store.Snapshot, obj, old api.Object) ([]store.Change, field.ErrorList) {
	switch o := obj.(type) {
	case *corev1.Service:
		before, _ := old.(*corev1.Service)
		return s.alloc.Service(snap, o, before)
	case *corev1.Node:
		if old == nil {
			return s.alloc.Node(snap, o)
		}
	}
	return nil, nil
}

// commit makes the changes, unless this is a dry run, and gives the object as
// it is now.
func (s *Server) commit(ctx context.Context, k *api.Kind, obj api.Object, r *api.Record, changes []store.Change, o api.WriteOptions) (api.Value, error) {
	obj.GetObjectKind().SetGroupVersionKind(k.GVK())
	if o.DryRun {
		return api.Value{Object: obj}, nil
	}
	revision, err := s.store.Commit(ctx, store.Command{Changes: changes})
	if err != nil {
		return api.Value{}, lostNamespace(err)
	}
	stored := *r
	stored.Revision = revision
	return api.Value{Record: &stored}, nil
}

// lostNamespace names the namespace that went away under a create.
func lostNamespace(err error) error {
	var lost *store.CompareError
	if errors.As(err, &lost) && lost.Key.Resource == "namespaces" && lost.Current == 0 {
		return apierr.NotFound("namespaces", lost.Key.Name)
	}
	return err
}

// post serves the subresources that are created: bindings.
func (s *Server) post(ctx context.Context, u api.User, k *api.Kind, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	binding, ok := obj.(*corev1.Binding)
	if !ok || t.Subresource != "binding" {
		return api.Value{}, apierr.BadRequest("%s/%s cannot be created with a %T", k.Resource, t.Subresource, obj)
	}
	if binding.Target.Kind != "" && binding.Target.Kind != "Node" || binding.Target.Name == "" {
		return api.Value{}, apierr.Invalid("Binding", t.Name, field.ErrorList{field.NotSupported(field.NewPath("target", "kind"), binding.Target.Kind, []string{"Node", "<empty>"})})
	}
	return s.modify(ctx, u, k, write{target: t, options: o, change: func(old api.Object) (api.Object, []string, error) {
		pod := old.DeepCopyObject().(*corev1.Pod)
		switch {
		case binding.UID != "" && binding.UID != pod.UID:
			return nil, nil, apierr.Conflict("pods/binding", pod.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", binding.UID, pod.UID))
		case pod.DeletionTimestamp != nil:
			return nil, nil, apierr.Conflict("pods/binding", pod.Name, fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name))
		case pod.Spec.NodeName != "":
			return nil, nil, apierr.Conflict("pods/binding", pod.Name, fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName))
		case len(pod.Spec.SchedulingGates) > 0:
			return nil, nil, apierr.Conflict("pods/binding", pod.Name, fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name))
		}
		pod.Spec.NodeName = binding.Target.Name
		for key, v := range binding.Annotations {
			if pod.Annotations == nil {
				pod.Annotations = map[string]string{}
			}
			pod.Annotations[key] = v
		}
		setScheduled(pod, s.timestamp())
		return pod, nil, nil
	}})
}
