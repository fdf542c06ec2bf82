package kinds_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
)

// refusals are what testdata/invalid-*.yaml say of one kind: a good object, and
// changes that make it a bad one.
type refusals struct {
	Base json.RawMessage `json:"base"`
	// Few says why there are fewer cases than each kind should have.
	Few string    `json:"few"`
	Bad []refusal `json:"bad"`
}

type refusal struct {
	// Set is a JSON merge patch of the base.
	Set any `json:"set"`
	// Update takes the base, with Was applied to it, for the object that is
	// there; Status writes /status.
	Update bool `json:"update"`
	Status bool `json:"status"`
	Was    any  `json:"was"`
	// Want are field and reason of all errors, in their order, between "; ".
	Want string `json:"want"`
	// Text is a part of the message.
	Text string `json:"text"`
}

// TestInvalidObjects: each bad object is refused at the field and for the
// reason that Kubernetes gives.
func TestInvalidObjects(t *testing.T) {
	table := kinds.Table()
	files, err := filepath.Glob(filepath.Join("testdata", "invalid-*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	judged := map[*api.Kind]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(string(b), "\n---\n") {
			var r refusals
			if err := yaml.UnmarshalStrict([]byte(doc), &r); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if k := checkRefusals(t, table, &r); k != nil {
				judged[k] = true
			}
		}
	}
	for _, k := range table.All() {
		if !k.Virtual && !judged[k] {
			t.Errorf("no bad objects of %s", k.GVK())
		}
	}
}

// checkRefusals gives the kind that it has judged.
func checkRefusals(t *testing.T, table *api.Kinds, r *refusals) *api.Kind {
	t.Helper()
	var meta metav1.TypeMeta
	if err := json.Unmarshal(r.Base, &meta); err != nil {
		t.Fatal(err)
	}
	gvk := schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind)
	k, ok := table.ByGVK(gvk)
	if !ok {
		t.Errorf("no kind %s", gvk)
		return nil
	}
	if errs := judge(k, made(t, k, r.Base, nil), nil, false); len(errs) > 0 {
		t.Errorf("%s: the good object is refused: %v", gvk, errs)
		return nil
	}
	if len(r.Bad) < 10 && r.Few == "" {
		t.Errorf("%s: only %d bad objects", gvk, len(r.Bad))
	}
	for _, bad := range r.Bad {
		var old api.Object
		if bad.Update || bad.Status {
			old = made(t, k, r.Base, bad.Was)
		}
		errs := judge(k, made(t, k, r.Base, bad.Was, bad.Set), old, bad.Status)
		var got, text []string
		for _, e := range errs {
			got = append(got, e.Field+": "+e.Type.String())
			text = append(text, e.Error())
		}
		if strings.Join(got, "; ") != bad.Want || !strings.Contains(strings.Join(text, "\n"), bad.Text) {
			set, _ := json.Marshal(bad.Set)
			t.Errorf("%s %s\n got  %s\n want %s %s\n     %s", gvk.Kind, set, strings.Join(got, "; "), bad.Want, bad.Text, strings.Join(text, "\n     "))
		}
	}
	return k
}

// judge gives what a server would say of an object.
func judge(k *api.Kind, obj, old api.Object, status bool) field.ErrorList {
	s := k.Stored()
	var own field.ErrorList
	if k.As != nil {
		if old == nil && k.Validate != nil {
			own = k.Validate(obj)
		}
		if old != nil && k.ValidateUpdate != nil {
			own = k.ValidateUpdate(obj, old)
		}
		obj = k.ToStored(obj)
		if old != nil {
			old = k.ToStored(old)
		}
	}
	if len(own) > 0 {
		return own
	}
	switch {
	case old == nil && s.OnCreate != nil:
		s.OnCreate(obj)
	case status && s.OnStatus != nil:
		s.OnStatus(obj, old)
	case old != nil && !status && s.OnUpdate != nil:
		s.OnUpdate(obj, old)
	}
	if s.Default != nil {
		s.Default(obj)
	}
	errs := api.ValidateMeta(s, obj)
	if old != nil {
		errs = append(errs, api.ValidateMetaUpdate(obj, old)...)
	}
	if status {
		if s.ValidateStatus != nil {
			errs = append(errs, s.ValidateStatus(obj, old)...)
		}
		return errs
	}
	if s.Validate != nil {
		errs = append(errs, s.Validate(obj)...)
	}
	if old == nil && s.ValidateCreate != nil {
		errs = append(errs, s.ValidateCreate(obj)...)
	}
	if old != nil && s.ValidateUpdate != nil {
		errs = append(errs, s.ValidateUpdate(obj, old)...)
	}
	return errs
}

// made gives the base with merge patches, defaulted.
func made(t *testing.T, k *api.Kind, base json.RawMessage, patches ...any) api.Object {
	t.Helper()
	var doc any
	if err := json.Unmarshal(base, &doc); err != nil {
		t.Fatal(err)
	}
	for _, p := range patches {
		if p != nil {
			doc = merged(doc, p)
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	obj := k.New()
	if err := yaml.UnmarshalStrict(b, obj); err != nil {
		t.Fatalf("%s: %v in %s", k.Kind, err, b)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	return obj
}

func merged(doc, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if d, ok := doc.(map[string]any); ok {
		maps.Copy(out, d)
	}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if p[name] == nil {
			delete(out, name)
			continue
		}
		out[name] = merged(out[name], p[name])
	}
	return out
}
