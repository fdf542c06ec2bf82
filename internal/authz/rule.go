package authz

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Allows reports whether a rule covers a request.
func Allows(r rbacv1.PolicyRule, a Attributes) bool {
	if !matches(r.Verbs, a.Verb) {
		return false
	}
	if a.Path != "" {
		return slices.ContainsFunc(r.NonResourceURLs, func(url string) bool { return matchesPath(url, a.Path) })
	}
	return matches(r.APIGroups, a.Target.Group) && matchesResource(r.Resources, a.Target.Resource, a.Target.Subresource) &&
		(len(r.ResourceNames) == 0 || a.Target.Name != "" && slices.Contains(r.ResourceNames, a.Target.Name))
}

func matches(list []string, v string) bool {
	for _, have := range list {
		if have == "*" || have == v {
			return true
		}
	}
	return false
}

// matchesResource knows pods, pods/log, */scale and *.
func matchesResource(list []string, resource, sub string) bool {
	for _, have := range list {
		if have == "*" || sub == "" && have == resource {
			return true
		}
		if parent, child, ok := strings.Cut(have, "/"); ok && sub != "" && child == sub && (parent == "*" || parent == resource) {
			return true
		}
	}
	return false
}

// matchesPath knows /metrics, /healthz/* and *.
func matchesPath(url, path string) bool {
	if prefix, ok := strings.CutSuffix(url, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return url == path
}

// covers reports whether the rules of an owner hold all that a rule grants.
func covers(owner []rbacv1.PolicyRule, rule rbacv1.PolicyRule) (missing []rbacv1.PolicyRule) {
	for _, part := range single(rule) {
		if !slices.ContainsFunc(owner, func(o rbacv1.PolicyRule) bool { return coversOne(o, part) }) {
			missing = append(missing, part)
		}
	}
	return missing
}

// single takes a rule apart into rules of one verb, one group and resource or
// one path, and one name if it has names.
func single(r rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, group := range r.APIGroups {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				part := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}
				if len(r.ResourceNames) == 0 {
					out = append(out, part)
				}
				for _, name := range r.ResourceNames {
					part.ResourceNames = []string{name}
					out = append(out, part)
				}
			}
		}
	}
	for _, url := range r.NonResourceURLs {
		for _, verb := range r.Verbs {
			out = append(out, rbacv1.PolicyRule{NonResourceURLs: []string{url}, Verbs: []string{verb}})
		}
	}
	return out
}

// coversOne reports whether one rule holds what a single one grants.
func coversOne(o, part rbacv1.PolicyRule) bool {
	if !matches(o.Verbs, part.Verbs[0]) {
		return false
	}
	if len(part.NonResourceURLs) > 0 {
		return slices.ContainsFunc(o.NonResourceURLs, func(url string) bool { return matchesPath(url, part.NonResourceURLs[0]) })
	}
	resource, sub, _ := strings.Cut(part.Resources[0], "/")
	return matches(o.APIGroups, part.APIGroups[0]) && matchesResource(o.Resources, resource, sub) &&
		(len(o.ResourceNames) == 0 || len(part.ResourceNames) > 0 && slices.Contains(o.ResourceNames, part.ResourceNames[0]))
}
