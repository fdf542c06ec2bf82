package patch

import (
	_ "embed"
	"fmt"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/runtime"
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
	types := managedfields.NewSchemeTypeConverter(scheme, parser)
	debug.FreeOSMemory()
	return types, nil
}
