package policy

import (
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// unset is what tables print for a bound that is not given.
const unset = "N/A"

// PodDisruptionBudget is the kind of budgets for disruptions.
func PodDisruptionBudget() *api.Kind {
	spec, status := policyv1.PodDisruptionBudgetSpec{}.SwaggerDoc(), policyv1.PodDisruptionBudgetStatus{}.SwaggerDoc()
	return &api.Kind{
		Group: "policy", Version: "v1", Kind: "PodDisruptionBudget",
		Resource: "poddisruptionbudgets", Singular: "poddisruptionbudget",
		ShortNames:   []string{"pdb"},
		Namespaced:   true,
		Verbs:        []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{{Name: "status", Verbs: []string{"get", "patch", "update"}}},
		New:          func() api.Object { return &policyv1.PodDisruptionBudget{} },
		OnCreate:     api.On(func(b *policyv1.PodDisruptionBudget) { b.Status = policyv1.PodDisruptionBudgetStatus{} }),
		OnUpdate:     api.OnPair(func(b, old *policyv1.PodDisruptionBudget) { b.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(b, old *policyv1.PodDisruptionBudget) {
			api.KeepMeta(b, old)
			b.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:         api.Of(func(b *policyv1.PodDisruptionBudget) any { return &b.Spec }),
		Validate:       api.Check(validate),
		ValidateStatus: api.CheckPair(validateStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Min Available", spec["minAvailable"]),
			api.TextColumn("Max Unavailable", spec["maxUnavailable"]),
			api.NumberColumn("Allowed Disruptions", status["disruptionsAllowed"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(b *policyv1.PodDisruptionBudget, now time.Time) []any {
			return []any{b.Name, bound(b.Spec.MinAvailable), bound(b.Spec.MaxUnavailable), int64(b.Status.DisruptionsAllowed), api.Age(b.CreationTimestamp, now)}
		}),
		NeedsRevision: true,
	}
}

func bound(v *intstr.IntOrString) string {
	if v == nil {
		return unset
	}
	return v.String()
}

func validate(b *policyv1.PodDisruptionBudget) field.ErrorList {
	s, path := &b.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, *s, "minAvailable and maxUnavailable cannot be both set"))
	}
	errs = append(errs, validateBound(s.MinAvailable, path.Child("minAvailable"))...)
	errs = append(errs, validateBound(s.MaxUnavailable, path.Child("maxUnavailable"))...)
	errs = append(errs, metavalidation.ValidateLabelSelector(s.Selector, metavalidation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	if p := s.UnhealthyPodEvictionPolicy; p != nil && *p != policyv1.AlwaysAllow && *p != policyv1.IfHealthyBudget {
		errs = append(errs, field.NotSupported(path.Child("unhealthyPodEvictionPolicy"), *p,
			[]policyv1.UnhealthyPodEvictionPolicyType{policyv1.AlwaysAllow, policyv1.IfHealthyBudget}))
	}
	return errs
}

// validateBound checks a number of pods, or a percentage of them.
func validateBound(v *intstr.IntOrString, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case v == nil:
	case v.Type == intstr.Int:
		if v.IntVal < 0 {
			errs = append(errs, field.Invalid(path, int64(v.IntVal), "must be greater than or equal to 0"))
		}
	default:
		for _, msg := range utilvalidation.IsValidPercent(v.StrVal) {
			errs = append(errs, field.Invalid(path, *v, msg))
		}
		if n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, false); len(errs) == 0 && err == nil && n > 100 {
			errs = append(errs, field.Invalid(path, *v, "must not be greater than 100%"))
		}
	}
	return errs
}

func validateStatus(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	s, path := &b.Status, field.NewPath("status")
	errs := metavalidation.ValidateConditions(s.Conditions, path.Child("conditions"))
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"disruptionsAllowed", s.DisruptionsAllowed}, {"currentHealthy", s.CurrentHealthy},
		{"desiredHealthy", s.DesiredHealthy}, {"expectedPods", s.ExpectedPods},
	} {
		if n.value < 0 {
			errs = append(errs, field.Invalid(path.Child(n.name), int64(n.value), "must be greater than or equal to 0"))
		}
	}
	return errs
}
