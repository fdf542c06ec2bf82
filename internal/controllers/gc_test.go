package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/testkit"
)

// names gives the ConfigMaps of a namespace, with * at those being deleted.
func names(c *cluster, namespace string) string {
	var out []string
	for _, m := range list[*corev1.ConfigMap](c, "configmaps", namespace) {
		name := m.Name
		if name == "kube-root-ca.crt" { // it is in every namespace
			continue
		}
		if m.DeletionTimestamp != nil {
			name += "*"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

// own makes a ConfigMap that the others named own.
func own(c *cluster, name string, owners ...string) {
	c.t.Helper()
	yes := true
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	for _, o := range owners {
		owner := must(get[*corev1.ConfigMap](c, "configmaps", "default", o))
		m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o, UID: owner.UID, BlockOwnerDeletion: &yes})
	}
	if _, err := c.admin.Create(c.t.Context(), m); err != nil {
		c.t.Fatal(err)
	}
}

func remove(c *cluster, name string, policy metav1.DeletionPropagation) {
	c.t.Helper()
	if err := c.admin.Delete(c.t.Context(), api.Key{Resource: "configmaps", Namespace: "default", Name: name}, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		c.t.Fatal(err)
	}
}

func TestGarbage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		make   func(c *cluster)
		policy metav1.DeletionPropagation
		want   string
	}{
		{"background", func(c *cluster) { own(c, "b", "a"); own(c, "c", "b") }, metav1.DeletePropagationBackground, ""},
		{"foreground", func(c *cluster) { own(c, "b", "a"); own(c, "c", "b") }, metav1.DeletePropagationForeground, ""},
		{"orphan", func(c *cluster) { own(c, "b", "a"); own(c, "c", "b") }, metav1.DeletePropagationOrphan, "b c"},
		{"another owner lives", func(c *cluster) { own(c, "b"); own(c, "c", "a", "b") }, metav1.DeletePropagationForeground, "b c"},
		{"held by a finalizer", func(c *cluster) {
			own(c, "b", "a")
			change(c, "configmaps", "default", "b", func(m *corev1.ConfigMap) { m.Finalizers = []string{"example.com/hold"} })
		}, metav1.DeletePropagationForeground, "a* b*"},
		{"a circle", func(c *cluster) {
			own(c, "b", "a")
			yes := true
			b := must(get[*corev1.ConfigMap](c, "configmaps", "default", "b"))
			change(c, "configmaps", "default", "a", func(m *corev1.ConfigMap) {
				m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "b", UID: b.UID, BlockOwnerDeletion: &yes}}
			})
		}, metav1.DeletePropagationForeground, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testkit.Leaks(t)
			c := newCluster(t, nil)
			own(c, "a")
			tt.make(c)
			remove(c, "a", tt.policy)
			testkit.Eventually(t, patience, func() error {
				if got := names(c, "default"); got != tt.want {
					return fmt.Errorf("%q is left, want %q", got, tt.want)
				}
				return nil
			})
			if strings.Contains(tt.want, "c") {
				m := must(get[*corev1.ConfigMap](c, "configmaps", "default", "c"))
				if slices.ContainsFunc(m.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Name == "a" }) {
					t.Errorf("c still names the dead owner: %v", m.OwnerReferences)
				}
			}
		})
	}
}

// What names an owner that never was, or was another of that name, goes.
func TestGarbageOfAbsentOwner(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	own(c, "a")
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "a", UID: "another"}}}}
	if _, err := c.admin.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() error {
		if got := names(c, "default"); got != "a" {
			return fmt.Errorf("%q is left", got)
		}
		return nil
	})
}

// An owner in another namespace counts as absent, and what is in no namespace is
// never collected for one that is in some. Events tell of both.
func TestGarbageAcrossNamespaces(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	own(c, "a")
	yes := true
	ref := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "a", UID: must(get[*corev1.ConfigMap](c, "configmaps", "default", "a")).UID, BlockOwnerDeletion: &yes}}
	for _, obj := range []api.Object{
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "astray", OwnerReferences: ref}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", OwnerReferences: ref}},
	} {
		if _, err := c.admin.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	told := func(kind, namespace string) error {
		for _, e := range list[*corev1.Event](c, "events", "") {
			if e.Reason == "OwnerRefInvalidNamespace" && e.InvolvedObject.Kind == kind {
				want := fmt.Sprintf("ownerRef [v1/ConfigMap, namespace: %s, name: a, uid: %s] does not exist in namespace %q", namespace, ref[0].UID, namespace)
				if e.Message != want || e.Type != corev1.EventTypeWarning {
					t.Fatalf("event %s %q, want %q", e.Type, e.Message, want)
				}
				return nil
			}
		}
		return fmt.Errorf("no event about the %s", kind)
	}
	testkit.Eventually(t, patience, func() error {
		if got := names(c, "kube-system"); strings.Contains(got, "astray") {
			return fmt.Errorf("%q is left", got)
		}
		if err := told("ConfigMap", "kube-system"); err != nil {
			return err
		}
		return told("Node", "")
	})
	remove(c, "a", metav1.DeletePropagationForeground) // nor does its owner wait for it
	testkit.Eventually(t, patience, func() error {
		if got := names(c, "default"); got != "" {
			return fmt.Errorf("%q is left", got)
		}
		return nil
	})
	change(c, "nodes", "", "node", func(n *corev1.Node) { // now the owner is gone: looked at again, and left
		n.OwnerReferences = append(n.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "nowhere", UID: "u"})
	})
	own(c, "last")
	remove(c, "last", metav1.DeletePropagationForeground)
	testkit.Eventually(t, patience, func() error {
		if got := names(c, "default"); got != "" {
			return fmt.Errorf("%q is left", got)
		}
		return nil
	})
	if n := must(get[*corev1.Node](c, "nodes", "", "node")); n.DeletionTimestamp != nil || len(n.OwnerReferences) != 2 {
		t.Errorf("the node is %+v", n.ObjectMeta)
	}
}

// A deleted deployment takes its ReplicaSets and pods along, in either way.
func TestDeleteDeployment(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		t.Run(string(policy), func(t *testing.T) {
			testkit.Leaks(t)
			c := newCluster(t, nil)
			c.node("n1")
			c.make(&appsv1.Deployment{}, fmt.Sprintf(deployed, 5))
			rolledOut(c, "web", "web:1", 5)
			if err := c.admin.Delete(t.Context(), api.Key{Resource: "deployments.apps", Namespace: "default", Name: "web"}, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, patience, func() error {
				for _, r := range []string{"deployments.apps", "replicasets.apps", "pods"} {
					if n := c.store.Mem().Snapshot().Count(r, "default"); n > 0 {
						return fmt.Errorf("%d %s are left", n, r)
					}
				}
				return nil
			})
		})
	}
}

func TestDeleteNamespace(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.node("n1")
	c.make(&corev1.Namespace{}, `{metadata: {name: demo}}`)
	testkit.Eventually(t, patience, func() error {
		_, err := get[*corev1.ServiceAccount](c, "serviceaccounts", "demo", "default")
		return err
	})
	c.make(&appsv1.Deployment{}, strings.Replace(fmt.Sprintf(deployed, 20), "default", "demo", 1))
	c.make(&corev1.Service{}, `{metadata: {name: web, namespace: demo}, spec: {selector: {app: web}, ports: [{port: 80}]}}`)
	c.make(&corev1.ConfigMap{}, `{metadata: {name: held, namespace: demo, finalizers: [example.com/hold]}}`)
	testkit.Eventually(t, patience, func() error {
		d, err := get[*appsv1.Deployment](c, "deployments.apps", "demo", "web")
		if err != nil || d.Status.AvailableReplicas != 20 {
			return fmt.Errorf("%+v %v", d, err)
		}
		return nil
	})
	if err := c.admin.Delete(t.Context(), api.Key{Resource: "namespaces", Name: "demo"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() error {
		ns := must(get[*corev1.Namespace](c, "namespaces", "", "demo"))
		for _, cond := range ns.Status.Conditions {
			if cond.Type == corev1.NamespaceFinalizersRemaining && cond.Status == corev1.ConditionTrue && strings.Contains(cond.Message, "example.com/hold in 1 resource instances") {
				return nil
			}
		}
		return fmt.Errorf("conditions are %+v", ns.Status.Conditions)
	})
	change(c, "configmaps", "demo", "held", func(m *corev1.ConfigMap) { m.Finalizers = nil })
	testkit.Eventually(t, patience, func() error {
		if _, err := get[*corev1.Namespace](c, "namespaces", "", "demo"); err == nil {
			return fmt.Errorf("the namespace is still there")
		}
		return nil
	})
	for r := range c.store.Mem().Snapshot().Resources() {
		if n := c.store.Mem().Snapshot().Count(r, "demo"); n > 0 {
			t.Errorf("%d %s are left", n, r)
		}
	}
}
