package controllers_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/testkit"
)

// everyKind makes an object of each kind that lies in namespaces, in one of
// them, out of the kinds' examples. It gives the resources of the stored kinds.
func (c *cluster) everyKind(namespace string, owner *metav1.OwnerReference) []string {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "kinds", "testdata", "examples*.yaml"))
	if err != nil || len(files) == 0 {
		c.t.Fatalf("no examples: %v", err)
	}
	made := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, text := range strings.Split(string(b), "\n---\n") {
			if key := c.example(namespace, text, owner); key != "" {
				made[key] = true
			}
		}
	}
	var out []string
	for _, k := range c.api.Kinds().Stored() {
		if k.Namespaced && !made[k.KeyResource()] {
			c.t.Errorf("no example of %s", k.KeyResource())
		}
		if k.Namespaced {
			out = append(out, k.KeyResource())
		}
	}
	return out
}

func (c *cluster) example(namespace, text string, owner *metav1.OwnerReference) string {
	c.t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
		c.t.Fatal(err)
	}
	k, ok := c.api.Kinds().ByGVK(schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind))
	if !ok || !k.Namespaced || k.As != nil || !slices.Contains(k.Verbs, "create") || k.Virtual {
		return ""
	}
	obj := k.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		c.t.Fatal(err)
	}
	obj.SetNamespace(namespace)
	obj.SetName("an-example-" + strings.ToLower(strings.NewReplacer(":", "-").Replace(obj.GetName())))
	obj.SetOwnerReferences(nil)
	if owner != nil {
		obj.SetOwnerReferences([]metav1.OwnerReference{*owner})
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		o.Spec.NodeName = "" // nobody stops it there
	case *corev1.Event:
		o.InvolvedObject.Namespace = namespace
	}
	if _, err := c.admin.Create(c.t.Context(), obj); err != nil {
		c.t.Fatalf("%s: %v", k.Kind, err)
	}
	return k.KeyResource()
}

// left are the resources of which a namespace still holds something that want
// accepts.
func (c *cluster) left(namespace string, resources []string, want func(*api.Record) bool) error {
	snap := c.store.Mem().Snapshot()
	var out []string
	for _, resource := range resources {
		for r := range snap.Scan(resource, namespace, api.Key{}) {
			if want(r) {
				out = append(out, r.Key.String())
			}
		}
	}
	if len(out) > 0 {
		return fmt.Errorf("left are %s", strings.Join(out, " "))
	}
	return nil
}

// TestNamespaceTakesEveryKindAlong deletes a namespace that holds objects of
// all kinds.
func TestNamespaceTakesEveryKindAlong(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.make(&corev1.Namespace{}, `{metadata: {name: full}}`)
	resources := c.everyKind("full", nil)
	if err := c.admin.Delete(t.Context(), api.Key{Resource: "namespaces", Name: "full"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() error {
		if err := c.left("full", resources, func(*api.Record) bool { return true }); err != nil {
			return err
		}
		if _, err := get[*corev1.Namespace](c, "namespaces", "", "full"); err == nil {
			return fmt.Errorf("the namespace is still there")
		}
		return nil
	})
}

// TestEveryKindIsCollected: what depends on a deleted object goes with it,
// whatever it is. Nobody owns Events.
func TestEveryKindIsCollected(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.make(&corev1.Namespace{}, `{metadata: {name: full}}`)
	owner := c.make(&corev1.ConfigMap{}, `{metadata: {name: owner, namespace: full}}`)
	resources := c.everyKind("full", &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.GetUID()})
	background := metav1.DeletePropagationBackground
	if err := c.admin.Delete(t.Context(), api.Key{Resource: "configmaps", Namespace: "full", Name: "owner"}, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	resources = slices.DeleteFunc(resources, func(r string) bool { return r == "events" })
	testkit.Eventually(t, patience, func() error {
		return c.left("full", resources, func(r *api.Record) bool { return strings.HasPrefix(r.Name, "an-example-") })
	})
}
