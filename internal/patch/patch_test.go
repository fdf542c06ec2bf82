package patch_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/kinds/apps"
	"github.com/wherry-project/wherry/internal/kinds/core"
	"github.com/wherry-project/wherry/internal/patch"
)

func table() (*api.Kinds, *api.Kind) {
	d := apps.Deployment()
	return api.NewKinds(d, core.ConfigMap()), d
}

func deployment() *appsv1.Deployment {
	two := int32(2)
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "demo", UID: "u", ResourceVersion: "7"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &two,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "a", Image: "a:1"}, {Name: "b", Image: "b:1"},
			}}},
		},
	}
}

func TestPatch(t *testing.T) {
	kinds, k := table()
	f := patch.NewFields(kinds)
	many := "[" + strings.Repeat(`{"op":"test","path":"/kind","value":"x"},`, 10000) + `{"op":"test","path":"/kind","value":"x"}]`
	bomb := `[{"op":"add","path":"/metadata/annotations","value":{"a":"` + strings.Repeat("x", 100000) + `"}}` +
		strings.Repeat(`,{"op":"copy","from":"/metadata/annotations","path":"/metadata/annotations/b"}`, 40) + `]`
	tests := []struct {
		name, patch, validation string
		typ                     types.PatchType
		kind                    error
		text                    string
		warning                 string
		check                   func(d *appsv1.Deployment) bool
	}{
		{name: "json replace", typ: types.JSONPatchType, patch: `[{"op":"replace","path":"/spec/replicas","value":5}]`,
			check: func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 5 && d.ResourceVersion == "7" }},
		{name: "json not there", typ: types.JSONPatchType, patch: `[{"op":"remove","path":"/spec/nothing"}]`, kind: apierr.ErrInvalid, text: "the server rejected our request due to an error in our request"},
		{name: "json not json", typ: types.JSONPatchType, patch: `{`, kind: apierr.ErrBadRequest},
		{name: "json too many", typ: types.JSONPatchType, patch: many, kind: apierr.ErrTooLarge, text: "The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{name: "json copies without end", typ: types.JSONPatchType, patch: bomb, kind: apierr.ErrInvalid},
		{name: "json wrong type", typ: types.JSONPatchType, patch: `[{"op":"replace","path":"/spec/replicas","value":"x"}]`, kind: apierr.ErrInvalid, text: "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"},
		{name: "merge", typ: types.MergePatchType, patch: `{"metadata":{"labels":{"a":"b"}},"spec":{"paused":true}}`,
			check: func(d *appsv1.Deployment) bool { return d.Labels["a"] == "b" && d.Spec.Paused }},
		{name: "merge replaces lists", typ: types.MergePatchType, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c"}]}}}}`,
			check: func(d *appsv1.Deployment) bool { return len(d.Spec.Template.Spec.Containers) == 1 }},
		{name: "merge unknown strict", typ: types.MergePatchType, validation: api.ValidateStrict, patch: `{"spec":{"foo":1}}`, kind: apierr.ErrInvalid, text: `strict decoding error: unknown field "spec.foo"`},
		{name: "merge unknown warn", typ: types.MergePatchType, patch: `{"spec":{"foo":1}}`, warning: `unknown field "spec.foo"`},
		{name: "merge repeated warn", typ: types.MergePatchType, patch: `{"spec":{"paused":true,"paused":false}}`, warning: `duplicate field "spec.paused"`},
		{name: "merge unknown ignored", typ: types.MergePatchType, validation: api.ValidateIgnore, patch: `{"spec":{"foo":1}}`},
		{name: "merge other kind", typ: types.MergePatchType, patch: `{"kind":"Pod"}`, kind: apierr.ErrBadRequest},
		{name: "merge null", typ: types.MergePatchType, patch: `null`, kind: apierr.ErrBadRequest},
		{name: "strategic merges by name", typ: types.StrategicMergePatchType, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"b:2"}]}}}}`,
			check: func(d *appsv1.Deployment) bool {
				c := d.Spec.Template.Spec.Containers
				return len(c) == 2 && c[0].Image == "a:1" && c[1].Image == "b:2"
			}},
		{name: "strategic delete", typ: types.StrategicMergePatchType, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"a","$patch":"delete"}]}}}}`,
			check: func(d *appsv1.Deployment) bool { return len(d.Spec.Template.Spec.Containers) == 1 }},
		{name: "strategic unknown strict", typ: types.StrategicMergePatchType, validation: api.ValidateStrict, patch: `{"spec":{"foo":1}}`, kind: apierr.ErrInvalid, text: `unknown field "spec.foo"`},
		{name: "strategic unknown warn", typ: types.StrategicMergePatchType, validation: api.ValidateWarn, patch: `{"spec":{"foo":1}}`, warning: `unknown field "spec.foo"`},
		{name: "strategic wrong shape", typ: types.StrategicMergePatchType, patch: `{"spec":{"template":{"spec":{"containers":{"a":1}}}}}`, kind: apierr.ErrInvalid},
		{name: "strategic no key", typ: types.StrategicMergePatchType, patch: `{"spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}`, kind: apierr.ErrBadRequest},
		{name: "unknown type", typ: "text/plain", patch: `x`, kind: apierr.ErrUnsupportedMediaType},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			live := deployment()
			obj, warnings, err := f.Patch(k, live, tt.typ, []byte(tt.patch), tt.validation)
			if tt.kind != nil {
				if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("error %v, want kind %v with %q", err, tt.kind, tt.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.warning != "" && !slices.Contains(warnings, tt.warning) || tt.warning == "" && len(warnings) > 0 {
				t.Errorf("warnings %q, want %q", warnings, tt.warning)
			}
			if tt.check != nil && !tt.check(obj.(*appsv1.Deployment)) {
				t.Errorf("patched to %+v", obj)
			}
			if *live.Spec.Replicas != 2 || len(live.Spec.Template.Spec.Containers) != 2 {
				t.Error("the live object was changed")
			}
		})
	}
}

func TestPatchScale(t *testing.T) {
	kinds, _ := table()
	f := patch.NewFields(kinds)
	now := &autoscalingv1.Scale{TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"}, Spec: autoscalingv1.ScaleSpec{Replicas: 1}}
	for typ, body := range map[types.PatchType]string{
		types.MergePatchType:          `{"spec":{"replicas":3}}`,
		types.StrategicMergePatchType: `{"spec":{"replicas":3}}`,
		types.JSONPatchType:           `[{"op":"add","path":"/spec/replicas","value":3}]`,
	} {
		got, _, err := f.PatchScale(now, typ, []byte(body), "")
		if err != nil || got.Spec.Replicas != 3 || now.Spec.Replicas != 1 {
			t.Errorf("%s: %+v, %v", typ, got, err)
		}
	}
}

func FuzzPatch(f *testing.F) {
	kinds, k := table()
	fields := patch.NewFields(kinds)
	all := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType}
	f.Add(0, []byte(`[{"op":"copy","from":"/spec","path":"/spec/template"}]`))
	f.Add(1, []byte(`{"spec":{"template":null,"$patch":"replace"}}`))
	f.Add(2, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"a","$patch":"delete"}],"$setElementOrder/containers":[{"name":"b"}]}}}}`))
	f.Add(2, []byte(`{"spec":{"$retainKeys":["x"],"template":{"spec":{"volumes":[{"name":1}]}}}}`))
	f.Fuzz(func(t *testing.T, n int, body []byte) {
		obj, _, err := fields.Patch(k, deployment(), all[uint(n)%3], body, api.ValidateStrict)
		if err == nil {
			if _, err := obj.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
