package authz

import (
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The marks of the roles and bindings that come with the cluster.
const (
	// DefaultsLabel with the value DefaultsValue marks them.
	DefaultsLabel = "kubernetes.io/bootstrapping"
	DefaultsValue = "rbac-defaults"
	// AutoUpdate is the annotation that, set to "false", keeps one of them
	// from being brought up to date when the cluster's leader starts.
	AutoUpdate = "rbac.authorization.kubernetes.io/autoupdate"
	// aggregate starts the labels by which roles become part of others.
	aggregate = "rbac.authorization.k8s.io/aggregate-to-"
)

// Policy is the roles and bindings that every cluster has.
type Policy struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// Defaults makes the policy that comes with this version.
func Defaults() *Policy {
	p := &Policy{}
	p.users()
	p.discovery()
	p.daemons()
	p.own()
	p.namespaced()
	return p
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels:      map[string]string{DefaultsLabel: DefaultsValue},
		Annotations: map[string]string{AutoUpdate: "true"},
	}
}

func (p *Policy) clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	r := &rbacv1.ClusterRole{ObjectMeta: meta("", name), Rules: rules}
	p.ClusterRoles = append(p.ClusterRoles, r)
	return r
}

func (p *Policy) clusterBinding(name, role string, to ...rbacv1.Subject) {
	p.ClusterRoleBindings = append(p.ClusterRoleBindings, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta("", name), Subjects: to,
		RoleRef: rbacv1.RoleRef{APIGroup: Group, Kind: "ClusterRole", Name: role},
	})
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: Group, Kind: rbacv1.GroupKind, Name: name}
}

func user(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: Group, Kind: rbacv1.UserKind, Name: name}
}

func account(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: name}
}

func paths(list ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{NonResourceURLs: list, Verbs: []string{"get"}}
}

const (
	readVerbs  = "get list watch"
	writeVerbs = "create delete deletecollection patch update"
)

func read(group, resources string) rbacv1.PolicyRule {
	return rule(group, resources, strings.Fields(readVerbs)...)
}

func write(group, resources string) rbacv1.PolicyRule {
	return rule(group, resources, strings.Fields(writeVerbs)...)
}

// users are the roles that people are given: view, edit and admin are the sum
// of what is marked for them, so that others can add to them.
func (p *Policy) users() {
	p.clusterRole("cluster-admin", everything()...)
	p.clusterBinding("cluster-admin", "cluster-admin", group(Masters))
	for _, r := range []struct{ name, also string }{{"admin", ""}, {"edit", "admin"}, {"view", "edit"}} {
		role := p.clusterRole(r.name)
		role.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
			{MatchLabels: map[string]string{aggregate + r.name: "true"}},
		}}
		if r.also != "" {
			role.Labels[aggregate+r.also] = "true"
		}
	}
	part := func(of string, rules ...rbacv1.PolicyRule) {
		p.clusterRole("system:aggregate-to-"+of, rules...).Labels[aggregate+of] = "true"
	}
	const (
		apps      = "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"
		rollbacks = " deployments/rollback"
		old       = "replicationcontrollers replicationcontrollers/scale"
		core      = "configmaps endpoints persistentvolumeclaims " + old + " services"
		network   = "ingresses networkpolicies"
	)
	part("admin",
		rule("authorization.k8s.io", "localsubjectaccessreviews", "create"),
		rule(Group, "roles rolebindings", append(strings.Fields(readVerbs), strings.Fields(writeVerbs)...)...))
	part("edit",
		read("", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
		rule("", "serviceaccounts", "impersonate"),
		write("", "pods pods/attach pods/exec pods/portforward pods/proxy"),
		rule("", "pods/eviction", "create"),
		write("", core+" secrets serviceaccounts services/proxy"),
		rule("", "serviceaccounts/token", "create"),
		write("apps", apps+rollbacks),
		write("autoscaling", "horizontalpodautoscalers"),
		write("batch", "cronjobs jobs"),
		write("extensions", "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale"),
		write("policy", "poddisruptionbudgets"),
		write("networking.k8s.io", network),
		rule("coordination.k8s.io", "leases", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
		write("resource.k8s.io", "resourceclaims resourceclaimtemplates"))
	part("view",
		read("", core+" persistentvolumeclaims/status pods replicationcontrollers/status serviceaccounts services/status"),
		read("", "bindings events limitranges namespaces/status pods/log pods/status resourcequotas resourcequotas/status"),
		read("", "namespaces"),
		read("discovery.k8s.io", "endpointslices"),
		read("apps", apps+" controllerrevisions daemonsets/status deployments/status replicasets/status statefulsets/status"),
		read("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
		read("batch", "cronjobs cronjobs/status jobs jobs/status"),
		read("extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale"),
		read("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
		read("networking.k8s.io", network+" ingresses/status"),
		read("resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"))
	p.clusterRole("system:aggregate-metrics-reader", read("metrics.k8s.io", "nodes pods")).Labels[aggregate+"view"] = "true"
}

// discovery is what everybody who is somebody may see, and nobody.
func (p *Policy) discovery() {
	const authenticated, nobody = "system:authenticated", "system:unauthenticated"
	p.clusterRole("system:basic-user",
		rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
		rule("authentication.k8s.io", "selfsubjectreviews", "create"))
	p.clusterBinding("system:basic-user", "system:basic-user", group(authenticated))
	p.clusterRole("system:discovery", paths("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"))
	p.clusterBinding("system:discovery", "system:discovery", group(authenticated))
	p.clusterRole("system:public-info-viewer", paths("/healthz", "/livez", "/readyz", "/version", "/version/"))
	p.clusterBinding("system:public-info-viewer", "system:public-info-viewer", group(authenticated), group(nobody))
	p.clusterRole("system:service-account-issuer-discovery", paths("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"))
	p.clusterBinding("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", group("system:serviceaccounts"))
	p.clusterRole("system:monitoring", paths("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"))
	p.clusterBinding("system:monitoring", "system:monitoring", group("system:monitoring"))
}

// daemons are the roles of programs that users bind to their own: add-ons of
// Kubernetes expect them.
func (p *Policy) daemons() {
	p.clusterRole("system:auth-delegator",
		rule("authentication.k8s.io", "tokenreviews", "create"), rule("authorization.k8s.io", "subjectaccessreviews", "create"))
	p.clusterRole("system:heapster", read("", "events namespaces nodes pods"), read("extensions", "deployments"))
	p.clusterRole("system:kube-dns", rule("", "endpoints services", "list", "watch"))
	p.clusterRole("system:kubelet-api-admin",
		rule("", "nodes", "get", "list", "watch", "proxy"), rule("", "nodes/log nodes/metrics nodes/proxy nodes/stats", "*"))
	p.clusterRole("system:node-bootstrapper", rule("certificates.k8s.io", "certificatesigningrequests", "create", "get", "list", "watch"))
	p.clusterRole("system:node-problem-detector", rule("", "nodes", "get"), rule("", "nodes/status", "patch"),
		rule("", "events", "create", "patch", "update"), rule("events.k8s.io", "events", "create", "patch", "update"))
	p.clusterRole("system:node-proxier", rule("", "endpoints services", "list", "watch"), read("", "nodes"),
		rule("", "events", "create", "patch", "update"), rule("discovery.k8s.io", "endpointslices", "list", "watch"))
	p.clusterRole("system:persistent-volume-provisioner", rule("", "persistentvolumes", "create", "delete", "get", "list", "watch"),
		rule("", "persistentvolumeclaims", "get", "list", "update", "watch"), read("storage.k8s.io", "storageclasses"),
		rule("", "events", "watch", "create", "update", "patch"))
	p.clusterRole("system:certificates.k8s.io:certificatesigningrequests:nodeclient", rule("certificates.k8s.io", "certificatesigningrequests/nodeclient", "create"))
	p.clusterRole("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", rule("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", "create"))
	for _, signer := range []struct{ role, name string }{
		{"kube-apiserver-client", "kubernetes.io/kube-apiserver-client"}, {"kube-apiserver-client-kubelet", "kubernetes.io/kube-apiserver-client-kubelet"},
		{"kubelet-serving", "kubernetes.io/kubelet-serving"}, {"legacy-unknown", "kubernetes.io/legacy-unknown"},
	} {
		r := rule("certificates.k8s.io", "signers", "approve")
		r.ResourceNames = []string{signer.name}
		p.clusterRole("system:certificates.k8s.io:"+signer.role+"-approver", r)
	}
	// Nodes have their rights by the node rule, which looks at their pods: this
	// role shows the part that does not depend on them, and is bound to nobody.
	p.clusterRole("system:node", nodeRules()...)
	p.clusterBinding("system:node", "system:node")
}

// own are the roles of this cluster's own programs. They hold also where these
// objects were changed or deleted: a cluster must not lose its controllers.
func (p *Policy) own() {
	all := roles()
	for _, who := range slices.Sorted(maps.Keys(all)) {
		controller := strings.TrimPrefix(who, ControllerPrefix)
		name, to := "system:controller:"+controller, account(controller)
		if controller == who {
			name, to = who, user(who)
		}
		p.clusterRole(name, all[who]...)
		p.clusterBinding(name, name, to)
	}
}

// namespaced is what programs need in the system's namespaces.
func (p *Policy) namespaced() {
	const reader = "extension-apiserver-authentication-reader"
	r := rule("", "configmaps", "get", "list", "watch")
	r.ResourceNames = []string{"extension-apiserver-authentication"}
	p.Roles = append(p.Roles, &rbacv1.Role{ObjectMeta: meta(metav1.NamespaceSystem, reader), Rules: []rbacv1.PolicyRule{r}})
	p.RoleBindings = append(p.RoleBindings, &rbacv1.RoleBinding{
		ObjectMeta: meta(metav1.NamespaceSystem, "system::"+reader),
		Subjects:   []rbacv1.Subject{user("system:kube-controller-manager"), user(Scheduler)},
		RoleRef:    rbacv1.RoleRef{APIGroup: Group, Kind: "Role", Name: reader},
	})
}

// Aggregated gives the rules of a role that is the sum of others, out of all
// cluster roles in the order of their names. Not ok says that it is none.
func Aggregated(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) (rules []rbacv1.PolicyRule, ok bool, err error) {
	if role.AggregationRule == nil {
		return nil, false, nil
	}
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	seen := map[string]bool{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		sel, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, true, err
		}
		for _, part := range sorted {
			if part.Name == role.Name || !sel.Matches(labelsOf(part)) {
				continue
			}
			for _, r := range part.Rules {
				if key := compact(r); !seen[key] {
					seen[key] = true
					rules = append(rules, *r.DeepCopy())
				}
			}
		}
	}
	return rules, true, nil
}

func labelsOf(r *rbacv1.ClusterRole) labels.Set { return r.Labels }

// Aggregate fills in the aggregated roles of the policy itself, until they
// change no more: roles that are sums are parts of others.
func (p *Policy) Aggregate() error {
	for range len(p.ClusterRoles) {
		changed := false
		for _, r := range p.ClusterRoles {
			rules, ok, err := Aggregated(r, p.ClusterRoles)
			if err != nil {
				return err
			}
			if ok && len(rules) != len(r.Rules) {
				r.Rules, changed = rules, true
			}
		}
		if !changed {
			return nil
		}
	}
	return nil
}
