package admissionregistration

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

const unset = "<unset>"

// ValidatingAdmissionPolicy is the kind of policies that may refuse.
func ValidatingAdmissionPolicy() *api.Kind {
	doc := admissionv1.ValidatingAdmissionPolicySpec{}.SwaggerDoc()
	return api.WithStatus(&api.Kind{
		Group: admissionv1.GroupName, Version: "v1", Kind: "ValidatingAdmissionPolicy",
		Resource: "validatingadmissionpolicies", Singular: "validatingadmissionpolicy",
		Warn:          unused(policiesUnused),
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &admissionv1.ValidatingAdmissionPolicy{} },
		Default: api.On(func(p *admissionv1.ValidatingAdmissionPolicy) {
			api.SetDefault(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		}),
		Validate: api.Check(validatePolicy),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Validations", "How many validations the policy has."),
			api.TextColumn("ParamKind", doc["paramKind"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(p *admissionv1.ValidatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Validations)), paramKind(p.Spec.ParamKind), api.Age(p.CreationTimestamp, now)}
		}),
	}, func(p *admissionv1.ValidatingAdmissionPolicy) *admissionv1.ValidatingAdmissionPolicySpec {
		return &p.Spec
	},
		func(p *admissionv1.ValidatingAdmissionPolicy) *admissionv1.ValidatingAdmissionPolicyStatus {
			return &p.Status
		})
}

// MutatingAdmissionPolicy is the kind of policies that may change.
func MutatingAdmissionPolicy() *api.Kind {
	doc := admissionv1.MutatingAdmissionPolicySpec{}.SwaggerDoc()
	return api.WithSpec(&api.Kind{
		Group: admissionv1.GroupName, Version: "v1", Kind: "MutatingAdmissionPolicy",
		Resource: "mutatingadmissionpolicies", Singular: "mutatingadmissionpolicy",
		Warn:          unused(policiesUnused),
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &admissionv1.MutatingAdmissionPolicy{} },
		Default: api.On(func(p *admissionv1.MutatingAdmissionPolicy) {
			api.SetDefault(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		}),
		Validate: api.Check(validateMutatingPolicy),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Mutations", "How many mutations the policy has."),
			api.TextColumn("ParamKind", doc["paramKind"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(p *admissionv1.MutatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Mutations)), paramKind(p.Spec.ParamKind), api.Age(p.CreationTimestamp, now)}
		}),
	}, func(p *admissionv1.MutatingAdmissionPolicy) any { return &p.Spec })
}

func paramKind(k *admissionv1.ParamKind) string {
	if k == nil {
		return unset
	}
	return k.APIVersion + "/" + k.Kind
}

func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	api.SetDefault(&m.MatchPolicy, admissionv1.Equivalent)
	api.SetDefault(&m.NamespaceSelector, metav1.LabelSelector{})
	api.SetDefault(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			api.SetDefault(&rules[i].Scope, admissionv1.AllScopes)
		}
	}
}

// ValidatingAdmissionPolicyBinding is the kind of what gives a policy effect.
func ValidatingAdmissionPolicyBinding() *api.Kind {
	return api.WithSpec(&api.Kind{
		Group: admissionv1.GroupName, Version: "v1", Kind: "ValidatingAdmissionPolicyBinding",
		Resource: "validatingadmissionpolicybindings", Singular: "validatingadmissionpolicybinding",
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &admissionv1.ValidatingAdmissionPolicyBinding{} },
		Default:       api.On(func(b *admissionv1.ValidatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		Validate:      api.Check(validateBinding),
		Columns:       bindingColumns(admissionv1.ValidatingAdmissionPolicyBindingSpec{}.SwaggerDoc()),
		Cells: api.Row(func(b *admissionv1.ValidatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRef(b.Spec.ParamRef), api.Age(b.CreationTimestamp, now)}
		}),
	}, func(b *admissionv1.ValidatingAdmissionPolicyBinding) any { return &b.Spec })
}

// MutatingAdmissionPolicyBinding is the kind of what gives a mutating policy
// effect.
func MutatingAdmissionPolicyBinding() *api.Kind {
	return api.WithSpec(&api.Kind{
		Group: admissionv1.GroupName, Version: "v1", Kind: "MutatingAdmissionPolicyBinding",
		Resource: "mutatingadmissionpolicybindings", Singular: "mutatingadmissionpolicybinding",
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &admissionv1.MutatingAdmissionPolicyBinding{} },
		Default:       api.On(func(b *admissionv1.MutatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		Validate:      api.Check(validateMutatingBinding),
		Columns:       bindingColumns(admissionv1.MutatingAdmissionPolicyBindingSpec{}.SwaggerDoc()),
		Cells: api.Row(func(b *admissionv1.MutatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRef(b.Spec.ParamRef), api.Age(b.CreationTimestamp, now)}
		}),
	}, func(b *admissionv1.MutatingAdmissionPolicyBinding) any { return &b.Spec })
}

func bindingColumns(doc map[string]string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.TextColumn("PolicyName", doc["policyName"]),
		api.TextColumn("ParamRef", doc["paramRef"]),
		api.AgeColumn(),
	}
}

func paramRef(r *admissionv1.ParamRef) string {
	switch {
	case r == nil:
		return unset
	case r.Name == "":
		return r.Namespace + "/*"
	case r.Namespace == "":
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}
