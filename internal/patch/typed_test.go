package patch

import (
	"encoding/json"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/testkit"
)

// checking has every object checked against the schema.
type checking struct{ mixedTypes }

func (c checking) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if _, ok := c.known[obj.GetObjectKind().GroupVersionKind()]; !ok {
		return c.deduced.ObjectToTyped(obj, opts...)
	}
	return c.TypeConverter.ObjectToTyped(obj, opts...)
}

// TestUncheckedTypesOwnTheSame compares the managed fields of creates, updates
// and applies with those of objects that are checked against the schema.
func TestUncheckedTypesOwnTheSame(t *testing.T) {
	table := kinds.Table()
	plain, checked := NewFields(table), NewFields(table)
	checked.types = func() (managedfields.TypeConverter, error) {
		types, err := plain.types()
		if err != nil {
			return nil, err
		}
		return checking{types.(mixedTypes)}, nil
	}
	fill := testkit.Objects(3)
	owned := func(f *Fields, k *api.Kind, live, next api.Object) string {
		live, next = live.DeepCopyObject().(api.Object), next.DeepCopyObject().(api.Object)
		out := ""
		note := func(what string, obj api.Object, err error) {
			if err != nil { // in words of the check, or of the step after it
				out += what + ": refused\n"
				return
			}
			for _, m := range obj.GetManagedFields() {
				m.Time = nil
				b, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				out += what + ": " + string(b) + "\n"
			}
		}
		err := f.Update(k, nil, live, "one", "")
		note("created", live, err)
		next.SetManagedFields(live.GetManagedFields())
		err = f.Update(k, live, next, "two", "")
		note("updated", next, err)
		patch, err := json.Marshal(metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: k.APIVersion(), Kind: k.Kind}, ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		obj, err := f.Apply(k, next, patch, "three", "", true)
		note("applied", obj, err)
		return out
	}
	tracked := 0
	for _, k := range table.All() {
		if k.Stored() != k {
			continue
		}
		for range 3 {
			live, next := k.New(), k.New()
			fill.Fill(live)
			fill.Fill(next)
			for _, o := range []api.Object{live, next} {
				o.SetManagedFields(nil)
				o.SetUID("u")
				o.GetObjectKind().SetGroupVersionKind(k.GVK())
			}
			got, want := owned(plain, k, live, next), owned(checked, k, live, next)
			if got != want {
				t.Fatalf("%s: unchecked\n%s\nchecked\n%s", k.Kind, got, want)
			}
			if len(got) > 500 {
				tracked++
			}
		}
	}
	if tracked < 90 {
		t.Errorf("only %d objects were tracked", tracked)
	}
}
