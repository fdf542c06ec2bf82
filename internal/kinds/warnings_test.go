package kinds_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/kinds"
)

// TestWarnings goes through testdata/warnings.yaml: objects, after defaulting,
// what they were before, and the warnings.
func TestWarnings(t *testing.T) {
	b, err := os.ReadFile("testdata/warnings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Object, Was map[string]any
		Want        []string
	}
	if err := yaml.UnmarshalStrict(b, &cases); err != nil {
		t.Fatal(err)
	}
	table := kinds.Table()
	tried := map[string]bool{}
	for _, c := range cases {
		version, _ := c.Object["apiVersion"].(string)
		kind, _ := c.Object["kind"].(string)
		k, ok := table.ByGVK(schema.FromAPIVersionAndKind(version, kind))
		if !ok || k.Warn == nil {
			t.Fatalf("%s %s: there are no warnings", version, kind)
		}
		tried[k.KeyResource()] = true
		obj := k.New()
		text, _ := yaml.Marshal(c.Object)
		if err := yaml.UnmarshalStrict(text, obj); err != nil {
			t.Fatal(err)
		}
		if k.Default != nil {
			k.Default(obj)
		}
		var got []string
		if c.Was == nil {
			got = k.Warn(obj, nil)
		} else {
			old := k.New()
			was, _ := yaml.Marshal(c.Was)
			if err := yaml.UnmarshalStrict(was, old); err != nil {
				t.Fatal(err)
			}
			got = k.Warn(obj, old)
		}
		if !slices.Equal(got, c.Want) {
			t.Errorf("%s\n got  %s\n want %s", text, strings.Join(got, "\n      "), strings.Join(c.Want, "\n      "))
		}
	}
	for _, k := range table.All() {
		if k.Warn != nil && !tried[k.KeyResource()] {
			t.Errorf("no case of testdata/warnings.yaml tries %s", k.KeyResource())
		}
	}
}

// The examples say what is meant, so there is nothing to warn of but what has no
// effect yet.
func TestExamplesWarnOfNothing(t *testing.T) {
	table := kinds.Table()
	for _, text := range examples(t) {
		k, obj := read(t, table, text)
		if k.Warn == nil {
			continue
		}
		for _, w := range k.Warn(obj, nil) {
			if !strings.Contains(w, " yet") && !strings.HasPrefix(w, "handler:") {
				t.Errorf("%s %s: %s", k.Kind, obj.GetName(), w)
			}
		}
	}
}
