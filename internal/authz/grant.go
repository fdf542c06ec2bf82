package authz

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Group is the API group of RBAC objects.
const Group = rbacv1.GroupName

// MayGrant refuses a write of an RBAC object by which a user would give out
// rights that he does not have himself. Who may "escalate" a role, or "bind"
// the role that a binding names, may give out all of it. Old is nil for a
// create; a write of nothing but what the garbage collector writes is not
// looked at. A label alone may give rights, since aggregated roles gather by
// labels. Other objects pass.
func (z *Authorizer) MayGrant(u api.User, obj, old api.Object) error {
	if u.Has(Masters) || u.Has(Controls) || old != nil && onlyCollected(obj, old) {
		return nil
	}
	switch o := obj.(type) {
	case *rbacv1.Role:
		return z.mayRule(u, "roles", o.Namespace, o.Name, o.Rules)
	case *rbacv1.ClusterRole:
		rules := o.Rules
		// With an aggregationRule it may come to hold anything, and without the
		// one that it had it keeps what it gathered.
		was, _ := old.(*rbacv1.ClusterRole)
		if o.AggregationRule != nil || was != nil && was.AggregationRule != nil {
			rules = append(slices.Clone(rules), everything()...)
		}
		return z.mayRule(u, "clusterroles", "", o.Name, rules)
	case *rbacv1.RoleBinding:
		return z.mayBind(u, "rolebindings", o.Namespace, o.Name, o.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return z.mayBind(u, "clusterrolebindings", "", o.Name, o.RoleRef)
	}
	return nil
}

// onlyCollected reports whether two versions of an object differ in nothing but
// what the garbage collector needs to write, and what the server itself keeps.
func onlyCollected(obj, old api.Object) bool {
	now, ok := obj.DeepCopyObject().(api.Object)
	if !ok {
		return false
	}
	now.GetObjectKind().SetGroupVersionKind(old.GetObjectKind().GroupVersionKind())
	now.SetOwnerReferences(old.GetOwnerReferences())
	now.SetFinalizers(old.GetFinalizers())
	now.SetManagedFields(old.GetManagedFields())
	now.SetResourceVersion(old.GetResourceVersion())
	return equality.Semantic.DeepEqual(now, old)
}

func (z *Authorizer) mayRule(u api.User, resource, namespace, name string, rules []rbacv1.PolicyRule) error {
	t := api.Target{Group: Group, Version: "v1", Resource: resource, Namespace: namespace, Name: name}
	if ok, _ := z.Decide(Attributes{User: u, Verb: "escalate", Target: t}); ok {
		return nil
	}
	return z.holds(u, t, rules)
}

func (z *Authorizer) mayBind(u api.User, resource, namespace, binding string, ref rbacv1.RoleRef) error {
	role := roleOf(namespace, ref)
	to := api.Target{Group: Group, Version: "v1", Resource: "clusterroles", Namespace: namespace, Name: ref.Name}
	if ref.Kind == "Role" {
		to.Resource = "roles"
	}
	if ok, _ := z.Decide(Attributes{User: u, Verb: "bind", Target: to}); ok {
		return nil
	}
	ix, err := z.current()
	if err != nil {
		return err
	}
	rules, ok := ix.roles[role]
	if !ok {
		return notThere(role)
	}
	return z.holds(u, api.Target{Group: Group, Resource: resource, Namespace: namespace, Name: binding}, rules)
}

// holds refuses rules of which a user does not have all.
func (z *Authorizer) holds(u api.User, t api.Target, rules []rbacv1.PolicyRule) error {
	own, unresolved := z.Rules(u, t.Namespace)
	var missing []rbacv1.PolicyRule
	for _, r := range rules {
		missing = append(missing, covers(own, r)...)
	}
	if len(missing) == 0 {
		return nil
	}
	var lines []string
	for _, r := range merged(missing) {
		lines = append(lines, compact(r))
	}
	slices.Sort(lines)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", u.Name, u.Groups, strings.Join(lines, "\n"))
	if unresolved != nil {
		text += fmt.Sprintf("; resolution errors: [%s]", strings.ReplaceAll(unresolved.Error(), "\n", ", "))
	}
	return apierr.Forbidden(t.Resource+"."+t.Group, t.Name, fmt.Errorf("%s", text))
}

// merged puts single rules that differ in their verb together.
func merged(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, r := range rules {
		i := slices.IndexFunc(out, func(o rbacv1.PolicyRule) bool {
			return slices.Equal(o.APIGroups, r.APIGroups) && slices.Equal(o.Resources, r.Resources) &&
				slices.Equal(o.ResourceNames, r.ResourceNames) && slices.Equal(o.NonResourceURLs, r.NonResourceURLs)
		})
		if i < 0 {
			out = append(out, r)
		} else if !slices.Contains(out[i].Verbs, r.Verbs[0]) {
			out[i].Verbs = append(slices.Clone(out[i].Verbs), r.Verbs[0])
		}
	}
	return out
}
