package controllers_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/controllers/clusterroles"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

// Every namespace has the certificate of the CA, whatever is done to it.
func TestRootCA(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.make(&corev1.Namespace{}, `{metadata: {name: fresh}}`)
	good := func() error {
		m, err := get[*corev1.ConfigMap](c, "configmaps", "fresh", "kube-root-ca.crt")
		if err == nil && (len(m.Data) != 1 || m.Data["ca.crt"] != "the certificate") {
			return fmt.Errorf("it holds %v", m.Data)
		}
		return err
	}
	testkit.Eventually(t, patience, good)
	change(c, "configmaps", "fresh", "kube-root-ca.crt", func(m *corev1.ConfigMap) { m.Data = map[string]string{"ca.crt": "forged", "more": "x"} })
	testkit.Eventually(t, patience, good)
	if err := c.admin.Delete(t.Context(), api.Key{Resource: "configmaps", Namespace: "fresh", Name: "kube-root-ca.crt"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, good)
}

// API servers of others find the CA of users' certificates, whatever is done to
// it; what else is there stays.
func TestExtensionAuthentication(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	const name = "extension-apiserver-authentication"
	data := func(want ...string) func() error {
		return func() error {
			m, err := get[*corev1.ConfigMap](c, "configmaps", "kube-system", name)
			if err == nil && (len(m.Data) != len(want)+1 || m.Data["client-ca-file"] != "the certificate") {
				return fmt.Errorf("it holds %v", m.Data)
			}
			for _, key := range want {
				if err == nil && m.Data[key] == "" {
					return fmt.Errorf("it holds %v", m.Data)
				}
			}
			return err
		}
	}
	testkit.Eventually(t, patience, data())
	change(c, "configmaps", "kube-system", name, func(m *corev1.ConfigMap) { m.Data = map[string]string{"client-ca-file": "forged", "more": "x"} })
	testkit.Eventually(t, patience, data("more"))
	if err := c.admin.Delete(t.Context(), api.Key{Resource: "configmaps", Namespace: "kube-system", Name: name}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, data())
	if _, err := c.api.As(api.User{Name: "system:kube-scheduler"}).Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name}}); err == nil {
		t.Error("the scheduler may write it")
	}
}

func hasRule(c *cluster, role, resource string) bool {
	r, err := get[*rbacv1.ClusterRole](c, "clusterroles.rbac.authorization.k8s.io", "", role)
	return err == nil && slices.ContainsFunc(r.Rules, func(p rbacv1.PolicyRule) bool { return slices.Contains(p.Resources, resource) })
}

// What is marked for a role that is a sum becomes part of it, and of the sums
// that it is part of, and leaves with its mark.
func TestAggregation(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.make(&rbacv1.ClusterRole{}, `{metadata: {name: more, labels: {rbac.authorization.k8s.io/aggregate-to-view: "true"}}, rules: [{apiGroups: [example.com], resources: [paintings], verbs: [get]}]}`)
	in := func(want bool) {
		t.Helper()
		testkit.Eventually(t, patience, func() error {
			for _, role := range []string{"view", "edit", "admin"} {
				if hasRule(c, role, "paintings") != want {
					return fmt.Errorf("%s has it: %v", role, !want)
				}
			}
			return nil
		})
	}
	in(true)
	change(c, "clusterroles.rbac.authorization.k8s.io", "", "more", func(r *rbacv1.ClusterRole) { r.Labels = nil })
	in(false)
}

// A leader that starts mends the default roles, keeps what was added to them,
// and leaves alone those that say so.
func TestDefaultRoles(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	const roles = "clusterroles.rbac.authorization.k8s.io"
	for _, key := range []api.Key{{Resource: roles, Name: "system:basic-user"}, {Resource: "clusterrolebindings.rbac.authorization.k8s.io", Name: "system:discovery"}} {
		if err := c.admin.Delete(t.Context(), key, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	extra := rbacv1.PolicyRule{APIGroups: []string{"example.com"}, Resources: []string{"paintings"}, Verbs: []string{"get"}}
	change(c, roles, "", "system:kube-dns", func(r *rbacv1.ClusterRole) { r.Rules = []rbacv1.PolicyRule{extra} })
	change(c, roles, "", "system:node-proxier", func(r *rbacv1.ClusterRole) {
		r.Rules, r.Annotations[authz.AutoUpdate] = []rbacv1.PolicyRule{extra}, "false"
	})
	defaults := clusterroles.Defaults(c.admin)
	testkit.Eventually(t, patience, func() error { // the cluster's own may still be at it, and win
		snap, err := c.store.Snapshot(t.Context(), store.At{Level: store.Any})
		if err == nil {
			_, err = defaults.Reconcile(t.Context(), snap, reconcile.Key{})
		}
		return err
	})
	if !hasRule(c, "system:basic-user", "selfsubjectaccessreviews") || !hasRule(c, "system:kube-dns", "endpoints") || !hasRule(c, "system:kube-dns", "paintings") {
		t.Error("the defaults are not mended, or what was added is gone")
	}
	if hasRule(c, "system:node-proxier", "endpoints") {
		t.Error("a role that is not to be brought up to date was")
	}
	if _, err := get[*rbacv1.ClusterRoleBinding](c, "clusterrolebindings.rbac.authorization.k8s.io", "", "system:discovery"); err != nil {
		t.Error(err)
	}
}
