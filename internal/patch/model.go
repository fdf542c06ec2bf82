package patch

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wherry-project/wherry/internal/api"
)

// model is the table of kinds as the field managers see it: kinds have one
// version, and the only conversion is from maps to Go types. Defaults are the
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
func (m model) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		return in, nil
	}
	obj, err := m.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
		return nil, fmt.Errorf("unable to convert unstructured object to %v: %w", u.GroupVersionKind(), err)
	}
	return obj, nil
}

// Convert implements runtime.ObjectConvertor; the managers do not call it.
func (m model) Convert(in, out, _ any) error {
	return fmt.Errorf("convert %T to %T: kinds have one version", in, out)
}

// ConvertFieldLabel implements runtime.ObjectConvertor; the managers do not
// call it.
func (m model) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
