package authz

import (
	"context"
	"errors"
	"fmt"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// The resources that grants are made of.
const (
	rolesKey               = "roles.rbac.authorization.k8s.io"
	clusterRolesKey        = "clusterroles.rbac.authorization.k8s.io"
	roleBindingsKey        = "rolebindings.rbac.authorization.k8s.io"
	clusterRoleBindingsKey = "clusterrolebindings.rbac.authorization.k8s.io"
)

// index is who is granted what, at a revision. It does not change but for the
// revision, which goes up while nothing of it does.
type index struct {
	revision uint64
	// roles by namespace and name; cluster roles have no namespace.
	roles map[name][]rbacv1.PolicyRule
	// grants by namespace, empty for cluster-wide ones, and subject.
	grants map[string]map[string][]grant
}

type name struct{ namespace, name string }

// grant is what a binding gives to one subject.
type grant struct {
	binding name
	role    name
	subject string
}

func (g grant) String() string {
	kind, where, role := "ClusterRoleBinding", "", "ClusterRole"
	if g.binding.namespace != "" {
		kind, where = "RoleBinding", "/"+g.binding.namespace
	}
	if g.role.namespace != "" {
		role = "Role"
	}
	return fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s", kind, g.binding.name+where, role, g.role.name, g.subject)
}

// current gives the index of now. It reads the events since the last call, and
// makes the index anew only if one of them was of its objects.
func (z *Authorizer) current() (*index, error) {
	snap, err := z.snapshot()
	if err != nil {
		return nil, err
	}
	if ix := z.index.Load(); ix != nil && ix.revision >= snap.Revision() {
		return ix, nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if ix := z.index.Load(); ix != nil && ix.revision >= snap.Revision() {
		return ix, nil
	}
	upTo, changed := z.catchUp()
	if ix := z.index.Load(); !changed && ix != nil && upTo >= snap.Revision() {
		next := *ix
		next.revision = upTo
		z.index.Store(&next)
		return &next, nil
	}
	if snap, err = z.snapshot(); err != nil {
		return nil, err
	}
	if z.watch == nil {
		// Without a watch the next call makes the index anew: slower, not wrong.
		z.watch, _ = z.src.Watch(context.Background(), store.Filter{}, snap.Revision())
	}
	ix := build(snap)
	z.index.Store(ix)
	return ix, nil
}

// catchUp reads what has happened since the last time and gives up to where,
// and whether any of it is of this package's interest.
func (z *Authorizer) catchUp() (upTo uint64, changed bool) {
	if z.watch == nil {
		return 0, true
	}
	over, cancel := context.WithCancel(context.Background())
	cancel() // Next gives what there is, and does not wait
	for {
		events, reached, err := z.watch.Next(over)
		if errors.Is(err, context.Canceled) {
			return reached, changed
		}
		if err != nil {
			z.watch.Stop()
			z.watch = nil
			return 0, true
		}
		for _, e := range events {
			switch e.Key().Resource {
			case rolesKey, clusterRolesKey, roleBindingsKey, clusterRoleBindingsKey:
				changed = true
			}
		}
	}
}

// build reads all RBAC objects. One that cannot be decoded grants nothing.
func build(snap *store.Snapshot) *index {
	ix := &index{revision: snap.Revision(), roles: map[name][]rbacv1.PolicyRule{}, grants: map[string]map[string][]grant{}}
	each(snap, rolesKey, func(r *rbacv1.Role) { ix.roles[name{r.Namespace, r.Name}] = r.Rules })
	each(snap, clusterRolesKey, func(r *rbacv1.ClusterRole) { ix.roles[name{"", r.Name}] = r.Rules })
	each(snap, roleBindingsKey, func(b *rbacv1.RoleBinding) {
		ix.bind(name{b.Namespace, b.Name}, b.RoleRef, b.Subjects)
	})
	each(snap, clusterRoleBindingsKey, func(b *rbacv1.ClusterRoleBinding) {
		ix.bind(name{"", b.Name}, b.RoleRef, b.Subjects)
	})
	return ix
}

func each[T api.Object](snap *store.Snapshot, resource string, f func(T)) {
	for r := range snap.Scan(resource, "", api.Key{}) {
		if obj, err := store.Decode[T](snap, r); err == nil {
			f(obj)
		}
	}
}

func (ix *index) bind(binding name, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	g := grant{binding: binding, role: roleOf(binding.namespace, ref)}
	for _, s := range subjects {
		key := ""
		switch s.Kind {
		case rbacv1.UserKind:
			key, g.subject = "u:"+s.Name, fmt.Sprintf("User %q", s.Name)
		case rbacv1.GroupKind:
			key, g.subject = "g:"+s.Name, fmt.Sprintf("Group %q", s.Name)
		case rbacv1.ServiceAccountKind:
			ns := s.Namespace
			if ns == "" {
				ns = binding.namespace
			}
			key, g.subject = "u:system:serviceaccount:"+ns+":"+s.Name, fmt.Sprintf("ServiceAccount %q", s.Name+"/"+ns)
		default:
			continue
		}
		if ix.grants[binding.namespace] == nil {
			ix.grants[binding.namespace] = map[string][]grant{}
		}
		ix.grants[binding.namespace][key] = append(ix.grants[binding.namespace][key], g)
	}
}

// roleOf is the role that a binding names.
func roleOf(namespace string, ref rbacv1.RoleRef) name {
	if ref.Kind == "ClusterRole" {
		namespace = ""
	}
	return name{namespace, ref.Name}
}

// visit gives what a user is granted, cluster-wide and in a namespace, until f
// gives false.
func (ix *index) visit(u api.User, namespace string, f func(g grant, rules []rbacv1.PolicyRule, known bool) bool) {
	places := []string{""}
	if namespace != "" {
		places = append(places, namespace)
	}
	for _, place := range places {
		grants := ix.grants[place]
		if len(grants) == 0 {
			continue
		}
		for i := -1; i < len(u.Groups); i++ {
			key := "u:" + u.Name
			if i >= 0 {
				key = "g:" + u.Groups[i]
			}
			for _, g := range grants[key] {
				rules, known := ix.roles[g.role]
				if !f(g, rules, known) {
					return
				}
			}
		}
	}
}

// allows finds the grant that lets a request be done.
func (ix *index) allows(a Attributes) (reason string, ok bool) {
	ix.visit(a.User, a.Target.Namespace, func(g grant, rules []rbacv1.PolicyRule, _ bool) bool {
		for _, r := range rules {
			if Allows(r, a) {
				reason, ok = g.String(), true
				return false
			}
		}
		return true
	})
	return reason, ok
}

// Rules gives all that RBAC and the built-in roles grant a user in a namespace,
// and cluster-wide. The error tells of bindings to roles that are not there; the
// rules are what there is all the same.
func (z *Authorizer) Rules(u api.User, namespace string) ([]rbacv1.PolicyRule, error) {
	out := append([]rbacv1.PolicyRule(nil), z.roles[u.Name]...)
	if u.Has(Masters) || u.Has(Controls) {
		out = append(out, everything()...)
	}
	if _, ok := NodeName(u); ok {
		out = append(out, nodeRules()...)
	}
	ix, err := z.current()
	if err != nil {
		return nil, err
	}
	var missing []error
	ix.visit(u, namespace, func(g grant, rules []rbacv1.PolicyRule, known bool) bool {
		if !known {
			missing = append(missing, notThere(g.role))
		}
		out = append(out, rules...)
		return true
	})
	return out, errors.Join(missing...)
}

func notThere(role name) error {
	resource := rolesKey
	if role.namespace == "" {
		resource = clusterRolesKey
	}
	return apierr.NotFound(resource, role.name)
}

func everything() []rbacv1.PolicyRule {
	all := []string{rbacv1.VerbAll}
	return []rbacv1.PolicyRule{{APIGroups: all, Resources: all, Verbs: all}, {NonResourceURLs: all, Verbs: all}}
}

// compact writes a rule on one line, as refusals show it.
func compact(r rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		label string
		list  []string
	}{
		{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs},
		{"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs},
	} {
		if len(p.list) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.label, p.list))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
