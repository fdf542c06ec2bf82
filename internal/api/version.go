package api

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Conversion makes a kind another version, or the same kind in another group,
// of one that is stored. Such a kind has no rules of its own but those that its
// version alone demands: on a write its Validate and ValidateUpdate see the
// object as the client sent it, then the object is converted and the stored
// kind's defaults, admission and validation follow. Its Default, OnCreate,
// OnUpdate, OnStatus, SpecOf, Grace and Fields are nil. Without Columns it has
// those of the stored kind.
type Conversion struct {
	// Of names the stored kind, which is in the same table and has As nil.
	Of schema.GroupKind
	// ToStored and FromStored give an object in the other version. They keep
	// all that it says, and do not change the one they are given; parts of it
	// may be shared. TypeMeta is set by the caller.
	ToStored, FromStored func(obj Object) Object
	// Labels gives the stored kind's name of each of FieldNames.
	Labels map[string]string
}

// Converts makes a Conversion of functions for Go types, without Labels.
func Converts[V, S Object](of schema.GroupKind, to func(V) S, from func(S) V) *Conversion {
	return &Conversion{
		Of:         of,
		ToStored:   func(obj Object) Object { return to(obj.(V)) },
		FromStored: func(obj Object) Object { return from(obj.(S)) },
	}
}

// Stored is the kind in which objects of this one are stored: itself unless As
// is set.
func (k *Kind) Stored() *Kind {
	if k.stored != nil {
		return k.stored
	}
	return k
}

// ToStored gives an object of this kind as one of the stored kind. It may share
// parts with obj.
func (k *Kind) ToStored(obj Object) Object {
	if k.As == nil {
		return obj
	}
	out := k.As.ToStored(obj)
	out.GetObjectKind().SetGroupVersionKind(k.Stored().GVK())
	return out
}

// FromStored gives an object of the stored kind as one of this kind. It may
// share parts with obj.
func (k *Kind) FromStored(obj Object) Object {
	if k.As == nil {
		return obj
	}
	out := k.As.FromStored(obj)
	out.GetObjectKind().SetGroupVersionKind(k.GVK())
	return out
}

// View gives a stored record as one of kind k, which is a version of the
// record's kind. Its key names k, so that it decodes as such; it is in no store.
func (c *Codec) View(k *Kind, r *Record) (*Record, error) {
	if err := r.Readable(); err != nil {
		return nil, err
	}
	if k.As == nil {
		return r, nil
	}
	obj, err := c.Decode(r)
	if err != nil {
		return nil, err
	}
	shown := k.FromStored(obj)
	shown.SetResourceVersion("") // it is never the shared object itself
	b, err := shown.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %s as %s: %w", r.Key, k.GVK(), err)
	}
	out := &Record{Key: k.Key(r.Namespace, r.Name), UID: r.UID, Revision: r.Revision, Bytes: b, Index: r.Index}
	return out, nil
}
