package authz

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

// nodeRules are what a node may do whatever its pods are. The rest depends on
// them, and nodeMay decides it.
func nodeRules() []rbacv1.PolicyRule {
	read := []string{"get", "list", "watch"}
	return []rbacv1.PolicyRule{
		rule("authentication.k8s.io", "tokenreviews", "create"),
		rule("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
		rule("", "services nodes namespaces", read...),
		rule("discovery.k8s.io", "endpointslices", read...),
		rule("", "nodes", "create"),
		rule("", "events", "create", "patch", "update"),
		rule("events.k8s.io", "events", "create", "patch", "update"),
		rule("node.k8s.io", "runtimeclasses", read...),
		rule("storage.k8s.io", "csidrivers storageclasses", read...),
		rule("certificates.k8s.io", "certificatesigningrequests", "create", "get", "list", "watch"),
	}
}

// nodeMay gives why a node may not, or nothing if it may.
func (z *Authorizer) nodeMay(a Attributes, node string) string {
	none := fmt.Sprintf("no relationship found between node %q and this object", node)
	if a.Path != "" {
		return none
	}
	for _, r := range z.node {
		if Allows(r, a) {
			return ""
		}
	}
	t := a.Target
	read := a.Verb == "get" || a.Verb == "list" || a.Verb == "watch"
	switch t.Group + "/" + t.Resource {
	case "/nodes":
		if t.Name == node && a.Verb != "delete" {
			return ""
		}
		return fmt.Sprintf("node %q is not allowed to modify node %q", node, t.Name)
	case "/pods":
		return z.nodeMayPod(a, node)
	case "/secrets", "/configmaps", "/persistentvolumeclaims":
		if !read || t.Subresource != "" && t.Subresource != "status" {
			return "can only read resources of this type"
		}
		if t.Name == "" || t.Namespace == "" {
			return "can only read namespaced object of this type"
		}
		if z.podNames(node, t) {
			return ""
		}
	case "/persistentvolumes":
		if a.Verb == "get" && z.nodeHasVolume(node, t.Name) {
			return ""
		}
	case "/serviceaccounts":
		if z.nodeMayAccount(a, node) {
			return ""
		}
	case "coordination.k8s.io/leases":
		if t.Namespace == corev1.NamespaceNodeLease && t.Name == node {
			return ""
		}
		return fmt.Sprintf("can only access node lease with the same name as the requesting node (%q)", node)
	}
	return none
}

// nodeMayPod: its own pods, one at a time. What does not exist is answered with
// 404.
func (z *Authorizer) nodeMayPod(a Attributes, node string) string {
	t := a.Target
	if t.Name == "" {
		return "nodes may read single pods of their own only"
	}
	may := a.Verb == "get" || a.Verb == "delete" || t.Subresource == "status" || t.Subresource == "eviction"
	if may {
		snap, err := z.snapshot()
		if err != nil {
			return err.Error()
		}
		r, ok := snap.Get(api.Key{Resource: "pods", Namespace: t.Namespace, Name: t.Name})
		if !ok || r.Index.Fields["spec.nodeName"] == node {
			return ""
		}
	}
	return fmt.Sprintf("node %q may only touch pods bound to itself", node)
}

// podsOf gives the pods of a node until f gives true, and whether it did.
func (z *Authorizer) podsOf(node, namespace string, f func(p *corev1.Pod) bool) bool {
	snap, err := z.snapshot()
	if err != nil {
		return false
	}
	for r := range snap.ByField("pods", "spec.nodeName", node) {
		if namespace != "" && r.Namespace != namespace {
			continue
		}
		if p, err := store.Decode[*corev1.Pod](snap, r); err == nil && f(p) {
			return true
		}
	}
	return false
}

// podNames reports whether a pod of the node names the object.
func (z *Authorizer) podNames(node string, t api.Target) bool {
	return z.podsOf(node, t.Namespace, func(p *corev1.Pod) bool {
		for _, k := range References(p) {
			if k.Resource == t.Resource && k.Name == t.Name {
				return true
			}
		}
		return false
	})
}

// nodeHasVolume reports whether a pod of the node has a claim on the volume.
func (z *Authorizer) nodeHasVolume(node, volume string) bool {
	if volume == "" {
		return false
	}
	snap, err := z.snapshot()
	if err != nil {
		return false
	}
	pv, err := store.Get[*corev1.PersistentVolume](snap, api.Key{Resource: "persistentvolumes", Name: volume})
	if err != nil || pv.Spec.ClaimRef == nil {
		return false
	}
	return z.podNames(node, api.Target{Resource: "persistentvolumeclaims", Namespace: pv.Spec.ClaimRef.Namespace, Name: pv.Spec.ClaimRef.Name})
}

// nodeMayAccount: a node reads the accounts of its pods, and asks for tokens of
// them. That a token is bound to one of its pods is admission's to check.
func (z *Authorizer) nodeMayAccount(a Attributes, node string) bool {
	t := a.Target
	if t.Name == "" || !(a.Verb == "create" && t.Subresource == "token" || a.Verb == "get" && t.Subresource == "") {
		return false
	}
	return z.podsOf(node, t.Namespace, func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == t.Name })
}

// References are the ConfigMaps, Secrets and claims that a pod names.
func References(p *corev1.Pod) []api.Key {
	var keys []api.Key
	seen := map[api.Key]bool{}
	add := func(resource, name string) {
		k := api.Key{Resource: resource, Namespace: p.Namespace, Name: name}
		if name != "" && !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	for _, s := range p.Spec.ImagePullSecrets {
		add("secrets", s.Name)
	}
	for _, v := range p.Spec.Volumes {
		volumeReferences(p, v, add)
	}
	container := func(env []corev1.EnvVar, from []corev1.EnvFromSource) {
		for _, e := range from {
			if e.ConfigMapRef != nil {
				add("configmaps", e.ConfigMapRef.Name)
			}
			if e.SecretRef != nil {
				add("secrets", e.SecretRef.Name)
			}
		}
		for _, e := range env {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				add("configmaps", e.ValueFrom.ConfigMapKeyRef.Name)
			}
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				add("secrets", e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	for _, c := range p.Spec.InitContainers {
		container(c.Env, c.EnvFrom)
	}
	for _, c := range p.Spec.Containers {
		container(c.Env, c.EnvFrom)
	}
	for _, c := range p.Spec.EphemeralContainers {
		container(c.Env, c.EnvFrom)
	}
	return keys
}

func volumeReferences(p *corev1.Pod, v corev1.Volume, add func(resource, name string)) {
	switch {
	case v.ConfigMap != nil:
		add("configmaps", v.ConfigMap.Name)
	case v.Secret != nil:
		add("secrets", v.Secret.SecretName)
	case v.PersistentVolumeClaim != nil:
		add("persistentvolumeclaims", v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		add("persistentvolumeclaims", p.Name+"-"+v.Name)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				add("configmaps", s.ConfigMap.Name)
			}
			if s.Secret != nil {
				add("secrets", s.Secret.Name)
			}
		}
	}
}
