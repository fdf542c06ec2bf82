package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// contentTypes run a test with a client of JSON and one of protobuf.
func contentTypes(t *testing.T, f func(t *testing.T, change func(*rest.Config))) {
	t.Run("json", func(t *testing.T) { f(t, nil) })
	t.Run("protobuf", func(t *testing.T) {
		f(t, func(cfg *rest.Config) {
			cfg.ContentType = "application/vnd.kubernetes.protobuf"
			cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		})
	})
}

func TestTypedClient(t *testing.T) {
	contentTypes(t, func(t *testing.T, change func(*rest.Config)) {
		c := start(t, options{})
		ctx := t.Context()
		maps := c.client(t, change).CoreV1().ConfigMaps("demo")
		w, err := maps.Watch(ctx, metav1.ListOptions{LabelSelector: "app=x"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()

		made, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "cm-", Labels: map[string]string{"app": "x"}},
			Data:       map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {0, 255}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() || len(made.Name) != 8 {
			t.Errorf("made %+v", made.ObjectMeta)
		}
		expect(t, w, watch.Added, made.ResourceVersion)

		got, err := maps.Get(ctx, made.Name, metav1.GetOptions{})
		if err != nil || got.ResourceVersion != made.ResourceVersion || got.Data["k"] != "v" || !bytes.Equal(got.BinaryData["b"], []byte{0, 255}) {
			t.Errorf("got %+v, %v", got, err)
		}
		got.Data["k"] = "w"
		changed, err := maps.Update(ctx, got, metav1.UpdateOptions{})
		if err != nil || changed.Data["k"] != "w" {
			t.Fatalf("changed %+v, %v", changed, err)
		}
		expect(t, w, watch.Modified, changed.ResourceVersion)
		if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("a stale update: %v", err)
		}
		same, err := maps.Update(ctx, changed.DeepCopy(), metav1.UpdateOptions{})
		if err != nil || same.ResourceVersion != changed.ResourceVersion {
			t.Errorf("an update that changes nothing: %+v, %v", same, err)
		}

		// An object that leaves the selection is deleted for this watcher.
		left, err := maps.Patch(ctx, made.Name, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"app":"y"}}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, w, watch.Deleted, left.ResourceVersion)

		for i := range 7 {
			if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var names []string
		opts := metav1.ListOptions{Limit: 3}
		for {
			page, err := maps.List(ctx, opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Items {
				names = append(names, m.Name)
				if m.Kind != "" {
					t.Errorf("an item of a list names its kind %s", m.Kind)
				}
			}
			if opts.Continue = page.Continue; opts.Continue == "" {
				break
			}
			if page.RemainingItemCount == nil || *page.RemainingItemCount != int64(8-len(names)) {
				t.Errorf("remaining %v after %d", page.RemainingItemCount, len(names))
			}
		}
		if len(names) != 8 {
			t.Errorf("pages held %q", names)
		}
		one, err := maps.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=n3"})
		if err != nil || len(one.Items) != 1 {
			t.Errorf("%d by field, %v", len(one.Items), err)
		}

		uid := made.UID
		if err := maps.Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
			t.Error(err)
		}
		if _, err := maps.Get(ctx, made.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("after the delete: %v", err)
		}
		if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
		if all, err := maps.List(ctx, metav1.ListOptions{}); err != nil || len(all.Items) != 0 {
			t.Errorf("%d left, %v", len(all.Items), err)
		}
		// client-go comes again and again for a revision that is not there yet.
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := maps.Watch(short, metav1.ListOptions{ResourceVersion: "99999999"}); err == nil {
			t.Error("a watch from the future began")
		}
	})
}

func expect(t *testing.T, w watch.Interface, typ watch.EventType, revision string) {
	t.Helper()
	select {
	case e := <-w.ResultChan():
		m, ok := e.Object.(metav1.Object)
		if e.Type != typ || !ok || m.GetResourceVersion() != revision {
			t.Fatalf("event %s %+v, want %s at %s", e.Type, e.Object, typ, revision)
		}
	case <-time.After(time.Minute):
		t.Fatalf("no event, want %s at %s", typ, revision)
	}
}

func deployment(name string) *appsv1.Deployment {
	one := int32(1)
	l := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: l},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a:1"}}},
		}},
	}
}

func TestSubresources(t *testing.T) {
	contentTypes(t, func(t *testing.T, change func(*rest.Config)) {
		c := start(t, options{})
		ctx := t.Context()
		deploys := c.client(t, change).AppsV1().Deployments("demo")
		d, err := deploys.Create(ctx, deployment("web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		scale, err := deploys.GetScale(ctx, "web", metav1.GetOptions{})
		if err != nil || scale.Spec.Replicas != 1 {
			t.Fatalf("scale %+v, %v", scale, err)
		}
		scale.Spec.Replicas = 4
		if scale, err = deploys.UpdateScale(ctx, "web", scale, metav1.UpdateOptions{}); err != nil || scale.Spec.Replicas != 4 {
			t.Errorf("scaled to %+v, %v", scale, err)
		}
		d.Status.Replicas, d.ResourceVersion = 3, ""
		d.Spec.Paused = true
		if d, err = deploys.UpdateStatus(ctx, d, metav1.UpdateOptions{}); err != nil || d.Status.Replicas != 3 || d.Spec.Paused {
			t.Errorf("status %+v paused %v, %v", d.Status, d.Spec.Paused, err)
		}
		a := c.do(t, "PATCH", "/apis/apps/v1/namespaces/demo/deployments/web/scale", `{"spec":{"replicas":2}}`, "Content-Type: application/merge-patch+json")
		if a.StatusCode != http.StatusOK || !strings.Contains(a.text, `"kind":"Scale"`) || !strings.Contains(a.text, `"replicas":2`) {
			t.Errorf("patched scale %d %s", a.StatusCode, a.text)
		}
		a = c.do(t, "GET", "/apis/apps/v1/namespaces/demo/deployments/web/scale", "", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
		if !strings.Contains(a.text, `"name":"Desired"`) || !strings.Contains(a.text, `"cells":["web",2,3`) {
			t.Errorf("scale as a table: %s", a.text)
		}
	})
}

func TestDynamicAndDiscovery(t *testing.T) {
	c := start(t, options{})
	ctx := t.Context()
	dyn, err := dynamic.NewForConfig(c.config(t))
	if err != nil {
		t.Fatal(err)
	}
	deploys := dyn.Resource(appsv1.SchemeGroupVersion.WithResource("deployments")).Namespace("demo")
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"a": "b"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"a": "b"}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i"}}},
			},
		},
	}}
	got, err := deploys.Apply(ctx, "web", obj, metav1.ApplyOptions{FieldManager: "dyn"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := deploys.Apply(ctx, "web", obj, metav1.ApplyOptions{FieldManager: "dyn"})
	if err != nil || again.GetResourceVersion() != got.GetResourceVersion() {
		t.Errorf("an apply that changes nothing wrote: %s, %s, %v", got.GetResourceVersion(), again.GetResourceVersion(), err)
	}
	if m := again.GetManagedFields(); len(m) != 1 || m[0].Manager != "dyn" {
		t.Errorf("managed fields %+v", m)
	}
	list, err := deploys.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.GetKind() != "DeploymentList" {
		t.Errorf("list %+v, %v", list, err)
	}

	disc := c.client(t, nil).Discovery()
	_, lists, err := disc.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var found bool
	for _, l := range lists {
		for _, r := range l.APIResources {
			found = found || l.GroupVersion == "apps/v1" && r.Name == "deployments/scale" && r.Kind == "Scale"
		}
	}
	if !found {
		t.Error("deployments/scale is not in the discovery")
	}
	if v, err := disc.ServerVersion(); err != nil || v.Minor != "34" {
		t.Errorf("version %+v, %v", v, err)
	}
}
