package openapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/kube-openapi/pkg/spec3"
	utilproto "k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kube-openapi/pkg/util/proto/validation"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/openapi"
)

func documents(t *testing.T) *openapi.Documents {
	t.Helper()
	d, err := openapi.New(kinds.Table())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read3(t *testing.T, d *openapi.Documents, path string) *spec3.OpenAPI {
	t.Helper()
	b, err := d.V3(path)
	if err != nil {
		t.Fatal(err)
	}
	doc := &spec3.OpenAPI{}
	if err := json.Unmarshal(b, doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestIndexListsGroups(t *testing.T) {
	index, err := documents(t).Index()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"api/v1", "apis/apps/v1", "apis/discovery.k8s.io/v1", "apis/coordination.k8s.io/v1"} {
		if len(index[path]) != 64 {
			t.Errorf("hash of %s is %q", path, index[path])
		}
	}
	again, err := documents(t).Index()
	if err != nil {
		t.Fatal(err)
	}
	for path, hash := range index {
		if again[path] != hash {
			t.Errorf("hash of %s changes from one build to the next", path)
		}
	}
}

func TestUnknownPathIsNotFound(t *testing.T) {
	if _, err := documents(t).V3("apis/none/v1"); apierr.KindOf(err) != apierr.ErrNotFound {
		t.Errorf("got %v, want not found", err)
	}
}

// TestReferencesResolve: every reference names a schema of the same document,
// and every schema and field has a description, which kubectl explain prints.
func TestReferencesResolve(t *testing.T) {
	d := documents(t)
	index, err := d.Index()
	if err != nil {
		t.Fatal(err)
	}
	for path := range index {
		b, err := d.V3(path)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
		walk(doc, func(n map[string]any) {
			if ref, ok := n["$ref"].(string); ok && schemas[strings.TrimPrefix(ref, "#/components/schemas/")] == nil {
				t.Errorf("%s: %s is not there", path, ref)
			}
		})
		for name, s := range schemas {
			properties, _ := s.(map[string]any)["properties"].(map[string]any)
			for field, p := range properties {
				if text, _ := p.(map[string]any)["description"].(string); text == "" && !undocumented[name+"."+field] {
					t.Errorf("%s: %s.%s has no description", path, name, field)
				}
			}
		}
	}
}

// undocumented fields have no comment in Kubernetes' own types.
var undocumented = map[string]bool{}

func walk(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(v)
		for _, c := range v {
			walk(c, visit)
		}
	case []any:
		for _, c := range v {
			walk(c, visit)
		}
	}
}

// TestFieldValidationIsOffered: kubectl asks the server to check fields only
// where the document says that it can.
func TestFieldValidationIsOffered(t *testing.T) {
	doc := read3(t, documents(t), "apis/apps/v1")
	item := doc.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments"]
	one := doc.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
	if item == nil || one == nil || item.Post == nil || one.Patch == nil || one.Put == nil {
		t.Fatal("operations are missing")
	}
	for name, op := range map[string]*spec3.Operation{"post": item.Post, "put": one.Put, "patch": one.Patch} {
		params := map[string]bool{}
		for _, p := range op.Parameters {
			params[p.Name] = true
		}
		for _, want := range []string{"fieldValidation", "dryRun", "fieldManager"} {
			if !params[want] {
				t.Errorf("%s has no parameter %s", name, want)
			}
		}
		if params["force"] != (name == "patch") {
			t.Errorf("%s: force is %v", name, params["force"])
		}
		gvk, _ := op.Extensions["x-kubernetes-group-version-kind"].(map[string]any)
		if gvk["kind"] != "Deployment" || op.Extensions["x-kubernetes-action"] != name {
			t.Errorf("%s: extensions are %v", name, op.Extensions)
		}
	}
}

func TestExtensionsOfLists(t *testing.T) {
	doc := read3(t, documents(t), "api/v1")
	containers := doc.Components.Schemas["io.k8s.api.core.v1.PodSpec"].Properties["containers"]
	for key, want := range map[string]string{
		"x-kubernetes-patch-strategy":  "merge",
		"x-kubernetes-patch-merge-key": "name",
		"x-kubernetes-list-type":       "map",
	} {
		if got, _ := containers.Extensions.GetString(key); got != want {
			t.Errorf("containers: %s is %q, want %q", key, got, want)
		}
	}
	ports := doc.Components.Schemas["io.k8s.api.core.v1.ServiceSpec"].Properties["ports"]
	keys, _ := ports.Extensions.GetStringSlice("x-kubernetes-list-map-keys")
	if strings.Join(keys, " ") != "port protocol" {
		t.Errorf("service ports are merged by %v", keys)
	}
	pod := doc.Components.Schemas["io.k8s.api.core.v1.Pod"]
	if got := pod.Extensions["x-kubernetes-group-version-kind"]; got == nil {
		t.Error("Pod names no kind")
	}
	if ref := pod.Properties["spec"].AllOf; len(ref) != 1 || !strings.HasSuffix(ref[0].Ref.String(), "v1.PodSpec") {
		t.Errorf("spec of Pod is %v", pod.Properties["spec"])
	}
	if len(doc.Components.Schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"].OneOf) != 2 {
		t.Error("Quantity is not a string or a number")
	}
}

// TestProtobufIsWhatGnosticMakes compares our own encoder with gnostic's.
func TestProtobufIsWhatGnosticMakes(t *testing.T) {
	d := documents(t)
	for _, path := range []string{"api/v1", "apis/apps/v1"} {
		text, err := d.V3(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := openapiv3.ParseDocument(text)
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.V3Proto(path)
		if err != nil {
			t.Fatal(err)
		}
		got := &openapiv3.Document{}
		if err := proto.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		same(t, path, got, want)
		if again, err := d.V3Proto(path); err != nil || string(again) != string(b) {
			t.Errorf("%s: the second answer differs (%v)", path, err)
		}
	}
	text, _, err := d.V2()
	if err != nil {
		t.Fatal(err)
	}
	want, err := openapiv2.ParseDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := d.V2Proto()
	if err != nil {
		t.Fatal(err)
	}
	got := &openapiv2.Document{}
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	same(t, "v2", got, want)
	if ok, err := (&spec.Swagger{}).FromGnostic(got); !ok || err != nil {
		t.Errorf("kube-openapi cannot read v2: %v", err)
	}
}

func same(t *testing.T, name string, got, want proto.Message) {
	t.Helper()
	flatten(got.ProtoReflect())
	flatten(want.ProtoReflect())
	if !proto.Equal(got, want) {
		g, w := firstDifference(got.ProtoReflect(), want.ProtoReflect(), "")
		t.Errorf("%s differs from gnostic's:\n got %s\nwant %s", name, g, w)
	}
}

// flatten writes all YAML in one way.
func flatten(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Name() == "yaml" && f.Kind() == protoreflect.StringKind:
			if b, err := yaml.YAMLToJSON([]byte(v.String())); err == nil {
				m.Set(f, protoreflect.ValueOfString(string(b)))
			}
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				flatten(v.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			flatten(v.Message())
		}
		return true
	})
}

func firstDifference(a, b protoreflect.Message, path string) (string, string) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		p := path + "." + string(f.Name())
		if f.Kind() == protoreflect.MessageKind && !f.IsList() && a.Has(f) && b.Has(f) {
			if !proto.Equal(a.Get(f).Message().Interface(), b.Get(f).Message().Interface()) {
				return firstDifference(a.Get(f).Message(), b.Get(f).Message(), p)
			}
			continue
		}
		if f.Kind() == protoreflect.MessageKind && f.IsList() && a.Get(f).List().Len() == b.Get(f).List().Len() {
			for j := range a.Get(f).List().Len() {
				x, y := a.Get(f).List().Get(j).Message(), b.Get(f).List().Get(j).Message()
				if !proto.Equal(x.Interface(), y.Interface()) {
					return firstDifference(x, y, p)
				}
			}
			continue
		}
		if !a.Get(f).Equal(b.Get(f)) {
			return p + ": " + a.Get(f).String(), p + ": " + b.Get(f).String()
		}
	}
	return "", ""
}

// TestKubectlValidatesByV2 checks objects as kubectl does with the v2 document.
func TestKubectlValidatesByV2(t *testing.T) {
	d := documents(t)
	b, _, err := d.V2Proto()
	if err != nil {
		t.Fatal(err)
	}
	doc := &openapiv2.Document{}
	if err := proto.Unmarshal(b, doc); err != nil {
		t.Fatal(err)
	}
	models, err := utilproto.NewOpenAPIData(doc)
	if err != nil {
		t.Fatal(err)
	}
	model := models.LookupModel("io.k8s.api.core.v1.Pod")
	good := map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "a"},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i", "ports": []any{map[string]any{"containerPort": int64(80)}}}}},
	}
	if errs := validation.ValidateModel(good, model, "Pod"); len(errs) > 0 {
		t.Errorf("a good pod is refused: %v", errs)
	}
	bad := map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": map[string]any{"containerz": []any{}}}
	if errs := validation.ValidateModel(bad, model, "Pod"); len(errs) != 2 {
		t.Errorf("a bad pod gives %v, want an unknown field and a missing one", errs)
	}
}
