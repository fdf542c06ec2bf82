package authz

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// state is a store with the kinds that authorization reads.
type state struct {
	*store.Local
	t     testing.TB
	kinds *api.Kinds
}

func newState(t testing.TB, objects ...api.Object) *state {
	t.Helper()
	kind := func(group, resource, name string, namespaced bool, empty func() api.Object) *api.Kind {
		return &api.Kind{Group: group, Version: "v1", Kind: name, Resource: resource, Namespaced: namespaced, New: empty}
	}
	pods := kind("", "pods", "Pod", true, func() api.Object { return &corev1.Pod{} })
	pods.Fields = api.Of(func(p *corev1.Pod) map[string]string { return map[string]string{"spec.nodeName": p.Spec.NodeName} })
	table := api.NewKinds(pods,
		kind("", "persistentvolumes", "PersistentVolume", false, func() api.Object { return &corev1.PersistentVolume{} }),
		kind(Group, "roles", "Role", true, func() api.Object { return &rbacv1.Role{} }),
		kind(Group, "clusterroles", "ClusterRole", false, func() api.Object { return &rbacv1.ClusterRole{} }),
		kind(Group, "rolebindings", "RoleBinding", true, func() api.Object { return &rbacv1.RoleBinding{} }),
		kind(Group, "clusterrolebindings", "ClusterRoleBinding", false, func() api.Object { return &rbacv1.ClusterRoleBinding{} }),
	)
	s := &state{store.NewLocal(api.NewCodec(table, 1<<20)), t, table}
	for _, obj := range objects {
		s.put(obj)
	}
	return s
}

func (s *state) put(obj api.Object) {
	s.t.Helper()
	k, ok := s.kinds.Of(obj)
	if !ok {
		s.t.Fatalf("%T is not of the table", obj)
	}
	r, err := k.Record(obj)
	if err != nil {
		s.t.Fatal(err)
	}
	s.commit(store.Change{Op: store.Put, Key: r.Key, Record: r})
}

func (s *state) commit(c store.Change) {
	s.t.Helper()
	if _, err := s.Commit(s.t.Context(), store.Command{Changes: []store.Change{c}}); err != nil {
		s.t.Fatal(err)
	}
}

func pod(name, node string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
	for _, c := range change {
		c(p)
	}
	return p
}

func named(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func core(resource, sub, namespace, name string) api.Target {
	return api.Target{Version: "v1", Resource: resource, Subresource: sub, Namespace: namespace, Name: name}
}

func TestNodesAndControllers(t *testing.T) {
	z := New(newState(t, pod("mine", "n1", func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "app"
		p.Spec.Volumes = []corev1.Volume{
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
		}
		p.Spec.Containers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}}}}}
	}), pod("theirs", "n2", func(p *corev1.Pod) {
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	}), pod("unbound", ""),
		&corev1.PersistentVolume{ObjectMeta: named("", "pv1"), Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "default", Name: "data"}}},
	))
	admin := api.User{Name: "kubernetes-admin", Groups: []string{Masters}}
	node := api.User{Name: NodePrefix + "n1", Groups: []string{Nodes}}
	fake := api.User{Name: NodePrefix + "n1"} // without the group
	replicas := api.User{Name: Controller("replicaset")}
	at := func(resource, name, sub string) api.Target { return core(resource, sub, "default", name) }
	lease := func(name string) api.Target {
		return api.Target{Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Namespace: "kube-node-lease", Name: name}
	}
	for _, c := range []struct {
		who  api.User
		verb string
		what api.Target
		ok   bool
	}{
		{admin, "delete", at("pods", "mine", ""), true},
		{node, "update", at("pods", "mine", "status"), true},
		{node, "delete", at("pods", "mine", ""), true},
		{node, "create", at("pods", "mine", "eviction"), true},
		{node, "update", at("pods", "theirs", "status"), false},
		{node, "delete", at("pods", "theirs", ""), false},
		{node, "get", at("pods", "theirs", ""), false},
		{node, "update", at("pods", "unbound", "status"), false},
		{node, "update", at("pods", "mine", ""), false},
		{node, "create", at("pods", "mine", "exec"), false},
		{node, "update", at("pods", "gone", "status"), true}, // answered with 404
		{node, "list", at("pods", "", ""), false},
		{fake, "update", at("pods", "mine", "status"), false},
		{node, "update", core("nodes", "status", "", "n1"), true},
		{node, "update", core("nodes", "status", "", "n2"), false},
		{node, "delete", core("nodes", "", "", "n1"), false},
		{node, "get", at("secrets", "mounted", ""), true},
		{node, "get", at("secrets", "pull", ""), false},
		{node, "list", at("secrets", "", ""), false},
		{node, "update", at("secrets", "mounted", ""), false},
		{node, "get", core("secrets", "", "other", "mounted"), false},
		{node, "get", at("configmaps", "env", ""), true},
		{node, "get", at("configmaps", "other", ""), false},
		{node, "get", at("persistentvolumeclaims", "data", ""), true},
		{node, "get", core("persistentvolumes", "", "", "pv1"), true},
		{node, "get", core("persistentvolumes", "", "", "pv2"), false},
		{node, "create", at("serviceaccounts", "app", "token"), true},
		{node, "create", at("serviceaccounts", "other", "token"), false},
		{node, "create", core("serviceaccounts", "token", "kube-system", "app"), false},
		{node, "list", api.Target{Version: "v1", Resource: "services"}, true},
		{node, "create", at("events", "", ""), true},
		{node, "update", lease("n1"), true},
		{node, "update", lease("n2"), false},
		{replicas, "create", at("pods", "", ""), true},
		{replicas, "create", at("pods", "mine", "binding"), false},
		{replicas, "delete", api.Target{Group: "apps", Version: "v1", Resource: "replicasets", Namespace: "default", Name: "x"}, false},
		{api.User{Name: "eve"}, "get", at("pods", "mine", ""), false},
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
	z := New(newState(t))
	for want, a := range map[string]Attributes{
		`pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "default"`: {Verb: "list", Target: core("pods", "", "default", "")},
		`deployments.apps "d" is forbidden: User "u" cannot update resource "deployments/scale" in API group "apps" at the cluster scope`: {
			Verb: "update", Target: api.Target{Group: "apps", Version: "v1", Resource: "deployments", Name: "d", Subresource: "scale"}},
		`forbidden: User "u" cannot get path "/metrics"`: {Verb: "get", Path: "/metrics"},
	} {
		a.User = api.User{Name: "u"}
		if err := z.Authorize(a); err == nil || err.Error() != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

func binding(namespace, name, kind, role string, subjects ...rbacv1.Subject) api.Object {
	ref := rbacv1.RoleRef{APIGroup: Group, Kind: kind, Name: role}
	if namespace == "" {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: named("", name), RoleRef: ref, Subjects: subjects}
	}
	return &rbacv1.RoleBinding{ObjectMeta: named(namespace, name), RoleRef: ref, Subjects: subjects}
}

// TestRBAC: what upstream's authorizer answers.
func TestRBAC(t *testing.T) {
	only := rule("", "configmaps", "get", "update")
	only.ResourceNames = []string{"one", "two"}
	z := New(newState(t,
		&rbacv1.ClusterRole{ObjectMeta: named("", "reader"), Rules: []rbacv1.PolicyRule{rule("", "pods pods/log", "get", "list")}},
		&rbacv1.ClusterRole{ObjectMeta: named("", "scaler"), Rules: []rbacv1.PolicyRule{rule("*", "*/scale", "update")}},
		&rbacv1.ClusterRole{ObjectMeta: named("", "all-of-apps"), Rules: []rbacv1.PolicyRule{rule("apps", "*", "*")}},
		&rbacv1.ClusterRole{ObjectMeta: named("", "paths"), Rules: []rbacv1.PolicyRule{paths("/metrics", "/debug/*")}},
		&rbacv1.Role{ObjectMeta: named("team", "named"), Rules: []rbacv1.PolicyRule{only, paths("/team")}},
		binding("", "readers", "ClusterRole", "reader", group("readers")),
		binding("", "scalers", "ClusterRole", "scaler", user("sam")),
		binding("", "monitors", "ClusterRole", "paths", rbacv1.Subject{Kind: "ServiceAccount", Namespace: "mon", Name: "prom"}),
		binding("team", "apps", "ClusterRole", "all-of-apps", user("tina"), rbacv1.Subject{Kind: "ServiceAccount", Name: "robot"}),
		binding("team", "named", "Role", "named", user("tina")),
		binding("team", "dangling", "Role", "not-there", user("dan")),
		binding("other", "named-elsewhere", "Role", "named", user("olaf")), // Role named is of team
		binding("team", "odd", "ClusterRole", "reader", rbacv1.Subject{Kind: "Robot", Name: "odd"}),
	))
	ray := api.User{Name: "ray", Groups: []string{"readers"}}
	tina, sam, dan := api.User{Name: "tina"}, api.User{Name: "sam"}, api.User{Name: "dan"}
	prom := api.User{Name: "system:serviceaccount:mon:prom"}
	robot := api.User{Name: "system:serviceaccount:team:robot"}
	deploy := func(namespace, sub string) api.Target {
		return api.Target{Group: "apps", Version: "v1", Resource: "deployments", Subresource: sub, Namespace: namespace, Name: "d"}
	}
	for i, c := range []struct {
		who  api.User
		verb string
		what api.Target
		path string
		ok   bool
	}{
		{ray, "get", core("pods", "", "default", "p"), "", true},
		{ray, "list", core("pods", "", "", ""), "", true},
		{ray, "get", core("pods", "log", "default", "p"), "", true},
		{ray, "get", core("pods", "exec", "default", "p"), "", false},
		{ray, "watch", core("pods", "", "default", ""), "", false},
		{ray, "get", api.Target{Group: "metrics.k8s.io", Resource: "pods", Namespace: "default", Name: "p"}, "", false},
		{api.User{Name: "readers"}, "get", core("pods", "", "default", "p"), "", false},
		{sam, "update", deploy("x", "scale"), "", true},
		{sam, "update", deploy("x", ""), "", false},
		{sam, "update", deploy("x", "status"), "", false},
		{tina, "delete", deploy("team", ""), "", true},
		{tina, "update", deploy("team", "scale"), "", true}, // * holds subresources too
		{tina, "delete", deploy("other", ""), "", false},
		{tina, "list", api.Target{Group: "apps", Resource: "deployments"}, "", false},
		{robot, "delete", deploy("team", ""), "", true},
		{api.User{Name: "system:serviceaccount:other:robot"}, "delete", deploy("team", ""), "", false},
		{tina, "get", core("configmaps", "", "team", "one"), "", true},
		{tina, "get", core("configmaps", "", "team", "three"), "", false},
		{tina, "get", core("configmaps", "", "team", ""), "", false},
		{tina, "create", core("configmaps", "", "team", "one"), "", false},
		{tina, "get", api.Target{}, "/team", false}, // a Role gives no paths
		{dan, "get", core("configmaps", "", "team", "one"), "", false},
		{api.User{Name: "olaf"}, "get", core("configmaps", "", "team", "one"), "", false},
		{api.User{Name: "olaf"}, "get", core("configmaps", "", "other", "one"), "", false},
		{api.User{Name: "odd"}, "get", core("pods", "", "team", "p"), "", false},
		{prom, "get", api.Target{}, "/metrics", true},
		{prom, "post", api.Target{}, "/metrics", false},
		{prom, "get", api.Target{}, "/metrics/slis", false},
		{prom, "get", api.Target{}, "/debug/pprof/heap", true},
		{prom, "get", api.Target{}, "/debug", false},
		{dan, "get", api.Target{}, "/readyz/raft", true}, // health, always
		{dan, "get", api.Target{}, "/version", false},
	} {
		ok, reason := z.Decide(Attributes{User: c.who, Verb: c.verb, Target: c.what, Path: c.path})
		if ok != c.ok {
			t.Errorf("%d: %s %s %+v %s: %v %q", i, c.who.Name, c.verb, c.what, c.path, ok, reason)
		}
	}
	_, reason := z.Decide(Attributes{User: tina, Verb: "delete", Target: deploy("team", "")})
	if want := `RBAC: allowed by RoleBinding "apps/team" of ClusterRole "all-of-apps" to User "tina"`; reason != want {
		t.Errorf("reason %q; want %q", reason, want)
	}
	if rules, err := z.Rules(dan, "team"); err == nil || !strings.Contains(err.Error(), `"not-there" not found`) || len(rules) > 0 {
		t.Errorf("rules of a dangling binding: %v, %v", rules, err)
	}
}

// TestIndexFollows: grants work as soon as they are stored, and end with their
// objects; other writes leave the index as it is.
func TestIndexFollows(t *testing.T) {
	s := newState(t)
	z := New(s)
	may := func() bool {
		ok, _ := z.Decide(Attributes{User: api.User{Name: "u"}, Verb: "get", Target: core("pods", "", "default", "p")})
		return ok
	}
	if may() {
		t.Fatal("allowed without a grant")
	}
	s.put(&rbacv1.ClusterRole{ObjectMeta: named("", "r"), Rules: []rbacv1.PolicyRule{rule("", "pods", "get")}})
	if may() {
		t.Error("allowed without a binding")
	}
	s.put(binding("default", "b", "ClusterRole", "r", user("u")))
	if !may() {
		t.Error("not allowed after the grant")
	}
	before := z.index.Load().grants
	for range 3 {
		s.put(pod("p", "n"))
		if !may() {
			t.Error("not allowed after another's write")
		}
	}
	before["default"]["u:mark"] = nil
	if _, same := z.index.Load().grants["default"]["u:mark"]; !same {
		t.Error("the index was made anew for a write of a pod")
	}
	s.commit(store.Change{Op: store.Delete, Key: api.Key{Resource: roleBindingsKey, Namespace: "default", Name: "b"}})
	if may() {
		t.Error("allowed after the grant was taken back")
	}
}

func TestGrants(t *testing.T) {
	own := []rbacv1.PolicyRule{rule("", "pods pods/log", "get", "list"), rule("apps", "*", "*"), paths("/metrics/*")}
	write := rule(Group, "roles rolebindings clusterroles clusterrolebindings", "*")
	write.Verbs = []string{"create", "update"}
	escalate, bind := rule(Group, "roles", "escalate"), rule(Group, "clusterroles", "bind")
	bind.ResourceNames = []string{"big"}
	z := New(newState(t,
		&rbacv1.ClusterRole{ObjectMeta: named("", "own"), Rules: append(own, write)},
		&rbacv1.ClusterRole{ObjectMeta: named("", "escalate"), Rules: []rbacv1.PolicyRule{escalate, bind}},
		&rbacv1.ClusterRole{ObjectMeta: named("", "big"), Rules: everything()},
		&rbacv1.ClusterRole{ObjectMeta: named("", "small"), Rules: []rbacv1.PolicyRule{rule("", "pods", "get")}},
		binding("", "own", "ClusterRole", "own", user("ann"), user("eva")),
		binding("", "escalate", "ClusterRole", "escalate", user("eva")),
	))
	ann, eva := api.User{Name: "ann", Groups: []string{"g"}}, api.User{Name: "eva"}
	role := func(rules ...rbacv1.PolicyRule) api.Object {
		return &rbacv1.Role{ObjectMeta: named("team", "r"), Rules: rules}
	}
	one := rule("", "pods", "get")
	one.ResourceNames = []string{"x"}
	sum := &rbacv1.ClusterRole{ObjectMeta: named("", "sum"), AggregationRule: &rbacv1.AggregationRule{}}
	for i, c := range []struct {
		who      api.User
		obj, old api.Object
		ok       bool
	}{
		{ann, role(rule("", "pods", "get")), nil, true},
		{ann, role(one), nil, true},
		{ann, role(rule("", "pods", "get", "watch")), nil, false},
		{ann, role(rule("", "*", "get")), nil, false},
		{ann, role(rule("apps", "deployments/scale", "patch")), nil, true},
		{ann, role(rule("*", "deployments", "get")), nil, false},
		{ann, role(rule("", "secrets", "get")), role(rule("", "secrets", "get")), true}, // nothing is given
		{ann, role(rule("", "secrets", "get", "list")), role(rule("", "secrets", "get")), false},
		{ann, &rbacv1.ClusterRole{ObjectMeta: named("", "c"), Rules: []rbacv1.PolicyRule{paths("/metrics/x")}}, nil, true},
		{ann, &rbacv1.ClusterRole{ObjectMeta: named("", "c"), Rules: []rbacv1.PolicyRule{paths("/metrics")}}, nil, false},
		{ann, sum, nil, false},
		{ann, binding("", "b", "ClusterRole", "small", user("x")), nil, true},
		{ann, binding("", "b", "ClusterRole", "big", user("x")), nil, false},
		{ann, binding("team", "b", "Role", "gone", user("x")), nil, false},
		{ann, binding("", "b", "ClusterRole", "big", user("x")), binding("", "b", "ClusterRole", "big", user("x")), true},
		{ann, binding("", "b", "ClusterRole", "big", user("y")), binding("", "b", "ClusterRole", "big", user("x")), false},
		{eva, role(rule("", "secrets", "get")), nil, true},
		{eva, binding("team", "b", "ClusterRole", "big", user("x")), nil, true},
		{eva, binding("team", "b", "ClusterRole", "gone", user("x")), nil, false},
		{eva, &rbacv1.ClusterRole{ObjectMeta: named("", "c"), Rules: everything()}, nil, false},
		{api.User{Name: "root", Groups: []string{Masters}}, binding("", "b", "ClusterRole", "gone"), nil, true},
		{ann, pod("p", ""), nil, true},
	} {
		if err := z.MayGrant(c.who, c.obj, c.old); (err == nil) != c.ok {
			t.Errorf("%d: %s %T: %v", i, c.who.Name, c.obj, err)
		}
	}
	labeled := everythingRole("c")
	labeled.Labels = map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}
	if err := z.MayGrant(ann, labeled, everythingRole("c")); err == nil {
		t.Error("a label makes other roles hold what its writer does not")
	}
	kept := everythingRole("c")
	kept.ResourceVersion, kept.Finalizers = "7", []string{"x/y"}
	kept.OwnerReferences, kept.ManagedFields = []metav1.OwnerReference{{Name: "o"}}, []metav1.ManagedFieldsEntry{{Manager: "m"}}
	if err := z.MayGrant(ann, kept, everythingRole("c")); err != nil {
		t.Errorf("what the garbage collector writes gives no rights: %v", err)
	}
	// Rules that were gathered would be kept as the role's own.
	was := &rbacv1.ClusterRole{ObjectMeta: named("", "sum"), AggregationRule: &rbacv1.AggregationRule{}, Rules: []rbacv1.PolicyRule{rule("", "pods", "get")}}
	alone := was.DeepCopy()
	alone.AggregationRule = nil
	if err := z.MayGrant(ann, alone, was); err == nil {
		t.Error("an aggregationRule was taken away")
	}
	err := z.MayGrant(ann, role(rule("", "secrets pods", "get", "list", "watch")), nil)
	want := `roles.rbac.authorization.k8s.io "r" is forbidden: user "ann" (groups=["g"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}
{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list" "watch"]}`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}

func everythingRole(name string) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: named("", name), Rules: everything()}
}

// TestDefaults: the roles that users know are there, and hold what their names
// promise.
func TestDefaults(t *testing.T) {
	p := Defaults()
	if err := p.Aggregate(); err != nil {
		t.Fatal(err)
	}
	s := newState(t)
	for _, r := range p.ClusterRoles {
		s.put(r)
	}
	for _, b := range p.ClusterRoleBindings {
		s.put(b)
	}
	for _, kind := range []string{"admin", "edit", "view"} {
		s.put(binding("team", kind, "ClusterRole", kind, user(kind)))
	}
	z := New(s)
	someone := func(name string) api.User { return api.User{Name: name, Groups: []string{"system:authenticated"}} }
	nobody := api.User{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}
	bindings := api.Target{Group: Group, Resource: "rolebindings", Namespace: "team"}
	self := api.Target{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"}
	for i, c := range []struct {
		who  api.User
		verb string
		what api.Target
		path string
		ok   bool
	}{
		{someone("view"), "list", core("pods", "", "team", ""), "", true},
		{someone("view"), "get", core("secrets", "", "team", "s"), "", false},
		{someone("view"), "create", core("pods", "", "team", ""), "", false},
		{someone("view"), "list", core("pods", "", "other", ""), "", false},
		{someone("view"), "get", api.Target{Group: "metrics.k8s.io", Resource: "pods", Namespace: "team", Name: "p"}, "", true},
		{someone("edit"), "list", core("pods", "", "team", ""), "", true},
		{someone("edit"), "get", core("secrets", "", "team", "s"), "", true},
		{someone("edit"), "create", core("pods", "exec", "team", "p"), "", true},
		{someone("edit"), "create", core("serviceaccounts", "token", "team", "default"), "", true},
		{someone("edit"), "create", bindings, "", false},
		{someone("edit"), "update", core("resourcequotas", "", "team", "q"), "", false},
		{someone("admin"), "create", bindings, "", true},
		{someone("admin"), "delete", api.Target{Group: "apps", Resource: "deployments", Namespace: "team", Name: "d"}, "", true},
		{someone("admin"), "delete", core("namespaces", "", "", "team"), "", false},
		{someone("x"), "create", self, "", true},
		{someone("x"), "get", api.Target{}, "/apis/apps/v1", true},
		{someone("x"), "get", api.Target{}, "/metrics", false},
		{someone("x"), "get", api.Target{}, "/openid/v1/jwks", false},
		{nobody, "get", api.Target{}, "/version", true},
		{nobody, "get", api.Target{}, "/livez", true},
		{nobody, "get", api.Target{}, "/api", false},
		{nobody, "create", self, "", false},
		{api.User{Name: "system:serviceaccount:a:b", Groups: []string{"system:serviceaccounts"}}, "get", api.Target{}, "/openid/v1/jwks", true},
		{api.User{Name: Scheduler}, "create", core("pods", "binding", "team", "p"), "", true},
	} {
		if ok, why := z.Decide(Attributes{User: c.who, Verb: c.verb, Target: c.what, Path: c.path}); ok != c.ok {
			t.Errorf("%d: %s %s %+v %s: %v %s", i, c.who.Name, c.verb, c.what, c.path, ok, why)
		}
	}
	again := Defaults()
	if err := again.Aggregate(); err != nil || len(again.ClusterRoles) != len(p.ClusterRoles) {
		t.Errorf("%v, %d roles", err, len(again.ClusterRoles))
	}
}

func BenchmarkAuthorize(b *testing.B) {
	s := newState(b)
	p := Defaults()
	for _, r := range p.ClusterRoles {
		s.put(r)
	}
	for _, o := range p.ClusterRoleBindings {
		s.put(o)
	}
	s.put(binding("team", "b", "ClusterRole", "view", user("u")))
	z := New(s)
	a := Attributes{User: api.User{Name: "u", Groups: []string{"system:authenticated"}}, Verb: "get", Target: core("pods", "", "team", "p")}
	for b.Loop() {
		z.Decide(a)
	}
}
