package admissionregistration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxAuditAnnotations = 20

// identifier is a name that CEL can use.
var identifier = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

func validatePolicy(p *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	s, at := &p.Spec, field.NewPath("spec")
	errs := validateFailure(s.FailurePolicy, at)
	errs = append(errs, validateScope(s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables, at)...)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const need = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(at.Child("validations"), need), field.Required(at.Child("auditAnnotations"), need))
	}
	for i := range s.Validations {
		errs = append(errs, validateValidation(&s.Validations[i], at.Child("validations").Index(i))...)
	}
	return append(errs, validateAudit(p.Name, s.AuditAnnotations, at.Child("auditAnnotations"))...)
}

func validateFailure(p *admissionv1.FailurePolicyType, at *field.Path) field.ErrorList {
	if p == nil {
		return field.ErrorList{field.Required(at.Child("failurePolicy"), "")}
	}
	return oneOf(at.Child("failurePolicy"), *p, failurePolicies())
}

// validateScope checks what both kinds of policies have.
func validateScope(k *admissionv1.ParamKind, m *admissionv1.MatchResources, conditions []admissionv1.MatchCondition, variables []admissionv1.Variable, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if k != nil {
		errs = validateParamKind(k, at.Child("paramKind"))
	}
	if m == nil {
		errs = append(errs, field.Required(at.Child("matchConstraints"), ""))
	} else {
		errs = append(errs, validateMatch(m, at.Child("matchConstraints"))...)
		if len(m.ResourceRules) == 0 {
			errs = append(errs, field.Required(at.Child("matchConstraints", "resourceRules"), ""))
		}
	}
	errs = append(errs, validateConditions(conditions, at.Child("matchConditions"))...)
	for i, v := range variables {
		one := at.Child("variables").Index(i)
		if v.Name == "" {
			errs = append(errs, field.Required(one.Child("name"), "name is not specified"))
		} else if !identifier.MatchString(v.Name) {
			errs = append(errs, field.Invalid(one.Child("name"), v.Name, "name is not a valid CEL identifier"))
		}
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(one.Child("expression"), "expression is not specified"))
		}
	}
	return errs
}

func validateParamKind(k *admissionv1.ParamKind, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if k.APIVersion == "" {
		errs = append(errs, field.Required(at.Child("apiVersion"), ""))
	} else {
		group, version, ok := strings.Cut(k.APIVersion, "/")
		if !ok {
			group, version = "", k.APIVersion
		}
		if group != "" {
			errs = append(errs, invalid(at.Child("apiVersion"), k.APIVersion, utilvalidation.IsDNS1123Subdomain(group))...)
		}
		errs = append(errs, invalid(at.Child("apiVersion"), k.APIVersion, utilvalidation.IsDNS1035Label(version))...)
	}
	if k.Kind == "" {
		errs = append(errs, field.Required(at.Child("kind"), ""))
	} else if bad := utilvalidation.IsDNS1035Label(strings.ToLower(k.Kind)); len(bad) > 0 {
		errs = append(errs, field.Invalid(at.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(bad, ",")))
	}
	return errs
}

func validateMatch(m *admissionv1.MatchResources, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.MatchPolicy == nil {
		errs = append(errs, field.Required(at.Child("matchPolicy"), ""))
	} else {
		errs = append(errs, oneOf(at.Child("matchPolicy"), *m.MatchPolicy, matchPolicies())...)
	}
	errs = append(errs, validateSelector(m.NamespaceSelector, at.Child("namespaceSelector"))...)
	errs = append(errs, validateSelector(m.ObjectSelector, at.Child("objectSelector"))...)
	for i := range m.ResourceRules {
		errs = append(errs, validateNamed(&m.ResourceRules[i], at.Child("resourceRules").Index(i))...)
	}
	for i := range m.ExcludeResourceRules {
		errs = append(errs, validateNamed(&m.ExcludeResourceRules[i], at.Child("excludeResourceRules").Index(i))...)
	}
	return errs
}

func validateNamed(r *admissionv1.NamedRuleWithOperations, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range r.ResourceNames {
		one := at.Child("resourceNames").Index(i)
		errs = append(errs, invalid(one, name, path.ValidatePathSegmentName(name, false))...)
		if slices.Contains(r.ResourceNames[:i], name) {
			errs = append(errs, field.Duplicate(one, name))
		}
	}
	return append(errs, validateOperations(&r.RuleWithOperations, at)...)
}

func validateValidation(v *admissionv1.Validation, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	message := strings.TrimSpace(v.Message)
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
	}
	if v.MessageExpression != "" && strings.TrimSpace(v.MessageExpression) == "" {
		errs = append(errs, field.Invalid(at.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified"))
	}
	switch {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(at.Child("message"), v.Message, "message must be non-empty if specified"))
	case strings.Contains(message, "\n"):
		errs = append(errs, field.Invalid(at.Child("message"), v.Message, "message must not contain line breaks"))
	case message == "" && strings.Contains(strings.TrimSpace(v.Expression), "\n"):
		errs = append(errs, field.Required(at.Child("message"), "message must be specified if expression contains line breaks"))
	}
	if v.Reason != nil {
		errs = append(errs, oneOf(at.Child("reason"), *v.Reason, []metav1.StatusReason{
			metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge, metav1.StatusReasonUnauthorized,
		})...)
	}
	return errs
}

func validateAudit(policy string, all []admissionv1.AuditAnnotation, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(all) > maxAuditAnnotations {
		errs = append(errs, field.TooMany(at, len(all), maxAuditAnnotations))
	}
	seen := map[string]bool{}
	for i, a := range all {
		one := at.Index(i)
		errs = append(errs, invalid(one.Child("key"), a.Key, utilvalidation.IsQualifiedName(policy+"/"+a.Key))...)
		if strings.TrimSpace(a.ValueExpression) == "" {
			errs = append(errs, field.Required(one.Child("valueExpression"), "valueExpression is not specified"))
		}
		if seen[a.Key] {
			errs = append(errs, field.Duplicate(one.Child("key"), a.Key))
		}
		seen[a.Key] = true
	}
	return errs
}

func validateMutatingPolicy(p *admissionv1.MutatingAdmissionPolicy) field.ErrorList {
	s, at := &p.Spec, field.NewPath("spec")
	errs := validateFailure(s.FailurePolicy, at)
	errs = append(errs, validateScope(s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables, at)...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(at.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, validateMutation(&s.Mutations[i], at.Child("mutations").Index(i))...)
	}
	if s.ReinvocationPolicy == "" {
		return append(errs, field.Required(at.Child("reinvocationPolicy"), ""))
	}
	return append(errs, oneOf(at.Child("reinvocationPolicy"), s.ReinvocationPolicy, reinvocations())...)
}

func validateMutation(m *admissionv1.Mutation, at *field.Path) field.ErrorList {
	types := []admissionv1.PatchType{admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch}
	switch m.PatchType {
	case "":
		return field.ErrorList{field.Required(at.Child("patchType"), "")}
	case admissionv1.PatchTypeApplyConfiguration:
		expression, set := "", m.ApplyConfiguration != nil
		if set {
			expression = m.ApplyConfiguration.Expression
		}
		return validateChange(m.PatchType, at, "applyConfiguration", set, expression, "jsonPatch", m.JSONPatch != nil)
	case admissionv1.PatchTypeJSONPatch:
		expression, set := "", m.JSONPatch != nil
		if set {
			expression = m.JSONPatch.Expression
		}
		return validateChange(m.PatchType, at, "jsonPatch", set, expression, "applyConfiguration", m.ApplyConfiguration != nil)
	}
	return field.ErrorList{field.NotSupported(at.Child("patchType"), m.PatchType, types)}
}

// validateChange demands the one field that goes with a patch type.
func validateChange(t admissionv1.PatchType, at *field.Path, name string, set bool, expression, other string, otherSet bool) field.ErrorList {
	var errs field.ErrorList
	if !set {
		errs = append(errs, field.Required(at.Child(name), fmt.Sprintf("must be specified when patchType is %s", t)))
	} else if strings.TrimSpace(expression) == "" {
		errs = append(errs, field.Required(at.Child(name, "expression"), "expression is not specified"))
	}
	if otherSet {
		errs = append(errs, field.Invalid(at.Child(other), "{"+other+"}", fmt.Sprintf("must not be specified when patchType is %s", t)))
	}
	return errs
}

func validateBinding(b *admissionv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateBound(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, at)
	actions := at.Child("validationActions")
	if len(b.Spec.ValidationActions) == 0 {
		return append(errs, field.Required(actions, "at least one validation action is required"))
	}
	for i, a := range b.Spec.ValidationActions {
		errs = append(errs, oneOf(actions.Index(i), a, []admissionv1.ValidationAction{admissionv1.Audit, admissionv1.Deny, admissionv1.Warn})...)
		if slices.Contains(b.Spec.ValidationActions[:i], a) {
			errs = append(errs, field.Duplicate(actions.Index(i), a))
		}
	}
	if slices.Contains(b.Spec.ValidationActions, admissionv1.Deny) && slices.Contains(b.Spec.ValidationActions, admissionv1.Warn) {
		errs = append(errs, field.Invalid(actions, b.Spec.ValidationActions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}

func validateMutatingBinding(b *admissionv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	return validateBound(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, field.NewPath("spec"))
}

func validateBound(policy string, ref *admissionv1.ParamRef, m *admissionv1.MatchResources, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Required(at.Child("policyName"), ""))
	} else {
		errs = append(errs, invalid(at.Child("policyName"), policy, validation.NameIsDNSSubdomain(policy, false))...)
	}
	if ref != nil {
		errs = append(errs, validateParamRef(ref, at.Child("paramRef"))...)
	}
	if m != nil {
		errs = append(errs, validateMatch(m, at.Child("matchResources"))...)
	}
	return errs
}

func validateParamRef(r *admissionv1.ParamRef, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	const both = "name and selector are mutually exclusive"
	if r.Name != "" {
		errs = append(errs, invalid(at.Child("name"), r.Name, path.ValidatePathSegmentName(r.Name, false))...)
		if r.Selector != nil {
			errs = append(errs, field.Forbidden(at.Child("name"), both))
		}
	}
	if r.Selector != nil {
		errs = append(errs, validateSelector(r.Selector, at.Child("selector"))...)
		if r.Name != "" {
			errs = append(errs, field.Forbidden(at.Child("selector"), both))
		}
	}
	if r.Name == "" && r.Selector == nil {
		errs = append(errs, field.Required(at, "one of name or selector must be specified"))
	}
	action := at.Child("parameterNotFoundAction")
	if r.ParameterNotFoundAction == nil || *r.ParameterNotFoundAction == "" {
		return append(errs, field.Required(action, ""))
	}
	return append(errs, oneOf(action, *r.ParameterNotFoundAction, []admissionv1.ParameterNotFoundActionType{admissionv1.AllowAction, admissionv1.DenyAction})...)
}
