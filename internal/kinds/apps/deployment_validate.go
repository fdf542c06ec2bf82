package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateDeployment(d *appsv1.Deployment) field.ErrorList {
	s, path := &d.Spec, field.NewPath("spec")
	errs := notNegative(path, named{"replicas", int64(number(s.Replicas))})
	selector, more := validateSelector(s.Selector, "deployment", path.Child("selector"))
	errs = append(errs, more...)
	errs = append(errs, validateTemplate(&s.Template, selector, path.Child("template"))...)
	errs = append(errs, validateStrategy(&s.Strategy, path.Child("strategy"))...)
	errs = append(errs, notNegative(path, named{"minReadySeconds", int64(s.MinReadySeconds)})...)
	if s.RevisionHistoryLimit != nil {
		errs = append(errs, notNegative(path, named{"revisionHistoryLimit", int64(*s.RevisionHistoryLimit)})...)
	}
	if p := s.ProgressDeadlineSeconds; p != nil {
		errs = append(errs, notNegative(path, named{"progressDeadlineSeconds", int64(*p)})...)
		if *p <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *p, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateStrategy(s *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(path.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(path.Child("rollingUpdate"), "this should be defaulted and never be nil")}
		}
		return validateRolling(s.RollingUpdate, path.Child("rollingUpdate"))
	}
	return field.ErrorList{field.NotSupported(path, s, []appsv1.DeploymentStrategyType{
		appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType,
	})}
}

func validateRolling(r *appsv1.RollingUpdateDeployment, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	unavailable, surge := part(r.MaxUnavailable), part(r.MaxSurge)
	errs = append(errs, validatePart(unavailable, path.Child("maxUnavailable"))...)
	errs = append(errs, validatePart(surge, path.Child("maxSurge"))...)
	if amount(unavailable) == 0 && amount(surge) == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, notOverAll(unavailable, path.Child("maxUnavailable"))...)
}

// part is what v points at; nothing is 0.
func part(v *intstr.IntOrString) intstr.IntOrString {
	if v == nil {
		return intstr.IntOrString{}
	}
	return *v
}

// notOverAll refuses more than a hundred percent.
func notOverAll(v intstr.IntOrString, path *field.Path) field.ErrorList {
	if v.Type != intstr.String || amount(v) <= 100 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, v, "must not be greater than 100%")}
}

// validatePart checks a number of pods, or a percentage of them.
func validatePart(v intstr.IntOrString, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if v.Type == intstr.Int {
		if v.IntVal < 0 {
			errs = append(errs, field.Invalid(path, int64(v.IntVal), "must be greater than or equal to 0"))
		}
		return errs
	}
	for _, msg := range utilvalidation.IsValidPercent(v.StrVal) {
		errs = append(errs, field.Invalid(path, v, msg))
	}
	return errs
}

// amount is the number without its percent sign; 0 for what cannot be read.
func amount(v intstr.IntOrString) int {
	if v.Type == intstr.Int {
		return int(v.IntVal)
	}
	n := 0
	if _, err := fmt.Sscanf(v.StrVal, "%d%%", &n); err != nil {
		return 0
	}
	return n
}

func validateDeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	return validation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))
}

func validateDeploymentStatus(d, old *appsv1.Deployment) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	errs := notNegative(path,
		named{"observedGeneration", s.ObservedGeneration},
		named{"replicas", int64(s.Replicas)},
		named{"updatedReplicas", int64(s.UpdatedReplicas)},
		named{"readyReplicas", int64(s.ReadyReplicas)},
		named{"availableReplicas", int64(s.AvailableReplicas)},
		named{"unavailableReplicas", int64(s.UnavailableReplicas)},
		named{"terminatingReplicas", int64(number(s.TerminatingReplicas))},
		named{"collisionCount", int64(number(s.CollisionCount))},
	)
	const most = "cannot be greater than status.replicas"
	for _, n := range []named{
		{"updatedReplicas", int64(s.UpdatedReplicas)},
		{"readyReplicas", int64(s.ReadyReplicas)},
		{"availableReplicas", int64(s.AvailableReplicas)},
	} {
		if n.value > int64(s.Replicas) {
			errs = append(errs, field.Invalid(path.Child(n.name), n.value, most))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return append(errs, validateCollisions(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}

// validateCollisions keeps the count of collisions from going back: names of
// ReplicaSets are made of it.
func validateCollisions(is, was *int32, path *field.Path) field.ErrorList {
	if was == nil {
		return nil
	}
	if is == nil || *is < *was {
		return field.ErrorList{field.Invalid(path, number(is), "cannot be decremented")}
	}
	return nil
}
