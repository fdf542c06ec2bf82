// Package authz decides who may do what: administrators everything, nodes what
// concerns their own pods, and each controller what its built-in role says.
// Roles that users write (RBAC objects) are not served yet; whoever has no
// built-in role is refused.
package authz

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// The groups and users that have a meaning of their own.
const (
	Masters    = "system:masters"
	Nodes      = "system:nodes"
	Controls   = "system:wherry:controls"
	NodePrefix = "system:node:"
	Scheduler  = "system:kube-scheduler"
	// ControllerPrefix starts the name of every controller's user.
	ControllerPrefix = "system:serviceaccount:kube-system:"
)

// Attributes are a request as authorization sees it.
type Attributes struct {
	User   api.User
	Verb   string
	Target api.Target
}

// Graph answers what a node has to do with an object.
type Graph interface {
	// PodNode gives the node that a pod is bound to; not ok if there is no
	// such pod.
	PodNode(namespace, name string) (node string, ok bool)
}

// Authorizer decides by built-in roles and the node rule.
type Authorizer struct {
	graph Graph
	roles map[string][]rbacv1.PolicyRule
}

// New makes an authorizer that asks g about pods.
func New(g Graph) *Authorizer { return &Authorizer{graph: g, roles: roles()} }

// Authorize returns nil or an error of kind apierr Forbidden with
// Kubernetes' text.
func (z *Authorizer) Authorize(a Attributes) error {
	if a.User.Has(Masters) || a.User.Has(Controls) {
		return nil
	}
	why := ""
	if node, ok := NodeName(a.User); ok {
		if why = nodeMay(a, node, z.graph); why == "" {
			return nil
		}
	}
	for _, rule := range z.roles[a.User.Name] {
		if allows(rule, a) {
			return nil
		}
	}
	return refusal(a, why)
}

// NodeName gives the node that a user is, if it is one.
func NodeName(u api.User) (string, bool) {
	name, ok := strings.CutPrefix(u.Name, NodePrefix)
	return name, ok && name != "" && u.Has(Nodes)
}

func nodeMay(a Attributes, node string, g Graph) string {
	t := a.Target
	read := a.Verb == "get" || a.Verb == "list" || a.Verb == "watch"
	switch {
	case t.Group == "" && t.Resource == "nodes":
		if read || t.Name == node && a.Verb != "delete" || a.Verb == "create" {
			return ""
		}
		return fmt.Sprintf("node %q is not allowed to modify node %q", node, t.Name)
	case t.Group == "" && t.Resource == "pods":
		if t.Name == "" {
			return "nodes may read single pods of their own only"
		}
		bound, ok := g.PodNode(t.Namespace, t.Name)
		own := !ok || bound == node // what does not exist is answered with 404
		may := a.Verb == "get" || a.Verb == "delete" || t.Subresource == "status"
		if own && may {
			return ""
		}
		return fmt.Sprintf("node %q may only touch pods bound to itself", node)
	case t.Resource == "events" && (a.Verb == "create" || a.Verb == "patch" || a.Verb == "update"):
		return ""
	case read && t.Subresource == "" && (t.Group == "" && t.Resource == "services" || t.Group == "discovery.k8s.io" && t.Resource == "endpointslices"):
		return ""
	case t.Group == "coordination.k8s.io" && t.Resource == "leases" && t.Namespace == "kube-node-lease" && t.Name == node:
		return ""
	}
	return "no relationship found between node " + fmt.Sprintf("%q", node) + " and this object"
}

func allows(r rbacv1.PolicyRule, a Attributes) bool {
	resource := a.Target.Resource
	if a.Target.Subresource != "" {
		resource += "/" + a.Target.Subresource
	}
	return match(r.Verbs, a.Verb) && match(r.APIGroups, a.Target.Group) && match(r.Resources, resource)
}

func match(list []string, v string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, v)
}

func refusal(a Attributes, why string) error {
	t := a.Target
	resource := t.Resource
	if t.Subresource != "" {
		resource += "/" + t.Subresource
	}
	where := "at the cluster scope"
	if t.Namespace != "" {
		where = fmt.Sprintf("in the namespace %q", t.Namespace)
	}
	text := fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", a.User.Name, a.Verb, resource, t.Group, where)
	if why != "" {
		text += ": " + why
	}
	qualified := t.Resource
	if t.Group != "" {
		qualified += "." + t.Group
	}
	return apierr.Forbidden(qualified, t.Name, fmt.Errorf("%s", text))
}
