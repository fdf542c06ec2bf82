package admissionregistration

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxTimeout    = 30
	maxConditions = 64
	wildcard      = "*"
)

func reinvocations() []admissionv1.ReinvocationPolicyType {
	return []admissionv1.ReinvocationPolicyType{admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy}
}

// oneOf demands one of the values known.
func oneOf[T ~string](at *field.Path, value T, known []T) field.ErrorList {
	if slices.Contains(known, value) {
		return nil
	}
	slices.SortFunc(known, cmp.Compare[T])
	return field.ErrorList{field.NotSupported(at, value, known)}
}

// invalid makes an error of each message.
func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

func validateSelector(s *metav1.LabelSelector, at *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at)
}

func validateWebhooks(hooks []admissionv1.ValidatingWebhook) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range hooks {
		h, at := &hooks[i], field.NewPath("webhooks").Index(i)
		errs = append(errs, validateWebhook(h, at)...)
		errs = append(errs, validateReviewVersions(h.AdmissionReviewVersions, at.Child("admissionReviewVersions"))...)
		if h.Name != "" && seen[h.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), h.Name))
		}
		seen[h.Name] = true
	}
	return errs
}

func validateWebhook(h *admissionv1.ValidatingWebhook, at *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(at.Child("name"), h.Name)
	for i := range h.Rules {
		errs = append(errs, validateOperations(&h.Rules[i], at.Child("rules").Index(i))...)
	}
	if h.FailurePolicy != nil {
		errs = append(errs, oneOf(at.Child("failurePolicy"), *h.FailurePolicy, failurePolicies())...)
	}
	if h.MatchPolicy != nil {
		errs = append(errs, oneOf(at.Child("matchPolicy"), *h.MatchPolicy, matchPolicies())...)
	}
	if h.SideEffects == nil {
		errs = append(errs, field.Required(at.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, oneOf(at.Child("sideEffects"), *h.SideEffects, []admissionv1.SideEffectClass{
			admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun,
		})...)
	}
	if s := h.TimeoutSeconds; s != nil && (*s < 1 || *s > maxTimeout) {
		errs = append(errs, field.Invalid(at.Child("timeoutSeconds"), *s, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, validateSelector(h.NamespaceSelector, at.Child("namespaceSelector"))...)
	errs = append(errs, validateSelector(h.ObjectSelector, at.Child("objectSelector"))...)
	errs = append(errs, validateClient(&h.ClientConfig, at.Child("clientConfig"))...)
	return append(errs, validateConditions(h.MatchConditions, at.Child("matchConditions"))...)
}

func failurePolicies() []admissionv1.FailurePolicyType {
	return []admissionv1.FailurePolicyType{admissionv1.Fail, admissionv1.Ignore}
}

func matchPolicies() []admissionv1.MatchPolicyType {
	return []admissionv1.MatchPolicyType{admissionv1.Equivalent, admissionv1.Exact}
}

func validateReviewVersions(versions []string, at *field.Path) field.ErrorList {
	const known = "v1, v1beta1"
	if len(versions) == 0 {
		return field.ErrorList{field.Required(at, "must specify one of "+known)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, v := range versions {
		if seen[v] {
			errs = append(errs, field.Invalid(at.Index(i), v, "duplicate version"))
			continue
		}
		seen[v] = true
		errs = append(errs, invalid(at.Index(i), v, validation.IsDNS1035Label(v))...)
	}
	if !seen["v1"] && !seen["v1beta1"] {
		errs = append(errs, field.Invalid(at, versions, "must include at least one of "+known))
	}
	return errs
}

func validateClient(c *admissionv1.WebhookClientConfig, at *field.Path) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(at, "exactly one of url or service is required")}
	case c.URL != nil:
		return validateURL(*c.URL, at.Child("url"))
	}
	var errs field.ErrorList
	s, at := c.Service, at.Child("service")
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "service name is required"))
	}
	if s.Namespace == "" {
		errs = append(errs, field.Required(at.Child("namespace"), "service namespace is required"))
	}
	if s.Port != nil {
		if bad := validation.IsValidPortNum(int(*s.Port)); bad != nil {
			errs = append(errs, field.Invalid(at.Child("port"), *s.Port, "port is not valid: "+strings.Join(bad, ",")))
		}
	}
	if s.Path != nil {
		errs = append(errs, validatePath(*s.Path, at.Child("path"))...)
	}
	return errs
}

func validateURL(text string, at *field.Path) field.ErrorList {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(text)
	if err != nil {
		return field.ErrorList{field.Required(at, "url must be a valid URL: "+err.Error()+form)}
	}
	var errs field.ErrorList
	if u.Scheme != "https" {
		errs = append(errs, field.Invalid(at, u.Scheme, "'https' is the only allowed URL scheme"+form))
	}
	if u.Host == "" {
		errs = append(errs, field.Invalid(at, u.Host, "host must be specified"+form))
	}
	if u.User != nil {
		errs = append(errs, field.Invalid(at, u.User.String(), "user information is not permitted in the URL"))
	}
	if u.Fragment != "" {
		errs = append(errs, field.Invalid(at, u.Fragment, "fragments are not permitted in the URL"))
	}
	if u.RawQuery != "" {
		errs = append(errs, field.Invalid(at, u.RawQuery, "query parameters are not permitted in the URL"))
	}
	return errs
}

func validatePath(p string, at *field.Path) field.ErrorList {
	if p == "" || p == "/" {
		return nil
	}
	var errs field.ErrorList
	if p[0] != '/' {
		errs = append(errs, field.Invalid(at, p, "must start with a '/'"))
	}
	for i, step := range strings.Split(strings.TrimSuffix(p[1:], "/"), "/") {
		if step == "" {
			errs = append(errs, field.Invalid(at, p, fmt.Sprintf("segment[%d] may not be empty", i)))
			continue
		}
		for _, msg := range validation.IsDNS1123Subdomain(step) {
			errs = append(errs, field.Invalid(at, p, fmt.Sprintf("segment[%d]: %v", i, msg)))
		}
	}
	return errs
}

func validateConditions(all []admissionv1.MatchCondition, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(all) > maxConditions {
		errs = append(errs, field.TooMany(at, len(all), maxConditions))
	}
	seen := map[string]bool{}
	for i, c := range all {
		one := at.Index(i)
		if strings.TrimSpace(c.Expression) == "" {
			errs = append(errs, field.Required(one.Child("expression"), ""))
		}
		if c.Name == "" {
			errs = append(errs, field.Required(one.Child("name"), ""))
			continue
		}
		errs = append(errs, invalid(one.Child("name"), c.Name, validation.IsQualifiedName(c.Name))...)
		if seen[c.Name] {
			errs = append(errs, field.Duplicate(one.Child("name"), c.Name))
		}
		seen[c.Name] = true
	}
	return errs
}

func validateOperations(r *admissionv1.RuleWithOperations, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	ops := at.Child("operations")
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(ops, ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		errs = append(errs, field.Invalid(ops, r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, o := range r.Operations {
		errs = append(errs, oneOf(ops.Index(i), o, []admissionv1.OperationType{
			admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Delete, admissionv1.Update,
		})...)
	}
	return append(errs, validateRule(&r.Rule, at)...)
}

func validateRule(r *admissionv1.Rule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name, what string
		is         []string
	}{{"apiGroups", "API groups", r.APIGroups}, {"apiVersions", "API versions", r.APIVersions}} {
		if len(f.is) == 0 {
			errs = append(errs, field.Required(at.Child(f.name), ""))
		}
		if len(f.is) > 1 && slices.Contains(f.is, wildcard) {
			errs = append(errs, field.Invalid(at.Child(f.name), f.is, "if '*' is present, must not specify other "+f.what))
		}
	}
	for i, v := range r.APIVersions {
		if v == "" {
			errs = append(errs, field.Required(at.Child("apiVersions").Index(i), ""))
		}
	}
	errs = append(errs, validateResources(r.Resources, at.Child("resources"))...)
	if r.Scope != nil {
		errs = append(errs, oneOf(at.Child("scope"), *r.Scope, []admissionv1.ScopeType{
			admissionv1.AllScopes, admissionv1.ClusterScope, admissionv1.NamespacedScope,
		})...)
	}
	return errs
}

func validateResources(all []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(all) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	wildSubs, wildResources, plain := map[string]bool{}, map[string]bool{}, false
	for i, r := range all {
		if r == "" {
			errs = append(errs, field.Required(at.Index(i), ""))
			continue
		}
		res, sub, ok := strings.Cut(r, "/")
		if !ok {
			plain = plain || r != wildcard
			continue
		}
		if wildSubs[res] {
			errs = append(errs, field.Invalid(at.Index(i), r, fmt.Sprintf("if '%s/*' is present, must not specify %s", res, r)))
		}
		if wildResources[sub] {
			errs = append(errs, field.Invalid(at.Index(i), r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
		wildSubs[res] = wildSubs[res] || sub == wildcard
		wildResources[sub] = wildResources[sub] || res == wildcard
	}
	if len(all) > 1 && slices.Contains(all, "*/*") {
		errs = append(errs, field.Invalid(at, all, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(all, wildcard) {
		errs = append(errs, field.Invalid(at, all, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}
