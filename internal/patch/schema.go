package patch

import (
	_ "embed"
	"fmt"
	"runtime/debug"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/wherry-project/wherry/internal/api"
)

// applySchema says how the fields of the served kinds merge. It is cut out of
// client-go's: importing that brings the types of every API group and 12 MB of
// program. schema_test.go writes it: go test ./internal/patch -run Schema -update
//
//go:embed schema.yaml
var applySchema string

// loadTypes reads the schema, which leaves much garbage behind.
func loadTypes(kinds *api.Kinds) (managedfields.TypeConverter, error) {
	scheme := runtime.NewScheme()
	for _, k := range kinds.All() {
		scheme.AddKnownTypeWithName(k.GVK(), k.New())
	}
	parser, err := typed.NewParser(typed.YAMLObject(applySchema))
	if err != nil {
		return nil, fmt.Errorf("read the schema of server-side apply: %w", err)
	}
	types := mixedTypes{
		TypeConverter: managedfields.NewSchemeTypeConverter(scheme, parser),
		deduced:       managedfields.NewDeducedTypeConverter(), known: map[schema.GroupVersionKind]typed.ParseableType{},
	}
	for _, k := range kinds.All() {
		if name, err := scheme.ToOpenAPIDefinitionName(k.GVK()); err == nil && parser.Type(name).IsValid() {
			types.known[k.GVK()] = parser.Type(name)
		}
	}
	debug.FreeOSMemory()
	return types, nil
}

// mixedTypes goes by the schema, and by the look of an object where there is
// none: the kinds that describe other APIs are not client-go's.
type mixedTypes struct {
	managedfields.TypeConverter
	deduced managedfields.TypeConverter
	known   map[schema.GroupVersionKind]typed.ParseableType
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t mixedTypes) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	known, ok := t.known[obj.GetObjectKind().GroupVersionKind()]
	if !ok {
		return t.deduced.ObjectToTyped(obj, opts...)
	}
	if _, maps := obj.(*unstructured.Unstructured); maps || !slices.Contains(opts, typed.AllowDuplicates) {
		return t.TypeConverter.ObjectToTyped(obj, opts...)
	}
	// A Go type can only hold what its schema says. To have that checked is a
	// third of what a write's managed fields cost.
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, err
	}
	return typed.AsTypedUnvalidated(v, known.Schema, known.TypeRef), nil //nolint:staticcheck // deprecated since checks are cheap, which they are not here
}
