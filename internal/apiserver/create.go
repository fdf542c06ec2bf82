package apiserver

import (
	"context"
	"errors"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/admission"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/store"
)

// maxNames bounds how many names are drawn for one object.
const maxNames = 8

// Create implements api.Resources. obj becomes the server's.
func (s *Server) Create(ctx context.Context, u api.User, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	k, err := s.enter(u, t, "create")
	if err != nil {
		return api.Value{}, err
	}
	if err := checkCreate(o); err != nil {
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
	if k.Virtual {
		v, err := s.createVirtual(ctx, u, k, t, object, o)
		if _, ok := object.(*corev1.Binding); ok && err == nil {
			v.Object = created()
		}
		return v, err
	}
	if object, err = stored(k, object, nil); err != nil {
		return api.Value{}, err
	}
	v, err := s.insert(ctx, u, k, object, o, false)
	return s.shown(k, v, err)
}

// insert stores a new object, which is of the stored kind of spoken. An applied
// one has its managed fields already.
func (s *Server) insert(ctx context.Context, u api.User, spoken *api.Kind, given api.Object, o api.WriteOptions, applied bool) (v api.Value, err error) {
	k := spoken.Stored()
	names := 0
	taken := func(key api.Key) error {
		if names++; names >= maxNames {
			return apierr.NameTaken(k.KeyResource(), key.Name)
		}
		return &store.CompareError{Key: key} // draw another one
	}
	err = s.attempt(ctx, func(snap *store.Snapshot) (bool, error) {
		obj := given.DeepCopyObject().(api.Object)
		s.freshMeta(k, obj)
		var track func(api.Object) error
		if !applied {
			track = func(obj api.Object) error { return s.merge.Update(spoken, nil, obj, manager(u, o), "") }
		}
		changes, err := s.prepare(u, k, obj, nil, "", snap, track)
		if err != nil {
			return false, err
		}
		key := k.Key(obj.GetNamespace(), obj.GetName())
		if _, there := snap.Get(key); there && given.GetName() != "" {
			return false, apierr.AlreadyExists(k.KeyResource(), obj.GetName())
		} else if there {
			return false, taken(key)
		}
		r, err := k.Record(obj)
		if err != nil {
			return false, err
		}
		changes = append(changes, store.Change{Op: store.Put, If: store.Cond{Absent: true}, Key: r.Key, Record: r})
		if k.Namespaced {
			changes = append(changes, sameNamespace(snap, obj.GetNamespace()))
		}
		if v, err = s.commit(ctx, k, obj, r, changes, o); err == nil {
			v.Warnings = warnings(spoken, obj, nil, "")
		}
		if lost := (*store.CompareError)(nil); given.GetName() == "" && errors.As(err, &lost) && lost.Key == key {
			return true, taken(key)
		}
		return err == nil, err
	})
	return v, err
}

// sameNamespace is the condition that a namespace is as admission saw it: not
// gone, and its deletion has not begun. Who empties it after that misses nothing.
func sameNamespace(snap *store.Snapshot, name string) store.Change {
	c := store.Change{Op: store.Check, Key: api.Key{Resource: "namespaces", Name: name}}
	if r, ok := snap.Get(c.Key); ok {
		c.If.Revision = r.Revision
	}
	return c
}

// typed checks that a body is of the kind that the path names.
func typed(k *api.Kind, obj runtime.Object) (api.Object, error) {
	if object, ok := obj.(api.Object); ok && reflect.TypeOf(object) == reflect.TypeOf(k.New()) {
		return object, nil
	}
	return nil, errBody(obj, k.GVK())
}

// errBody says that a body is not of the kind it should be.
func errBody(obj runtime.Object, want schema.GroupVersionKind) error {
	if obj != nil {
		if err := api.SameKind(obj.GetObjectKind().GroupVersionKind(), want); err != nil {
			return err
		}
	}
	return apierr.BadRequest("the object provided is unrecognized (must be of type %s)", want.Kind)
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
// that must be made together with it. Track, if there is one, records who set
// which field: after the defaults, as in Kubernetes, and before the server and
// admission add what nobody asked for, or a manager would own that too and
// server-side apply would take it away again.
func (s *Server) prepare(u api.User, k *api.Kind, obj, old api.Object, sub string, snap *store.Snapshot, track func(api.Object) error) ([]store.Change, error) {
	op := admission.Update
	if k.Default != nil {
		k.Default(obj)
	}
	if track != nil {
		if err := track(obj); err != nil {
			return nil, err
		}
	}
	if old == nil {
		op = admission.Create
		if k.OnCreate != nil {
			k.OnCreate(obj)
			if k.Default != nil {
				k.Default(obj)
			}
		}
	}
	also := func(t api.Target, verb string) error { return s.Authorize(u, t, verb) }
	err := s.admit.Admit(&admission.Request{User: u, Node: nodeOf(u), Kind: k, Operation: op, Subresource: sub, Object: obj, Old: old, Snapshot: snap, Authorize: also})
	if err != nil {
		return nil, err
	}
	if k.Group == authz.Group {
		if err := s.authz.MayGrant(u, obj, old); err != nil {
			return nil, err
		}
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

// nodeOf is the node that a user is, if it is one.
func nodeOf(u api.User) string {
	if name, ok := authz.NodeName(u); ok {
		return name
	}
	return ""
}

// manager is who is named in managedFields: Wherry's own parts by the names
// that they have in Kubernetes.
func manager(u api.User, o api.WriteOptions) string {
	switch {
	case o.FieldManager != "":
		return o.FieldManager
	case nodeOf(u) != "":
		return "kubelet"
	case u.Name == "system:kube-scheduler":
		return "kube-scheduler"
	case strings.HasPrefix(u.Name, "system:serviceaccount:kube-system:") && strings.HasSuffix(u.Name, "-controller"):
		return "kube-controller-manager"
	}
	return strings.ToValidUTF8(u.Name[:min(len(u.Name), metavalidation.FieldManagerMaxLength)], "")
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
	case "binding": // it changes one thing, which was checked
		return errs
	}
	if k.Validate != nil {
		errs = append(errs, k.Validate(obj)...)
	}
	if old == nil && k.ValidateCreate != nil {
		errs = append(errs, k.ValidateCreate(obj)...)
	}
	way, _ := k.Subresource(sub)
	switch {
	case old != nil && way.ValidateUpdate != nil:
		errs = append(errs, way.ValidateUpdate(obj, old)...)
	case old != nil && k.ValidateUpdate != nil:
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
		return api.Value{}, err
	}
	stored := *r
	stored.Revision = revision
	return api.Value{Record: &stored}, nil
}
