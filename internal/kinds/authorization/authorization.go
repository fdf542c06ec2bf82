// Package authorization holds the kinds by which one asks who may do what. They
// are not stored.
package authorization

import (
	"reflect"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

func review(kind, resource string, empty func() api.Object, validate func(api.Object) field.ErrorList) *api.Kind {
	return &api.Kind{
		Group: authorizationv1.GroupName, Version: "v1", Kind: kind,
		Resource: resource, Singular: resource[:len(resource)-1],
		Verbs: []string{"create"}, Virtual: true, New: empty, Validate: validate,
	}
}

// SubjectAccessReview is the kind that asks for anybody.
func SubjectAccessReview() *api.Kind {
	return review("SubjectAccessReview", "subjectaccessreviews",
		func() api.Object { return &authorizationv1.SubjectAccessReview{} }, api.Check(validateSubject))
}

// LocalSubjectAccessReview is the kind that asks for anybody, in one namespace.
func LocalSubjectAccessReview() *api.Kind {
	k := review("LocalSubjectAccessReview", "localsubjectaccessreviews",
		func() api.Object { return &authorizationv1.LocalSubjectAccessReview{} }, api.Check(validateLocal))
	k.Namespaced = true
	return k
}

// SelfSubjectAccessReview is the kind that asks for oneself.
func SelfSubjectAccessReview() *api.Kind {
	return review("SelfSubjectAccessReview", "selfsubjectaccessreviews",
		func() api.Object { return &authorizationv1.SelfSubjectAccessReview{} }, api.Check(validateSelf))
}

// SelfSubjectRulesReview is the kind that asks for all that oneself may do.
func SelfSubjectRulesReview() *api.Kind {
	return review("SelfSubjectRulesReview", "selfsubjectrulesreviews",
		func() api.Object { return &authorizationv1.SelfSubjectRulesReview{} }, nil)
}

func validateSubject(r *authorizationv1.SubjectAccessReview) field.ErrorList {
	return append(validateSpec(&r.Spec), emptyMeta(r.ObjectMeta, "must be empty")...)
}

func validateLocal(r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateSpec(&r.Spec)
	meta := r.ObjectMeta
	meta.Namespace = ""
	errs = append(errs, emptyMeta(meta, "must be empty except for namespace")...)
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(spec.Child("resourceAttributes", "namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if r.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(spec.Child("nonResourceAttributes"), r.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	return errs
}

func validateSelf(r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
	errs := validateAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return append(errs, emptyMeta(r.ObjectMeta, "must be empty")...)
}

func emptyMeta(meta metav1.ObjectMeta, message string) field.ErrorList {
	meta.ManagedFields = nil
	if !reflect.DeepEqual(meta, metav1.ObjectMeta{}) {
		return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, message)}
	}
	return nil
}

func validateSpec(s *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateAttributes(s.ResourceAttributes, s.NonResourceAttributes)
	if s.User == "" && len(s.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), s.User, "at least one of user or group must be specified"))
	}
	return errs
}

func validateAttributes(r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) field.ErrorList {
	spec := field.NewPath("spec")
	switch {
	case r != nil && n != nil:
		return field.ErrorList{field.Invalid(spec.Child("nonResourceAttributes"), n, "cannot be specified in combination with resourceAttributes")}
	case r == nil && n == nil:
		return field.ErrorList{field.Invalid(spec.Child("resourceAttributes"), n, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	case r == nil:
		return nil
	}
	path := spec.Child("resourceAttributes")
	var errs field.ErrorList
	if f := r.FieldSelector; f != nil {
		path := path.Child("fieldSelector")
		errs = append(errs, oneForm(path, f.RawSelector, len(f.Requirements))...)
		for i, q := range f.Requirements {
			errs = append(errs, requirement(path.Child("requirements").Index(i), q.Key, string(q.Operator), q.Values)...)
		}
	}
	if l := r.LabelSelector; l != nil {
		path := path.Child("labelSelector")
		errs = append(errs, oneForm(path, l.RawSelector, len(l.Requirements))...)
		for i, q := range l.Requirements {
			errs = append(errs, requirement(path.Child("requirements").Index(i), q.Key, string(q.Operator), q.Values)...)
		}
	}
	return errs
}

func oneForm(path *field.Path, raw string, requirements int) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(path.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(path.Child("requirements"), "when "+path.String()+" is specified, requirements or rawSelector is required")}
	}
	return nil
}

func requirement(path *field.Path, key, operator string, values []string) field.ErrorList {
	var errs field.ErrorList
	if key == "" {
		errs = append(errs, field.Required(path.Child("key"), "must be specified"))
	}
	switch metav1.LabelSelectorOperator(operator) {
	case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
		if len(values) == 0 {
			errs = append(errs, field.Required(path.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
		if len(values) > 0 {
			errs = append(errs, field.Forbidden(path.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("operator"), operator, []string{"DoesNotExist", "Exists", "In", "NotIn"}))
	}
	return errs
}
