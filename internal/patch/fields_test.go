package patch_test

import (
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/patch"
)

const web = `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  template:
    spec:
      containers:
      - name: a
        image: a:9
`

func managers(obj api.Object) (out []string) {
	for _, m := range obj.GetManagedFields() {
		out = append(out, m.Manager+" "+string(m.Operation)+" "+m.Subresource)
	}
	return out
}

func TestUpdateOfAnUntrackedObjectTracksNothing(t *testing.T) {
	kinds, k := table()
	f := patch.NewFields(kinds)
	live, obj := deployment(), deployment()
	obj.Spec.Paused = true
	if err := f.Update(k, live, obj, "kubectl", ""); err != nil || obj.ManagedFields != nil {
		t.Fatalf("managed fields %v, %v", obj.ManagedFields, err)
	}
}

func TestTrackedFromTheCreation(t *testing.T) {
	kinds, k := table()
	f := patch.NewFields(kinds)
	live := deployment()
	live.UID, live.ResourceVersion = "", ""
	if err := f.Update(k, nil, live, "kubectl-create", ""); err != nil {
		t.Fatal(err)
	}
	live.UID = "u"
	next := live.DeepCopy()
	next.Spec.Paused, next.ManagedFields = true, nil // a client that does not send them back
	if err := f.Update(k, live, next, "kubectl-edit", ""); err != nil {
		t.Fatal(err)
	}
	if got, want := managers(next), []string{"kubectl-create Update ", "kubectl-edit Update "}; !reflect.DeepEqual(got, want) {
		t.Errorf("managers %q, want %q", got, want)
	}
	next.ManagedFields = []metav1.ManagedFieldsEntry{}
	if err := f.Update(k, live, next, "kubectl", ""); err != nil || len(next.ManagedFields) != 0 {
		t.Errorf("managed fields that were to be forgotten: %q, %v", managers(next), err)
	}
}

func TestApplyCreatesAndOwns(t *testing.T) {
	kinds, k := table()
	f := patch.NewFields(kinds)
	obj, err := f.New(k, "demo", "web", []byte(web), api.WriteOptions{FieldManager: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := managers(obj), []string{"me Apply "}; !reflect.DeepEqual(got, want) {
		t.Errorf("managers %q, want %q", got, want)
	}
	if obj.GetNamespace() != "demo" || *obj.(*appsv1.Deployment).Spec.Replicas != 3 {
		t.Errorf("made %+v", obj)
	}

	again, err := f.Apply(k, obj, []byte(web), "me", "", false)
	if err != nil || !reflect.DeepEqual(again, obj) {
		t.Errorf("a second apply changed something: %v\n%+v\n%+v", err, again, obj)
	}

	// A status write belongs to its subresource, and only what it set.
	next := obj.DeepCopyObject().(*appsv1.Deployment)
	next.Status.Replicas = 3
	if err := f.Update(k, obj, next, "ctl", "status"); err != nil {
		t.Fatal(err)
	}
	if got, want := managers(next), []string{"me Apply ", "ctl Update status"}; !reflect.DeepEqual(got, want) {
		t.Errorf("managers %q, want %q", got, want)
	}
	if got := string(next.ManagedFields[1].FieldsV1.Raw); got != `{"f:status":{"f:replicas":{}}}` {
		t.Errorf("status fields %s", got)
	}

	// What is no longer applied goes.
	less, err := f.Apply(k, obj, []byte(strings.Replace(web, "  replicas: 3\n", "", 1)), "me", "", false)
	if err != nil || less.(*appsv1.Deployment).Spec.Replicas != nil {
		t.Errorf("replicas stayed: %v", err)
	}
}

func TestApplyConflicts(t *testing.T) {
	kinds, k := table()
	f := patch.NewFields(kinds)
	live, err := f.New(k, "demo", "web", []byte(web), api.WriteOptions{FieldManager: "me"})
	if err != nil {
		t.Fatal(err)
	}
	next := live.DeepCopyObject().(*appsv1.Deployment)
	four := int32(4)
	next.Spec.Replicas = &four
	if err := f.Update(k, live, next, "other", ""); err != nil {
		t.Fatal(err)
	}
	_, err = f.Apply(k, next, []byte(web), "me", "", false)
	st := apierr.StatusOf(err)
	if !errors.Is(err, apierr.ErrConflict) || st.Message != `Apply failed with 1 conflict: conflict with "other" using apps/v1: .spec.replicas` {
		t.Errorf("conflict is %v", err)
	}
	if d := st.Details; d == nil || len(d.Causes) != 1 || d.Causes[0].Type != metav1.CauseTypeFieldManagerConflict || d.Causes[0].Field != ".spec.replicas" {
		t.Errorf("details %+v", st.Details)
	}
	got, err := f.Apply(k, next, []byte(web), "me", "", true)
	if err != nil || *got.(*appsv1.Deployment).Spec.Replicas != 3 {
		t.Errorf("force did not take the field: %v", err)
	}

	// Of an object nobody tracked, the fields belong to whoever came first.
	_, err = f.Apply(k, deployment(), []byte(web), "me", "", false)
	if err == nil || !strings.HasPrefix(err.Error(), `Apply failed with 2 conflicts: conflicts with "before-first-apply" using apps/v1:`) {
		t.Errorf("conflict is %v", err)
	}
}

func TestApplyRefuses(t *testing.T) {
	kinds, k := table()
	f := patch.NewFields(kinds)
	tests := []struct{ name, body, text string }{
		{"no YAML", "a: [", "error decoding YAML"},
		{"nothing", "", "invalid object type: /, Kind="},
		{"other kind", "apiVersion: v1\nkind: Pod\n", "invalid object type: /v1, Kind=Pod"},
		{"managed fields", web + "\n", ""},
		{"own managed fields", strings.Replace(web, "name: web", "name: web\n  managedFields: [{}]", 1), "metadata.managedFields must be nil"},
		{"unknown field", strings.Replace(web, "replicas: 3", "foo: 3", 1), ".spec.foo: field not declared in schema"},
	}
	for _, tt := range tests {
		_, err := f.Apply(k, k.New(), []byte(tt.body), "me", "", false)
		if tt.text == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.text)
		}
	}
}

func TestRepeated(t *testing.T) {
	body := []byte("a: 1\na: 2\n")
	if w, err := patch.Repeated(body, api.ValidateWarn); err != nil || len(w) != 1 {
		t.Errorf("warn: %q, %v", w, err)
	}
	if _, err := patch.Repeated(body, api.ValidateStrict); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("strict: %v", err)
	}
	if w, err := patch.Repeated(body, api.ValidateIgnore); err != nil || w != nil {
		t.Errorf("ignore: %q, %v", w, err)
	}
}

func FuzzApply(f *testing.F) {
	kinds, k := table()
	fields := patch.NewFields(kinds)
	f.Add([]byte(web))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: [{name: a}, {name: a}]}}}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if obj, err := fields.Apply(k, deployment(), body, "me", "", true); err == nil {
			if _, err := obj.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// BenchmarkLoad shows what the first apply costs and keeps.
func BenchmarkLoad(b *testing.B) {
	kinds, k := table()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := patch.NewFields(kinds)
	for b.Loop() {
		if _, err := f.New(k, "demo", "web", []byte(web), api.WriteOptions{FieldManager: "me"}); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-kept")
}
