package kinds_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/testkit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// now is the time of every table in these tests.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was; got\n%s", name, got)
	}
}

// TestColumns: names, types, formats and priorities are what kubectl's users
// know.
func TestColumns(t *testing.T) {
	var b bytes.Buffer
	for _, k := range kinds.Table().All() {
		fmt.Fprintf(&b, "%s %s\n", k.APIVersion(), k.Kind)
		for _, c := range k.Columns {
			fmt.Fprintf(&b, "  %s %s %q %d\n", c.Name, c.Type, c.Format, c.Priority)
			if c.Description == "" {
				t.Errorf("%s: column %s has no description", k.Kind, c.Name)
			}
		}
	}
	golden(t, "columns.golden", b.Bytes())
}

// TestRows prints the table of testdata/examples.yaml, one object of each kind,
// as it is after a create with the status that the file gives.
func TestRows(t *testing.T) {
	var b bytes.Buffer
	table := kinds.Table()
	seen := map[string]bool{}
	for _, text := range examples(t) {
		k, obj := read(t, table, text)
		seen[k.GVK().String()] = true
		if k.Cells == nil {
			continue // name and time of creation, which internal/render prints
		}
		cells, _ := k.Cells(obj, now)
		if len(cells) != len(k.Columns) {
			t.Errorf("%s has %d cells and %d columns", k.Kind, len(cells), len(k.Columns))
		}
		row, err := json.Marshal(cells)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s %s\n", k.APIVersion(), k.Kind, row)
	}
	for _, k := range table.All() {
		if !seen[k.GVK().String()] && !k.Virtual {
			t.Errorf("no example of %s", k.GVK())
		}
	}
	golden(t, "rows.golden", b.Bytes())
}

// examples are the documents of all files examples*.yaml.
func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "examples*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Split(string(b), "\n---\n")...)
	}
	return out
}

func read(t *testing.T, table *api.Kinds, text string) (*api.Kind, api.Object) {
	t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
		t.Fatal(err)
	}
	k, ok := table.ByGVK(schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind))
	if !ok {
		t.Fatalf("no kind %s %s", meta.APIVersion, meta.Kind)
	}
	obj := k.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	if k.OnCreate != nil && k.OnUpdate != nil { // which takes the status back
		given := obj.DeepCopyObject().(api.Object)
		k.OnCreate(obj)
		k.OnUpdate(obj, given)
		if k.Default != nil {
			k.Default(obj)
		}
	}
	return k, obj
}

// TestExamplesAreValidAndKeepTheirBytes: a defaulted example is valid and comes
// back the same from protobuf and from JSON.
func TestExamplesAreValidAndKeepTheirBytes(t *testing.T) {
	table := kinds.Table()
	for _, text := range examples(t) {
		k, obj := read(t, table, text)
		errs := api.ValidateMeta(k, obj)
		if k.Validate != nil {
			errs = append(errs, k.Validate(obj)...)
		}
		if len(errs) > 0 {
			t.Errorf("%s: %v", k.Kind, errs)
		}
		r, err := k.Record(obj)
		if err != nil {
			t.Fatal(err)
		}
		r.Revision = 7
		back := k.New()
		if err := back.Unmarshal(r.Message()); err != nil {
			t.Fatal(err)
		}
		if back.GetResourceVersion() != "7" {
			t.Errorf("%s: resourceVersion is %q", k.Kind, back.GetResourceVersion())
		}
		back.SetResourceVersion("")
		back.GetObjectKind().SetGroupVersionKind(k.GVK())
		if k.OnDecode != nil {
			k.OnDecode(back)
		}
		if !equality.Semantic.DeepEqual(obj, back) {
			t.Errorf("%s changes in protobuf", k.Kind)
		}
		j, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		again := k.New()
		if err := json.Unmarshal(j, again); err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(obj, again) {
			t.Errorf("%s changes in JSON", k.Kind)
		}
	}
}

// TestQuantitiesAreCanonical: amounts come out in one way, however they went
// in.
func TestQuantitiesAreCanonical(t *testing.T) {
	_, obj := read(t, kinds.Table(), `{apiVersion: v1, kind: Node, metadata: {name: n}, status: {capacity: {cpu: 1000m, memory: 1024Mi, pods: "0.5"}}}`)
	b, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"capacity":{"cpu":"1","memory":"1Gi","pods":"500m"}`; !strings.Contains(string(b), want) {
		t.Errorf("%s does not have %s", b, want)
	}
}

// TestKindsAreWhole: what a kind says of itself fits together.
func TestKindsAreWhole(t *testing.T) {
	for _, k := range kinds.Table().All() {
		if !slices.IsSorted(k.Verbs) {
			t.Errorf("%s: verbs are not in order", k.Kind)
		}
		if k.As != nil {
			continue // its rules are those of the kind that is stored
		}
		if _, ok := k.Subresource("status"); ok != (k.OnStatus != nil) {
			t.Errorf("%s: status is served %v but OnStatus is there %v", k.Kind, ok, k.OnStatus != nil)
		}
		if _, ok := k.Subresource("scale"); ok != (k.Scale != nil) {
			t.Errorf("%s: scale is served %v", k.Kind, ok)
		}
		if (k.Fields == nil) != (len(k.FieldNames) == 0) {
			t.Errorf("%s: field selectors have names or values only", k.Kind)
		}
		if k.Fields != nil {
			names := slices.Sorted(maps.Keys(k.Fields(k.New())))
			if want := slices.Sorted(slices.Values(k.FieldNames)); !slices.Equal(names, want) {
				t.Errorf("%s: fields are %v, names %v", k.Kind, names, want)
			}
		}
	}
}

// TestRandomObjects: defaults done twice are defaults done once, and no rule
// panics, whatever the object.
func TestRandomObjects(t *testing.T) {
	fill := testkit.Objects(1)
	for _, k := range kinds.Table().All() {
		for range 20 {
			obj, old := k.New(), k.New()
			fill.Fill(obj)
			fill.Fill(old)
			if k.Default != nil {
				k.Default(obj)
				once := obj.DeepCopyObject()
				k.Default(obj)
				if !equality.Semantic.DeepEqual(obj, once) {
					t.Errorf("%s: defaults twice are not defaults once", k.Kind)
				}
			}
			if k.As != nil {
				again := k.FromStored(k.ToStored(obj))
				again.GetObjectKind().SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
				if !equality.Semantic.DeepEqual(obj, again) {
					t.Errorf("%s changes when it is stored and read again", k.GVK())
				}
			}
			shared := old.DeepCopyObject()
			rules(k, obj, old)
			if !equality.Semantic.DeepEqual(old, shared) {
				t.Errorf("%s: a rule changed the old object, which is shared", k.Kind)
			}
		}
	}
}

// rules runs all rules of a kind as a server would.
func rules(k *api.Kind, obj, old api.Object) {
	api.ValidateMeta(k, obj)
	api.ValidateMetaUpdate(obj, old)
	for _, f := range []func(api.Object){k.OnCreate, k.Default} {
		if f != nil {
			f(obj)
		}
	}
	if k.Validate != nil {
		k.Validate(obj)
	}
	if k.Warn != nil {
		k.Warn(obj, nil)
		k.Warn(obj, old)
	}
	for _, on := range []func(obj, old api.Object){k.OnUpdate, k.OnStatus} {
		if on == nil {
			continue
		}
		c := obj.DeepCopyObject().(api.Object)
		on(c, old)
		if k.Default != nil {
			k.Default(c)
		}
		if k.Validate != nil {
			k.Validate(c)
		}
		if k.ValidateUpdate != nil {
			k.ValidateUpdate(c, old)
		}
		if k.ValidateStatus != nil {
			k.ValidateStatus(c, old)
		}
	}
	if k.Cells != nil {
		k.Cells(obj, now)
	}
	k.Index(obj)
	if k.SpecOf != nil {
		k.SpecOf(obj)
	}
	if k.Scale != nil {
		k.Scale.Get(obj)
		k.Scale.Set(obj, 3)
	}
	if k.Grace != nil {
		k.Grace(obj, nil)
	}
}
