package gateway_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
)

// samples gives an object of each kind that is stored, of the examples of
// internal/kinds, in the namespace demo.
func samples(t *testing.T, kinds *api.Kinds) map[schema.GroupVersionKind]*unstructured.Unstructured {
	t.Helper()
	out := map[schema.GroupVersionKind]*unstructured.Unstructured{}
	for _, doc := range exampleTexts(t, "examples*.yaml") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(doc, "namespace: shop", "namespace: demo")), &u.Object); err != nil {
			t.Fatal(err)
		}
		k, ok := kinds.ByGVK(u.GroupVersionKind())
		if !ok {
			t.Fatalf("an example of %s, which is not served", u.GroupVersionKind())
		}
		if out[k.GVK()] != nil {
			continue
		}
		u.SetUID("")
		u.SetCreationTimestamp(metav1.Time{})
		if k.Namespaced {
			u.SetNamespace("demo")
		}
		if k.Kind == "Namespace" {
			u.SetName("walked") // nothing else is in it
		}
		out[k.GVK()] = u
	}
	return out
}

func exampleTexts(t *testing.T, pattern string) (out []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "kinds", "testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Split(string(b), "\n---\n")...)
	}
	return out
}

// life leads one object over one front from its creation to its end. Each call's
// answer is kept under its name.
type life struct {
	t     *testing.T
	front front
	kind  *api.Kind
	all   string // the collection
	one   string
	// last is the object as it was answered last, from its own manifest.
	last *unstructured.Unstructured
	// revisions are all that were answered.
	revisions []string
	names     []string
	answers   map[string]string
}

// do makes a call, and keeps what it answers.
func (l *life) do(name string, s step) outcome {
	l.t.Helper()
	if s.at == "" {
		s.at = l.one
	}
	if s.write.FieldManager == "" {
		s.write.FieldManager = "tester"
	}
	o := l.front.do(l.t, s)
	l.names = append(l.names, name)
	l.answers[name] = o.String()
	if o.object == "" || s.write.DryRun || o.deleted {
		return o
	}
	got := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(o.object), &got.Object); err != nil {
		l.t.Fatal(err)
	}
	got.SetGroupVersionKind(l.kind.GVK())
	if got.GetName() == l.last.GetName() && strings.Count(s.at, "/") == strings.Count(l.one, "/") {
		l.last = got
		if r := got.GetResourceVersion(); !slices.Contains(l.revisions, r) {
			l.revisions = append(l.revisions, r)
		}
	}
	return o
}

// must is do that succeeds.
func (l *life) must(name string, s step) outcome {
	l.t.Helper()
	o := l.do(name, s)
	if o.status.Code != 0 {
		l.t.Errorf("%s %s: %d %s", l.kind.GVK(), name, o.status.Code, o.status.Message)
	}
	return o
}

// changed is the object as it was answered last, with a label.
func (l *life) changed(value string) string {
	u := l.last.DeepCopy()
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels["walk"] = value
	u.SetLabels(labels)
	return asJSON(l.t, u.Object)
}

// live leads the object through all that may happen to it.
func (l *life) live(sample *unstructured.Unstructured) {
	t, k := l.t, l.kind
	t.Helper()
	create := step{verb: "create", at: l.all, object: asJSON(t, sample.Object), write: api.WriteOptions{FieldValidation: "Strict"}}
	label := func(value string) string {
		return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"labels":{"walk":%q}}}`, sample.GetAPIVersion(), k.Kind, value)
	}
	apply := func(manager, body string, force bool) step {
		return step{verb: "patch", patch: types.ApplyPatchType, body: body, write: api.WriteOptions{FieldManager: manager, Force: force}}
	}
	l.last = sample
	l.must("create", create)
	l.do("create again", create)
	l.must("get", step{verb: "get"})
	l.must("list", step{verb: "list", at: l.all, list: metav1.ListOptions{FieldSelector: "metadata.name=" + sample.GetName()}})
	l.do("update without a revision", step{verb: "update", object: func() string {
		u := l.last.DeepCopy()
		u.SetResourceVersion("")
		return asJSON(t, u.Object)
	}()})
	before := l.last
	l.must("update", step{verb: "update", object: l.changed("updated")})
	after := l.last
	l.last = before
	l.do("update stale", step{verb: "update", object: l.changed("late")})
	l.last = after
	l.must("merge", step{verb: "patch", patch: types.MergePatchType, body: `{"metadata":{"annotations":{"walk":"merged"}}}`})
	l.do("merge what is unknown", step{verb: "patch", patch: types.MergePatchType, body: `{"bogus":1,"metadata":{"labels":{"other":"1"}}}`})
	l.must("strategic", step{verb: "patch", patch: types.StrategicMergePatchType, body: `{"metadata":{"labels":{"other":null},"finalizers":["example.com/held"]}}`})
	l.must("operations", step{verb: "patch", patch: types.JSONPatchType, body: `[{"op":"remove","path":"/metadata/finalizers"}]`})
	if o := l.do("apply in conflict", apply("other", label("applied"), false)); o.status.Reason != conflict {
		t.Errorf("%s apply in conflict: %+v", k.GVK(), o.status)
	}
	l.must("apply by force", apply("other", label("applied"), true))
	l.do("apply the whole", apply("whole", asJSON(t, sample.Object), false))
	l.do("apply the whole by force", apply("whole", asJSON(t, sample.Object), true))
	l.status(sample)
	l.subresources()
	gone := l.must("delete", step{verb: "delete"}).deleted
	l.do("get what was deleted", step{verb: "get"})
	l.do("delete again", step{verb: "delete"})
	if o := l.do("delete those like it", step{verb: "deletecollection", at: l.all, list: metav1.ListOptions{FieldSelector: "metadata.name=" + sample.GetName()}}); gone && len(o.items) > 0 {
		t.Errorf("%s was deleted and is there: %s", k.GVK(), o.items)
	}
	l.watch(sample, gone)
}

// status writes the status alone, if it is a subresource.
func (l *life) status(sample *unstructured.Unstructured) {
	sub, ok := l.kind.Subresource("status")
	if !ok || !slices.Contains(sub.Verbs, "update") {
		return
	}
	if given, ok := sample.Object["status"]; ok {
		l.last.Object["status"] = given
	}
	at := l.one + "/status"
	was := l.last
	l.must("update the status", step{verb: "update", at: at, object: l.changed("status")})
	l.must("get the status", step{verb: "get", at: at})
	l.must("merge the status", step{verb: "patch", at: at, patch: types.MergePatchType, body: `{"metadata":{"labels":{"walk":"unheard"}},"status":{}}`})
	l.last = was // stale by now, or the same
	l.do("update the status again", step{verb: "update", at: at, object: l.changed("again")})
	l.must("get with its status", step{verb: "get"})
}

// subresources reads the others, and writes them as they are.
func (l *life) subresources() {
	for _, sub := range l.kind.Subresources {
		if sub.Name == "status" || !slices.Contains(sub.Verbs, "get") || slices.Contains([]string{"log", "exec", "attach", "portforward", "proxy"}, sub.Name) {
			continue
		}
		at := l.one + "/" + sub.Name
		o := l.do("get "+sub.Name, step{verb: "get", at: at})
		if o.object == "" || !slices.Contains(sub.Verbs, "update") {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal([]byte(o.object), &u.Object); err != nil {
			l.t.Fatal(err)
		}
		u.SetGroupVersionKind(l.kind.Body(sub))
		l.do("update "+sub.Name, step{verb: "update", at: at, object: asJSON(l.t, u.Object)})
		l.must("get after "+sub.Name, step{verb: "get"})
	}
}

// watch looks back on the life of the object.
func (l *life) watch(sample *unstructured.Unstructured, gone bool) {
	events := l.front.watch(l.t, step{verb: "watch", at: l.all, list: metav1.ListOptions{ResourceVersion: "1", FieldSelector: "metadata.name=" + sample.GetName()}}, len(l.revisions))
	l.names = append(l.names, "watch")
	l.answers["watch"] = strings.Join(events, "\n")
}

// walk leads an object of each kind through its life over one front.
func walk(t *testing.T, f front, kinds *api.Kinds) (out []*life) {
	given := samples(t, kinds)
	for _, k := range kinds.All() {
		if k.Virtual || !slices.Contains(k.Verbs, "create") {
			continue
		}
		sample := given[k.GVK()]
		if sample == nil {
			t.Errorf("internal/kinds/testdata has no example of %s", k.GVK())
			continue
		}
		all := k.Group + "/" + k.Version + "/" + k.Resource + "/" + sample.GetNamespace()
		l := &life{t: t, front: f, kind: k, all: all, one: all + "/" + sample.GetName(), answers: map[string]string{}}
		l.live(sample)
		out = append(out, l)
	}
	return out
}

// TestKindsLiveAlike leads an object of each kind through its life over both
// fronts: what they answer, warn of, refuse and tell watchers must be the same.
func TestKindsLiveAlike(t *testing.T) {
	a, b := start(t, options{}), start(t, options{})
	fronts := []front{&overHTTP{c: a}, dialGRPC(t, b)}
	lives := make([][]*life, len(fronts))
	t.Run("over", func(t *testing.T) {
		for i, name := range []string{"HTTP", "gRPC"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				lives[i] = walk(t, fronts[i], a.api.Kinds())
			})
		}
	})
	if len(lives[0]) != len(lives[1]) || len(lives[0]) < 50 {
		t.Fatalf("%d and %d kinds were walked", len(lives[0]), len(lives[1]))
	}
	for i, l := range lives[0] {
		for _, name := range l.names {
			if x, y := l.answers[name], lives[1][i].answers[name]; x != y {
				x, y = difference(x, y)
				t.Errorf("%s %s:\nHTTP answers …%s\ngRPC answers …%s", l.kind.GVK(), name, x, y)
			}
		}
	}
}

// difference cuts two answers to where they begin to differ.
func difference(x, y string) (string, string) {
	i := 0
	for i < min(len(x), len(y)) && x[i] == y[i] {
		i++
	}
	cut := func(s string) string { return s[max(0, i-150):min(len(s), i+250)] }
	return cut(x), cut(y)
}
