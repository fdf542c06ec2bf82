package kinds_test

import (
	"bytes"
	"fmt"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/kinds"
)

// TestCreated prints the examples of workloads and of what they use as they are
// after a create: with the defaults of their kind, and nothing else.
func TestCreated(t *testing.T) {
	var b bytes.Buffer
	table := kinds.Table()
	for _, text := range examples(t) {
		k, obj := read(t, table, text)
		switch k.Group {
		case "", "apps", "batch", "autoscaling", "policy":
		default:
			continue
		}
		obj.GetObjectKind().SetGroupVersionKind(k.GVK())
		out, err := yaml.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s---\n", out)
	}
	golden(t, "created.golden", b.Bytes())
}
