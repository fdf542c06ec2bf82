// Package authz decides who may do what, as Kubernetes does: administrators
// everything, nodes what concerns their own pods, the cluster's own controllers
// what their built-in roles say, and all users what RBAC objects grant them.
package authz

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
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

// Attributes are a request as authorization sees it: for an object, or, if Path
// is set, for a path that is none.
type Attributes struct {
	User   api.User
	Verb   string
	Target api.Target
	Path   string
}

// Source is the state that an Authorizer reads.
type Source interface {
	store.Reader
	store.Watcher
}

// Authorizer decides by built-in roles, the node rule and RBAC objects. It may
// be used by many goroutines. It reads what its replica has: a grant works on a
// replica as soon as it has arrived there.
type Authorizer struct {
	src   Source
	roles map[string][]rbacv1.PolicyRule
	node  []rbacv1.PolicyRule

	index atomic.Pointer[index]
	mu    sync.Mutex // guards watch, and whoever makes a new index
	watch *store.Watch
}

// New makes an authorizer over a state.
func New(src Source) *Authorizer { return &Authorizer{src: src, roles: roles(), node: nodeRules()} }

// Authorize returns nil or an error of kind apierr Forbidden with
// Kubernetes' text.
func (z *Authorizer) Authorize(a Attributes) error {
	ok, why := z.Decide(a)
	if ok {
		return nil
	}
	if a.Path != "" {
		return apierr.New(apierr.ErrForbidden, "forbidden: User %q cannot %s path %q", a.User.Name, a.Verb, a.Path)
	}
	return refusal(a, why)
}

// Decide answers like Authorize, and says why: what allows it, or, if there is
// anything to say, why not.
func (z *Authorizer) Decide(a Attributes) (allowed bool, reason string) {
	if a.User.Has(Masters) || a.User.Has(Controls) {
		return true, ""
	}
	if a.Path != "" && a.Verb == "get" && healthy(a.Path) {
		return true, "health is shown to everybody"
	}
	node, isNode := NodeName(a.User)
	if isNode {
		if reason = z.nodeMay(a, node); reason == "" {
			return true, ""
		}
	}
	for _, rule := range z.roles[a.User.Name] {
		if Allows(rule, a) {
			return true, "built-in role of " + a.User.Name
		}
	}
	ix, err := z.current()
	if err != nil {
		return false, err.Error()
	}
	if grant, ok := ix.allows(a); ok {
		return true, grant
	}
	return false, reason
}

// healthy reports whether a path is that of a health check, which is answered
// also by a member that has no state yet.
func healthy(path string) bool {
	root, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return root == "healthz" || root == "livez" || root == "readyz"
}

// NodeName gives the node that a user is, if it is one.
func NodeName(u api.User) (string, bool) {
	name, ok := strings.CutPrefix(u.Name, NodePrefix)
	return name, ok && name != "" && u.Has(Nodes)
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

// snapshot is what this replica has now.
func (z *Authorizer) snapshot() (*store.Snapshot, error) {
	return z.src.Snapshot(context.Background(), store.At{Level: store.Any})
}
