package patch

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Fields patches objects and keeps metadata.managedFields, the record of who
// set which field. It may be used by many goroutines.
//
// An object is tracked from its creation on, unless it is very wide. One whose managedFields a client
// has emptied is tracked again from the next server-side apply on: what is there
// by then belongs to "before-first-apply".
type Fields struct {
	kinds *api.Kinds
	types func() (managedfields.TypeConverter, error)

	mu       sync.Mutex
	managers map[managerKey]*managedfields.FieldManager
}

type managerKey struct {
	kind        *api.Kind
	subresource string
}

// NewFields makes a Fields for the kinds of a table.
func NewFields(kinds *api.Kinds) *Fields {
	return &Fields{
		kinds:    kinds,
		types:    sync.OnceValues(func() (managedfields.TypeConverter, error) { return loadTypes(kinds) }),
		managers: map[managerKey]*managedfields.FieldManager{},
	}
}

// New gives the object that an apply patch makes where there is none. In this
// and all other methods k is the kind in whose version the patch or the writer
// speaks; objects are of the kind that is stored.
func (f *Fields) New(k *api.Kind, namespace, name string, patch []byte, o api.WriteOptions) (api.Object, error) {
	live := k.Stored().New()
	obj, err := f.Apply(k, live, patch, o.FieldManager, "", o.Force)
	if err != nil {
		return nil, err
	}
	if obj.GetUID() != "" {
		return nil, apierr.Conflict(k.KeyResource(), name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", obj.GetUID()))
	}
	if obj.GetName() == "" {
		obj.SetName(name)
	}
	if k.Namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace(namespace)
	}
	return obj, nil
}

// Apply gives the object after a server-side apply of patch, which is YAML or
// JSON, and records its owner. Live is not changed. A field that another
// manager owns with another value is an error of kind apierr Conflict, unless
// force takes it.
func (f *Fields) Apply(k *api.Kind, live api.Object, patch []byte, manager, subresource string, force bool) (api.Object, error) {
	wanted := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal(patch, &wanted.Object); err != nil {
		return nil, badYAML(err)
	}
	if wanted.Object == nil {
		wanted.Object = map[string]any{}
	}
	if len(patch) > wideFrom && wide(reflect.ValueOf(wanted.Object)) || tooWide(live) {
		return nil, apierr.TooLarge("fields of maps and lists with more than %d entries cannot be applied; create or update the object instead", mostWide)
	}
	fm, err := f.manager(k, subresource)
	if err != nil {
		return nil, err
	}
	before := live.DeepCopyObject().(api.Object)
	before.GetObjectKind().SetGroupVersionKind(k.Stored().GVK())
	out, err := fm.Apply(before, wanted, manager, force)
	if err != nil {
		return nil, applyError(err)
	}
	obj, ok := out.(api.Object)
	if !ok {
		return nil, fmt.Errorf("apply gave a %T instead of a %s", out, k.Kind)
	}
	KeepTimes(live, obj)
	return obj, nil
}

// Update records in obj, which is about to take the place of live (nil for a
// create), what manager changed. It is to be called before admission adds to
// what the manager sent.
func (f *Fields) Update(k *api.Kind, live, obj api.Object, manager, subresource string) error {
	given := obj.GetManagedFields()
	if reset(given) && (subresource == "" || live == nil) {
		obj.SetManagedFields(nil)
		return nil
	}
	if tooWide(obj) || live != nil && tooWide(live) {
		obj.SetManagedFields(nil)
		return nil
	}
	tracked := live == nil || len(given) > 0 || len(live.GetManagedFields()) > 0
	if !tracked {
		return nil
	}
	if live != nil && unchanged(live, obj) {
		return nil
	}
	fm, err := f.manager(k, subresource)
	if err != nil {
		return err
	}
	before := live
	if before == nil {
		before = k.Stored().New()
	}
	if before.GetObjectKind().GroupVersionKind().Empty() {
		before = before.DeepCopyObject().(api.Object)
		before.GetObjectKind().SetGroupVersionKind(k.Stored().GVK())
	}
	obj.GetObjectKind().SetGroupVersionKind(k.Stored().GVK())
	fm.UpdateNoErrors(before, obj, manager)
	if live != nil {
		KeepTimes(live, obj)
	}
	return nil
}

// unchanged reports whether obj is live but for its resourceVersion.
func unchanged(live, obj api.Object) bool {
	if rv := obj.GetResourceVersion(); rv != live.GetResourceVersion() {
		obj.SetResourceVersion(live.GetResourceVersion())
		defer obj.SetResourceVersion(rv)
	}
	return reflect.DeepEqual(live, obj)
}

// reset reports whether managed fields are a client's wish to forget them: an
// empty list, or one empty entry.
func reset(m []metav1.ManagedFieldsEntry) bool {
	return m != nil && len(m) == 0 || len(m) == 1 && reflect.DeepEqual(m[0], metav1.ManagedFieldsEntry{})
}

// KeepTimes gives obj the managed fields of live if they differ in nothing but
// their times and nothing else has changed, so that such a write writes
// nothing. What is applied has changed only if it has after its defaults: lists
// that are replaced as a whole come without them.
func KeepTimes(live, obj api.Object) {
	if rv := obj.GetResourceVersion(); rv != live.GetResourceVersion() {
		obj.SetResourceVersion(live.GetResourceVersion())
		defer obj.SetResourceVersion(rv)
	}
	obj.GetObjectKind().SetGroupVersionKind(live.GetObjectKind().GroupVersionKind())
	was, is := live.GetManagedFields(), obj.GetManagedFields()
	if len(was) != len(is) {
		return
	}
	for i := range is {
		a, b := was[i], is[i]
		a.Time, b.Time = nil, nil
		if !equality.Semantic.DeepEqual(a, b) {
			return
		}
	}
	obj.SetManagedFields(was)
	if !equality.Semantic.DeepEqual(live, obj) {
		obj.SetManagedFields(is)
	}
}

// applyError puts the library's errors into ours. What the schema does not
// know is told without a reason, as Kubernetes does.
func applyError(err error) error {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		return apierr.FromStatus(known.Status())
	}
	return apierr.FromStatus(metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()})
}

// manager gives the library's manager for writes of a kind or a subresource.
func (f *Fields) manager(k *api.Kind, subresource string) (*managedfields.FieldManager, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := managerKey{k, subresource}
	if fm := f.managers[key]; fm != nil {
		return fm, nil
	}
	types, err := f.types()
	if err != nil {
		return nil, err
	}
	m := model{f.kinds}
	gv := k.Stored().GVK().GroupVersion()
	fm, err := managedfields.NewDefaultFieldManager(types, m, m, m, k.GVK(), gv, subresource, notOwned(k, subresource))
	if err != nil {
		return nil, fmt.Errorf("make a field manager for %s: %w", k.Kind, err)
	}
	f.managers[key] = fm
	return fm, nil
}

// notOwned are the fields that a write of a kind or its /status cannot set.
func notOwned(k *api.Kind, subresource string) map[fieldpath.APIVersion]fieldpath.Filter {
	if _, ok := k.Subresource("status"); !ok {
		return nil
	}
	set := fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	if subresource == "status" {
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata"))
	}
	return fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(k.APIVersion()): set})
}
