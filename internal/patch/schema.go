package patch

import (
	_ "embed"
	"fmt"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

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
		deduced:       managedfields.NewDeducedTypeConverter(), known: map[schema.GroupVersionKind]bool{},
	}
	for _, k := range kinds.All() {
		if name, err := scheme.ToOpenAPIDefinitionName(k.GVK()); err == nil {
			t := parser.Type(name)
			types.known[k.GVK()] = t.IsValid()
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
	known   map[schema.GroupVersionKind]bool
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t mixedTypes) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if !t.known[obj.GetObjectKind().GroupVersionKind()] {
		return t.deduced.ObjectToTyped(obj, opts...)
	}
	return t.TypeConverter.ObjectToTyped(obj, opts...)
}
