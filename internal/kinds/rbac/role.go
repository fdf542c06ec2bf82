package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// The names of kinds in role references and subjects.
const (
	kindRole        = "Role"
	kindClusterRole = "ClusterRole"
)

// Role is the kind of roles.
func Role() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Version: "v1", Kind: kindRole,
		Resource: "roles", Singular: "role",
		CreateOnUpdate: true,
		Namespaced:     true,
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &rbacv1.Role{} },
		ValidName:      path.ValidatePathSegmentName,
		Validate: api.Check(func(r *rbacv1.Role) field.ErrorList {
			return validateRules(r.Rules, true)
		}),
	}
}

// ClusterRole is the kind of cluster roles.
func ClusterRole() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Version: "v1", Kind: kindClusterRole,
		Resource: "clusterroles", Singular: "clusterrole",
		CreateOnUpdate: true,
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &rbacv1.ClusterRole{} },
		ValidName:      path.ValidatePathSegmentName,
		Validate: api.Check(func(r *rbacv1.ClusterRole) field.ErrorList {
			return append(validateRules(r.Rules, false), validateAggregation(r.AggregationRule)...)
		}),
	}
}

func validateRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i := range rules {
		errs = append(errs, validateRule(&rules[i], namespaced, field.NewPath("rules").Index(i))...)
	}
	return errs
}

func validateRule(r *rbacv1.PolicyRule, namespaced bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Verbs) == 0 {
		errs = append(errs, field.Required(at.Child("verbs"), "verbs must contain at least one value"))
	}
	if len(r.NonResourceURLs) > 0 {
		urls := at.Child("nonResourceURLs")
		if namespaced {
			errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(at.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(at.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}

func validateAggregation(a *rbacv1.AggregationRule) field.ErrorList {
	if a == nil {
		return nil
	}
	at := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(a.ClusterRoleSelectors) == 0 {
		return field.ErrorList{field.Required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil")}
	}
	var errs field.ErrorList
	for i := range a.ClusterRoleSelectors {
		errs = append(errs, metavalidation.ValidateLabelSelector(&a.ClusterRoleSelectors[i], metavalidation.LabelSelectorValidationOptions{}, at.Index(i))...)
	}
	return errs
}
