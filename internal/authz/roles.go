package authz

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Controller is the user of a controller.
func Controller(name string) string { return ControllerPrefix + name + "-controller" }

func rule(group, resources string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: strings.Fields(resources), Verbs: verbs}
}

// roles are the built-in identities. They read store snapshots in process, so
// only writes are listed.
func roles() map[string][]rbacv1.PolicyRule {
	events := rule("", "events", "create", "update", "patch")
	return map[string][]rbacv1.PolicyRule{
		Scheduler: {
			rule("", "pods/binding", "create"), rule("", "pods/status", "update", "patch"), events,
		},
		Controller("deployment"): {
			rule("apps", "deployments/status", "update"), rule("apps", "deployments", "update"),
			rule("apps", "replicasets", "create", "update", "delete"), events,
		},
		Controller("replicaset"): {
			rule("apps", "replicasets/status", "update"), rule("", "pods", "create", "update", "delete"), events,
		},
		Controller("endpointslice"): {
			rule("discovery.k8s.io", "endpointslices", "create", "update", "delete"), events,
		},
		Controller("apiendpoints"): {
			rule("discovery.k8s.io", "endpointslices", "create", "update"),
		},
		Controller("namespace"): {
			rule("*", "*", "delete", "deletecollection"), rule("", "namespaces/status namespaces/finalize", "update"),
		},
		Controller("node"): {
			rule("", "nodes nodes/status", "update"), rule("", "pods", "delete"), rule("", "pods/status", "update"), events,
		},
		Controller("generic-garbage-collector"): {
			rule("*", "*", "update", "delete"), events,
		},
		Controller("pod-garbage-collector"): {
			rule("", "pods", "delete"), rule("", "pods/status", "update"),
		},
		Controller("service-account"): {
			rule("", "serviceaccounts", "create"),
		},
		Controller("root-ca-cert-publisher"): {
			rule("", "configmaps", "create", "update"),
		},
		Controller("clusterrole-aggregation"): {
			rule("rbac.authorization.k8s.io", "clusterroles", "escalate", "update"),
		},
		Controller("token"): {
			rule("", "secrets", "update", "delete"), rule("", "serviceaccounts", "update"),
		},
		Controller("certificate"): {
			rule("certificates.k8s.io", "certificatesigningrequests", "delete"),
			rule("certificates.k8s.io", "certificatesigningrequests/status", "update"),
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"}, ResourceNames: []string{"kubernetes.io/kube-apiserver-client"}, Verbs: []string{"sign"}},
		},
		Controller("ttl"): {
			rule("", "events", "delete"),
		},
	}
}
