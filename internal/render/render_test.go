package render_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/kinds/core"
	"github.com/wherry-project/wherry/internal/render"
)

func setup(t *testing.T) (*render.Renderer, *api.Kind, *api.Record) {
	t.Helper()
	k := core.ConfigMap()
	rec, err := k.Record(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", Labels: map[string]string{"l": "<&>"}}, Data: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	rec.Revision = 42
	return render.New(api.NewCodec(api.NewKinds(k), 1<<20), time.Now), k, rec
}

func TestNegotiate(t *testing.T) {
	all := []render.As{render.Table, render.PartialList}
	tests := []struct {
		accept string
		media  string
		as     render.As
	}{
		{"", api.MediaJSON, ""},
		{"*/*", api.MediaJSON, ""},
		{"application/json, */*", api.MediaJSON, ""},
		{"application/vnd.kubernetes.protobuf,application/json", api.MediaProtobuf, ""},
		{"application/yaml", api.MediaYAML, ""},
		{"application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", api.MediaJSON, "Table"},
		{"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json", api.MediaJSON, ""},
		{"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", api.MediaProtobuf, "PartialObjectMetadataList"},
		{"application/json;as=Other;g=meta.k8s.io;v=v1,application/yaml", api.MediaYAML, ""},
		{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", api.MediaJSON, ""},
		{"application/json;q=0.1,application/yaml;q=0.2", api.MediaYAML, ""},
		{"application/json;q=0,application/yaml", api.MediaYAML, ""},
		{"text/plain", "", ""},
		{"application/json;as=Table;g=meta.k8s.io;v=v7", "", ""},
	}
	for _, tt := range tests {
		f, err := render.Negotiate(tt.accept, all...)
		if tt.media == "" {
			if !errors.Is(err, apierr.ErrNotAcceptable) {
				t.Errorf("%q: %+v, %v, want not acceptable", tt.accept, f, err)
			}
			continue
		}
		if err != nil || f.Media != tt.media || f.As != tt.as {
			t.Errorf("%q: %+v, %v", tt.accept, f, err)
		}
	}
}

func TestDiscoveryAccept(t *testing.T) {
	kubectl := "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
	if v, ct, ok := render.Discovery(kubectl); !ok || v != "v2" || ct != "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" {
		t.Errorf("%s %s %v", v, ct, ok)
	}
	for _, plain := range []string{"application/json", "*/*", "", "application/json,application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"} {
		if _, _, ok := render.Discovery(plain); ok {
			t.Errorf("%q is aggregated", plain)
		}
	}
}

func TestPage(t *testing.T) {
	r, k, rec := setup(t)
	left := int64(3)
	page := &api.Page{Kind: k, Records: []*api.Record{rec, rec}, Revision: 50, Continue: "c", Remaining: &left}

	var b bytes.Buffer
	if err := r.Page(&b, render.Form{Media: api.MediaJSON}, page); err != nil {
		t.Fatal(err)
	}
	want := `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"50","continue":"c","remainingItemCount":3},"items":[{"metadata":{"name":"a"`
	if !strings.HasPrefix(b.String(), want) || strings.Contains(b.String(), `"kind":"ConfigMap"`) || !strings.Contains(b.String(), `"resourceVersion":"42"`) {
		t.Errorf("list %s", b.String())
	}
	var list corev1.ConfigMapList
	if err := json.Unmarshal(b.Bytes(), &list); err != nil || len(list.Items) != 2 {
		t.Errorf("%d items, %v", len(list.Items), err)
	}

	b.Reset()
	if err := r.Page(&b, render.Form{Media: api.MediaProtobuf}, page); err != nil {
		t.Fatal(err)
	}
	got := &corev1.ConfigMapList{}
	if err := api.DecodeProtobuf(b.Bytes(), corev1.SchemeGroupVersion.WithKind("ConfigMapList"), got); err != nil {
		t.Fatal(err)
	}
	if len(got.Items) != 2 || got.Items[1].ResourceVersion != "42" || got.ResourceVersion != "50" || *got.RemainingItemCount != 3 || got.Items[0].Data["k"] != "v" {
		t.Errorf("protobuf list %+v", got)
	}

	b.Reset()
	if err := r.Page(&b, render.Form{Media: api.MediaProtobuf, As: render.PartialList, Version: "v1"}, page); err != nil {
		t.Fatal(err)
	}
	parts := &metav1.PartialObjectMetadataList{}
	if err := api.DecodeProtobuf(b.Bytes(), metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList"), parts); err != nil || len(parts.Items) != 2 || parts.Items[0].Labels["l"] != "<&>" {
		t.Errorf("partial list %+v, %v", parts, err)
	}

	b.Reset()
	if err := r.Page(&b, render.Form{Media: api.MediaYAML}, page); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b.Bytes(), &list); err != nil || len(list.Items) != 2 {
		t.Errorf("yaml %s, %v", b.String(), err)
	}

	b.Reset()
	if err := r.Page(&b, render.Form{Media: api.MediaJSON, As: render.Table, Version: "v1"}, page); err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(b.Bytes(), &table); err != nil || len(table.Rows) != 2 || len(table.ColumnDefinitions) == 0 || table.Continue != "c" || table.Kind != "Table" {
		t.Errorf("table %s, %v", b.String(), err)
	}
	if !strings.Contains(string(table.Rows[0].Object.Raw), `"kind":"PartialObjectMetadata"`) {
		t.Errorf("row holds %s", table.Rows[0].Object.Raw)
	}

	if err := r.Page(&b, render.Form{Media: api.MediaJSON, As: render.Partial}, page); !errors.Is(err, apierr.ErrNotAcceptable) {
		t.Errorf("a list as one object's metadata: %v", err)
	}
}

func TestFrame(t *testing.T) {
	r, k, rec := setup(t)
	b, err := r.Frame(render.Form{Media: api.MediaJSON}, k, api.WatchEvent{Type: api.Added, Record: rec, Revision: 42})
	if err != nil || !strings.HasPrefix(string(b), `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1",`) || !strings.HasSuffix(string(b), "}}\n") {
		t.Errorf("frame %s, %v", b, err)
	}
	again, err := r.Frame(render.Form{Media: api.MediaJSON}, k, api.WatchEvent{Type: api.Added, Record: rec, Revision: 42})
	if err != nil || &again[0] != &b[0] {
		t.Error("the second watcher's frame was encoded again")
	}

	b, err = r.Frame(render.Form{Media: api.MediaProtobuf}, k, api.WatchEvent{Type: api.Bookmark, Revision: 9, InitialEnd: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.BigEndian.Uint32(b); int(n) != len(b)-4 {
		t.Fatalf("length %d of %d", n, len(b))
	}
	var e metav1.WatchEvent
	if err := e.Unmarshal(b[4:]); err != nil || e.Type != "BOOKMARK" {
		t.Fatalf("event %+v, %v", e, err)
	}
	var cm corev1.ConfigMap
	if err := api.DecodeProtobuf(e.Object.Raw, k.GVK(), &cm); err != nil || cm.ResourceVersion != "9" || cm.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("bookmark %+v, %v", cm, err)
	}

	b, err = r.Frame(render.Form{Media: api.MediaJSON, As: render.Table, NoHeaders: true}, k, api.WatchEvent{Type: api.Modified, Record: rec, Revision: 42})
	if err != nil || strings.Contains(string(b), `"columnDefinitions":[`) || !strings.Contains(string(b), `"rows":[`) {
		t.Errorf("table frame %s, %v", b, err)
	}
}

func TestFramesAreBounded(t *testing.T) {
	r, k, rec := setup(t)
	for i := range uint64(20000) {
		if _, err := r.Frame(render.Form{Media: api.MediaProtobuf}, k, api.WatchEvent{Type: api.Added, Record: rec, Revision: i}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestValueFromObject(t *testing.T) {
	r, k, _ := setup(t)
	cm := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "dry"}}
	for _, f := range []render.Form{{Media: api.MediaJSON}, {Media: api.MediaYAML}, {Media: api.MediaProtobuf}, {Media: api.MediaJSON, As: render.Table}, {Media: api.MediaProtobuf, As: render.Partial}, {Media: api.MediaJSON, Pretty: true}} {
		var b bytes.Buffer
		if err := r.Value(&b, f, k, api.Value{Object: cm}); err != nil || !strings.Contains(b.String(), "dry") {
			t.Errorf("%+v: %s, %v", f, b.String(), err)
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("application/json;as=Table;v=v1;g=meta.k8s.io,*/*;q=0.1")
	f.Fuzz(func(t *testing.T, accept string) {
		form, err := render.Negotiate(accept, render.Table, render.Partial)
		if err == nil && form.Media == "" {
			t.Errorf("%q gives no media type", accept)
		}
		render.Discovery(accept)
	})
}
