package patch

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wherry-project/wherry/internal/api"
)

// model is the table of kinds as the field managers see it: conversions are
// from maps to Go types, and between the versions of one kind. Defaults are the
// API server's business.
type model struct{ kinds *api.Kinds }

// New implements runtime.ObjectCreater.
func (m model) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	k, ok := m.kinds.ByGVK(gvk)
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind("wherry", gvk)
	}
	obj := k.New()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// Default implements runtime.ObjectDefaulter.
func (m model) Default(runtime.Object) {}

// ConvertToVersion implements runtime.ObjectConvertor.
func (m model) ConvertToVersion(in runtime.Object, to runtime.GroupVersioner) (runtime.Object, error) {
	obj, err := m.typed(in)
	if err != nil {
		return nil, err
	}
	from, ok := m.kinds.ByGVK(obj.GetObjectKind().GroupVersionKind())
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind("wherry", obj.GetObjectKind().GroupVersionKind())
	}
	for _, k := range m.kinds.Versions(from) {
		if got, ok := to.KindForGroupVersionKinds([]schema.GroupVersionKind{k.GVK()}); !ok || got != k.GVK() {
			continue
		}
		if k == from {
			return obj, nil
		}
		return k.FromStored(from.ToStored(obj)), nil
	}
	return nil, runtime.NewNotRegisteredErrForTarget("wherry", reflect.TypeOf(obj).Elem(), to)
}

// typed gives an object as its Go type.
func (m model) typed(in runtime.Object) (api.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		obj, ok := in.(api.Object)
		if !ok {
			return nil, fmt.Errorf("convert %T: it is no stored object", in)
		}
		return obj, nil
	}
	obj, err := m.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
		return nil, fmt.Errorf("unable to convert unstructured object to %v: %w", u.GroupVersionKind(), err)
	}
	return obj.(api.Object), nil
}

// Convert implements runtime.ObjectConvertor; the managers do not call it.
func (m model) Convert(in, out, _ any) error {
	return fmt.Errorf("convert %T to %T: not by this way", in, out)
}

// ConvertFieldLabel implements runtime.ObjectConvertor; the managers do not
// call it.
func (m model) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
