package api

import (
	"fmt"
	"reflect"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Kind is everything the API knows of one kind of object. It is a literal in
// internal/kinds/<group>; nil functions mean that there is nothing to do.
type Kind struct {
	Group, Version, Kind string
	// Resource is the plural, Singular the singular name in URLs and kubectl.
	Resource, Singular     string
	ShortNames, Categories []string
	Namespaced             bool
	// Virtual kinds are not stored: apiserver.Virtual makes their objects when
	// they are asked for. Only the verbs create, get and list make sense.
	Virtual bool
	// As is set where objects of this kind are stored as another; see
	// Conversion.
	As *Conversion
	// Verbs in Kubernetes' order: create delete deletecollection get list
	// patch update watch.
	Verbs        []string
	Subresources []Subresource

	// New gives an empty object.
	New func() Object
	// Default fills in what the user left out; it must be idempotent, so
	// that a second apply changes nothing.
	Default func(obj Object)
	// OnDecode sets what an object's bytes do not carry: apiVersion and kind of
	// objects inside it.
	OnDecode func(obj Object)
	// OnCreate sets what only the server may set (initial status, phase) and
	// clears what the user may not set on create.
	OnCreate func(obj Object)
	// OnUpdate keeps of old what a write of the main resource may not change
	// (the status, where /status exists).
	OnUpdate func(obj, old Object)
	// OnStatus keeps of old what a write of /status may not change (all but
	// the status). Nil where there is no /status.
	OnStatus func(obj, old Object)
	// SpecOf gives the part whose change raises metadata.generation; nil for
	// kinds without generation.
	SpecOf func(obj Object) any
	// Validate checks a defaulted object on create and update.
	Validate func(obj Object) field.ErrorList
	// ValidateCreate checks what holds for new objects only; Validate runs as
	// well.
	ValidateCreate func(obj Object) field.ErrorList
	// ValidateUpdate checks what may not change; Validate runs as well.
	ValidateUpdate func(obj, old Object) field.ErrorList
	// ValidateStatus checks a write of /status.
	ValidateStatus func(obj, old Object) field.ErrorList

	// ValidName is the rule for metadata.name; nil is a DNS-1123 subdomain.
	ValidName func(name string, prefix bool) []string

	// Columns and Cells make the Table rows of kubectl get.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj Object, now time.Time) ([]any, []metav1.TableRowCondition)

	// FieldNames are the field selectors besides metadata.name and
	// metadata.namespace; Fields gives their values.
	FieldNames []string
	Fields     func(obj Object) map[string]string

	// Scale serves /scale; nil where there is none.
	Scale *Scale
	// Grace gives the seconds of grace of a delete with the options given:
	// 0 means gone at once. Nil means always 0. Only pods have grace.
	Grace func(obj Object, asked *int64) int64
	// DeleteAnswersObject reports that a completed DELETE answers with the
	// object and not with a Status.
	DeleteAnswersObject bool
	// DeleteOrphans reports that a DELETE without policy orphans.
	DeleteOrphans bool
	// NeedsRevision reports that an update of the object or its status must name
	// a resourceVersion.
	NeedsRevision bool
	// CreateOnUpdate reports that an update makes the object if there is none.
	CreateOnUpdate bool
	// Deprecated is what every answer about this kind warns of.
	Deprecated string
	// Warn gives what the writer of an object should know of it; old is nil for
	// a new one. It is asked after all checks, and not for subresources. That
	// there is nothing to warn of must cost next to nothing.
	Warn func(obj, old Object) []string

	// Set by NewKinds, since they are asked for with every request.
	key, message string
	// size is that of the Go struct.
	size int
	// shape is for kinds whose messages can be nested without end.
	shape *shape
	// stored is nil where the kind itself is stored.
	stored *Kind
}

// Subresource is a path below an object.
type Subresource struct {
	Name string
	// GVK of the body; empty parts are the parent's.
	Group, Version, Kind string
	Verbs                []string
	// New gives an empty body where that is not the parent's kind; nil
	// otherwise, and where the body is a stream.
	New func() runtime.Object
	// OnUpdate keeps of old what a write of the subresource may not change,
	// where its body is the parent's kind and it is none of status, scale and
	// finalize. ValidateUpdate checks such a write instead of the kind's own;
	// the kind's Validate runs as well.
	OnUpdate       func(obj, old Object)
	ValidateUpdate func(obj, old Object) field.ErrorList
}

// Scale reads and writes the scale of an object.
type Scale struct {
	// Get gives replicas wanted and seen, and the label selector as text.
	Get func(obj Object) (autoscalingv1.ScaleSpec, autoscalingv1.ScaleStatus)
	// Set writes the replicas wanted into obj.
	Set func(obj Object, replicas int32)
}

// GVK is the kind's name in bodies.
func (k *Kind) GVK() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}
}

// GroupResource is the kind's name in keys and errors.
func (k *Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}

// KeyResource is Key.Resource for this kind. Records of a kind that is stored
// as another have a name of their own and are in no store.
func (k *Kind) KeyResource() string {
	if k.key != "" {
		return k.key
	}
	return k.GroupResource().String()
}

// messageName is the name of the kind's protobuf message.
func (k *Kind) messageName() string {
	if k.message != "" {
		return k.message
	}
	return MessageName(k.New())
}

// APIVersion is "v1" or "apps/v1".
func (k *Kind) APIVersion() string {
	return schema.GroupVersion{Group: k.Group, Version: k.Version}.String()
}

// Key names an object of this kind.
func (k *Kind) Key(namespace, name string) Key {
	return Key{Resource: k.KeyResource(), Namespace: namespace, Name: name}
}

// Subresource finds a subresource by name.
func (k *Kind) Subresource(name string) (Subresource, bool) {
	for _, s := range k.Subresources {
		if s.Name == name {
			return s, true
		}
	}
	return Subresource{}, false
}

// Index computes the record index of an object.
func (k *Kind) Index(obj Object) Index {
	ix := Index{Labels: obj.GetLabels(), Deleting: obj.GetDeletionTimestamp() != nil}
	for _, o := range obj.GetOwnerReferences() {
		ix.Owners = append(ix.Owners, string(o.UID))
	}
	if k.Fields != nil {
		ix.Fields = k.Fields(obj)
	}
	return ix
}

// Record makes the record of an object: bytes without resourceVersion, and
// index. The object is not changed.
func (k *Kind) Record(obj Object) (*Record, error) {
	if rv := obj.GetResourceVersion(); rv != "" {
		obj.SetResourceVersion("")
		defer obj.SetResourceVersion(rv)
	}
	b, err := obj.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %s %s/%s: %w", k.Kind, obj.GetNamespace(), obj.GetName(), err)
	}
	return &Record{
		Key:   k.Key(obj.GetNamespace(), obj.GetName()),
		UID:   string(obj.GetUID()),
		Bytes: b,
		Index: k.Index(obj),
	}, nil
}

// Kinds is the table of all kinds that are served. It does not change.
type Kinds struct {
	all        []*Kind
	stored     []*Kind
	byResource map[schema.GroupVersionResource]*Kind
	byGroup    map[schema.GroupResource]*Kind
	byKey      map[string]*Kind
	byGVK      map[schema.GroupVersionKind]*Kind
	byType     map[reflect.Type]*Kind
	byMessage  map[string]*Kind
}

// NewKinds makes a table, to which the kinds belong from then on; two kinds of
// one name are an error of the program and panic.
func NewKinds(all ...*Kind) *Kinds {
	t := &Kinds{
		all:        all,
		byResource: map[schema.GroupVersionResource]*Kind{},
		byGroup:    map[schema.GroupResource]*Kind{},
		byKey:      map[string]*Kind{},
		byGVK:      map[schema.GroupVersionKind]*Kind{},
		byType:     map[reflect.Type]*Kind{},
		byMessage:  map[string]*Kind{},
	}
	shapes := nesting{}
	for _, k := range all {
		gvr := schema.GroupVersionResource{Group: k.Group, Version: k.Version, Resource: k.Resource}
		if t.byResource[gvr] != nil || t.byGVK[k.GVK()] != nil {
			panic("kind registered twice: " + gvr.String())
		}
		k.key, k.message = k.GroupResource().String(), MessageName(k.New())
		if k.As != nil {
			k.key += "/" + k.Version
		} else if !k.Virtual {
			t.stored = append(t.stored, k)
		}
		if t.byGroup[k.GroupResource()] == nil {
			t.byGroup[k.GroupResource()] = k
		}
		k.shape = shapes.endless(k.New())
		k.size = int(reflect.TypeOf(k.New()).Elem().Size())
		t.byMessage[k.message] = k
		t.byResource[gvr] = k
		t.byGVK[k.GVK()] = k
		t.byKey[k.KeyResource()] = k
		t.byType[reflect.TypeOf(k.New())] = k
	}
	for _, k := range all {
		if k.As != nil {
			t.join(k)
		}
	}
	return t
}

// join finds the stored kind of k.
func (t *Kinds) join(k *Kind) {
	for _, s := range t.stored {
		if s.GVK().GroupKind() == k.As.Of {
			k.stored = s
		}
	}
	if k.stored == nil {
		panic(k.GVK().String() + " is stored as a kind that is not in the table")
	}
	if k.Columns == nil && k.stored.Columns != nil {
		k.Columns = k.stored.Columns
		k.Cells = func(obj Object, now time.Time) ([]any, []metav1.TableRowCondition) {
			return k.stored.Cells(k.ToStored(obj), now)
		}
	}
}

// All lists the kinds in the table's order.
func (t *Kinds) All() []*Kind { return t.all }

// Stored lists the kinds that have objects in the store, each once: not the
// virtual ones, and not the other versions of a kind.
func (t *Kinds) Stored() []*Kind { return t.stored }

// Versions lists the kinds that are stored as k, k first.
func (t *Kinds) Versions(k *Kind) []*Kind {
	out := []*Kind{k.Stored()}
	for _, v := range t.all {
		if v.stored == k.Stored() {
			out = append(out, v)
		}
	}
	return out
}

// Resource finds a kind by URL; an empty version is the first one served.
func (t *Kinds) Resource(group, version, resource string) (*Kind, bool) {
	if version == "" {
		k, ok := t.byGroup[schema.GroupResource{Group: group, Resource: resource}]
		return k, ok
	}
	k, ok := t.byResource[schema.GroupVersionResource{Group: group, Version: version, Resource: resource}]
	return k, ok
}

// ByKey finds a kind by Key.Resource.
func (t *Kinds) ByKey(resource string) (*Kind, bool) {
	k, ok := t.byKey[resource]
	return k, ok
}

// ByGVK finds a kind by the apiVersion and kind of a body.
func (t *Kinds) ByGVK(gvk schema.GroupVersionKind) (*Kind, bool) {
	k, ok := t.byGVK[gvk]
	return k, ok
}

// Of finds the kind of an object by its Go type.
func (t *Kinds) Of(obj Object) (*Kind, bool) {
	k, ok := t.byType[reflect.TypeOf(obj)]
	return k, ok
}
