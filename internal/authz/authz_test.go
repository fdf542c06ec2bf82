package authz

import (
	"errors"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

type pods map[string]string

func (p pods) PodNode(namespace, name string) (string, bool) {
	n, ok := p[namespace+"/"+name]
	return n, ok
}

func TestAuthorize(t *testing.T) {
	z := New(pods{"default/mine": "n1", "default/theirs": "n2", "default/unbound": ""})
	admin := api.User{Name: "kubernetes-admin", Groups: []string{Masters}}
	node := api.User{Name: NodePrefix + "n1", Groups: []string{Nodes}}
	fake := api.User{Name: NodePrefix + "n1"} // without the group
	replicas := api.User{Name: Controller("replicaset")}
	nobody := api.User{Name: "eve"}
	pod := func(name, sub string) api.Target {
		return api.Target{Version: "v1", Resource: "pods", Namespace: "default", Name: name, Subresource: sub}
	}
	for _, c := range []struct {
		who  api.User
		verb string
		what api.Target
		ok   bool
	}{
		{admin, "delete", pod("mine", ""), true},
		{node, "update", pod("mine", "status"), true},
		{node, "delete", pod("mine", ""), true},
		{node, "update", pod("theirs", "status"), false},
		{node, "delete", pod("theirs", ""), false},
		{node, "update", pod("unbound", "status"), false},
		{node, "update", pod("mine", ""), false},
		{node, "update", pod("gone", "status"), true}, // answered with 404
		{node, "list", pod("", ""), false},
		{fake, "update", pod("mine", "status"), false},
		{node, "update", api.Target{Version: "v1", Resource: "nodes", Name: "n1", Subresource: "status"}, true},
		{node, "update", api.Target{Version: "v1", Resource: "nodes", Name: "n2", Subresource: "status"}, false},
		{node, "delete", api.Target{Version: "v1", Resource: "nodes", Name: "n1"}, false},
		{node, "get", api.Target{Version: "v1", Resource: "secrets", Namespace: "default", Name: "s"}, false},
		{node, "list", api.Target{Version: "v1", Resource: "services"}, true},
		{node, "create", api.Target{Version: "v1", Resource: "events", Namespace: "default"}, true},
		{node, "update", api.Target{Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Namespace: "kube-node-lease", Name: "n1"}, true},
		{node, "update", api.Target{Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Namespace: "kube-node-lease", Name: "n2"}, false},
		{replicas, "create", pod("", ""), true},
		{replicas, "create", pod("mine", "binding"), false},
		{replicas, "delete", api.Target{Group: "apps", Version: "v1", Resource: "replicasets", Namespace: "default", Name: "x"}, false},
		{nobody, "get", pod("mine", ""), false},
	} {
		err := z.Authorize(Attributes{User: c.who, Verb: c.verb, Target: c.what})
		if (err == nil) != c.ok {
			t.Errorf("%s %s %+v: %v; want allowed %v", c.who.Name, c.verb, c.what, err, c.ok)
		}
		if err != nil && !errors.Is(err, apierr.ErrForbidden) {
			t.Errorf("%s %s: %v is not Forbidden", c.who.Name, c.verb, err)
		}
	}
}

func TestRefusalText(t *testing.T) {
	err := New(pods{}).Authorize(Attributes{User: api.User{Name: "u"}, Verb: "list", Target: api.Target{Version: "v1", Resource: "pods", Namespace: "default"}})
	want := `pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "default"`
	if err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	err = New(pods{}).Authorize(Attributes{User: api.User{Name: "u"}, Verb: "update", Target: api.Target{Group: "apps", Version: "v1", Resource: "deployments", Name: "d", Subresource: "scale"}})
	if err == nil || !strings.Contains(err.Error(), `deployments.apps "d" is forbidden: User "u" cannot update resource "deployments/scale" in API group "apps" at the cluster scope`) {
		t.Error(err)
	}
}
