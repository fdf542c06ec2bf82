package api

import (
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const typePrefix = "type.googleapis.com/"

// MessageName is the full protobuf name of a Kubernetes type, such as
// k8s.io.api.core.v1.Pod: its Go package with dots, and _ for -, and its name.
func MessageName(obj any) string {
	t := reflect.TypeOf(obj)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return strings.ReplaceAll(strings.ReplaceAll(t.PkgPath(), "/", "."), "-", "_") + "." + t.Name()
}

// protoMarshaler is every Kubernetes type, also those that are not objects.
type protoMarshaler interface{ Marshal() ([]byte, error) }

// ToAny wraps a Kubernetes message.
func ToAny(message protoMarshaler) (*anypb.Any, error) {
	b, err := message.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", message, err)
	}
	return &anypb.Any{TypeUrl: typePrefix + MessageName(message), Value: b}, nil
}

// RecordAny wraps a record's bytes as they are, with its resourceVersion.
func (k *Kind) RecordAny(r *Record) *anypb.Any {
	return &anypb.Any{TypeUrl: typePrefix + k.messageName(), Value: r.Message()}
}

// ValueAny wraps an object on its way out.
func (t *Kinds) ValueAny(v Value) (*anypb.Any, error) {
	if v.Record != nil {
		k, ok := t.ByKey(v.Record.Resource)
		if !ok {
			return nil, fmt.Errorf("encode %s: kind is not served", v.Record.Key)
		}
		return k.RecordAny(v.Record), nil
	}
	m, ok := v.Object.(protoMarshaler)
	if !ok {
		return nil, fmt.Errorf("encode %T: it has no protobuf form", v.Object)
	}
	return ToAny(m)
}

// FromAny unwraps an Any into a message of a known type.
func FromAny(a *anypb.Any, into interface{ Unmarshal([]byte) error }) error {
	want := typePrefix + MessageName(into)
	if a == nil || a.TypeUrl != want {
		return fmt.Errorf("want %s, got %q", want, a.GetTypeUrl())
	}
	if err := into.Unmarshal(a.Value); err != nil {
		return fmt.Errorf("decode %s: %w", want, err)
	}
	return nil
}

// ObjectOf unwraps an Any into an object of whichever served kind it is, with
// apiVersion and kind set, or of a subresource's body.
func (t *Kinds) ObjectOf(a *anypb.Any) (Object, error) {
	name := strings.TrimPrefix(a.GetTypeUrl(), typePrefix)
	if k, ok := t.byMessage[name]; ok {
		if err := k.shape.shallow(a.GetValue()); err != nil {
			return nil, err
		}
		return unwrap(a, k.New(), k.GVK())
	}
	for _, gvk := range bodyKinds() {
		if obj, ok := t.NewBody(gvk); ok && MessageName(obj) == name {
			return unwrap(a, obj, gvk)
		}
	}
	return nil, fmt.Errorf("%q is not a kind that is served", a.GetTypeUrl())
}

func unwrap(a *anypb.Any, obj Object, gvk schema.GroupVersionKind) (Object, error) {
	if err := FromAny(a, obj); err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// bodyKinds are the bodies of subresources that NewBody knows.
func bodyKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Group: "autoscaling", Version: "v1", Kind: "Scale"},
		{Version: "v1", Kind: "Binding"},
		{Group: "policy", Version: "v1", Kind: "Eviction"},
		{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"},
	}
}
