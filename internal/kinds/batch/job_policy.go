package batch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// How much a policy may say.
const (
	maxRules       = 20
	maxPatterns    = 20
	maxExitCodes   = 255
	maxIndexesText = 64 * 1024
)

func validateFailurePolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(s.PodFailurePolicy.Rules); n > maxRules {
		errs = append(errs, field.TooMany(path, n, maxRules))
	}
	names := map[string]bool{}
	for _, list := range [][]corev1.Container{s.Template.Spec.Containers, s.Template.Spec.InitContainers} {
		for i := range list {
			names[list[i].Name] = true
		}
	}
	for i := range s.PodFailurePolicy.Rules {
		errs = append(errs, validateFailureRule(s, &s.PodFailurePolicy.Rules[i], path.Index(i), names)...)
	}
	return errs
}

func validateFailureRule(s *batchv1.JobSpec, r *batchv1.PodFailurePolicyRule, path *field.Path, names map[string]bool) field.ErrorList {
	actions := []batchv1.PodFailurePolicyAction{
		batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore,
	}
	var errs field.ErrorList
	switch at := path.Child("action"); {
	case r.Action == "":
		errs = append(errs, field.Required(at, fmt.Sprintf("valid values: %q", actions)))
	case r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil:
		errs = append(errs, field.Invalid(at, r.Action, "requires the backoffLimitPerIndex to be set"))
	case !slices.Contains(actions, r.Action):
		errs = append(errs, field.NotSupported(at, r.Action, actions))
	}
	if r.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(r.OnExitCodes, path.Child("onExitCodes"), names)...)
	}
	errs = append(errs, validatePatterns(r.OnPodConditions, path.Child("onPodConditions"))...)
	switch codes, conditions := r.OnExitCodes != nil, len(r.OnPodConditions) > 0; {
	case codes && conditions:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case !codes && !conditions:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

func validatePatterns(patterns []batchv1.PodFailurePolicyOnPodConditionsPattern, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(patterns); n > maxPatterns {
		errs = append(errs, field.TooMany(path, n, maxPatterns))
	}
	states := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
	for i, p := range patterns {
		for _, msg := range utilvalidation.IsQualifiedName(string(p.Type)) {
			errs = append(errs, field.Invalid(path.Index(i).Child("type"), string(p.Type), msg))
		}
		at := path.Index(i).Child("status")
		if p.Status == "" {
			errs = append(errs, field.Required(at, fmt.Sprintf("valid values: %q", states)))
		} else if !slices.Contains(states, p.Status) {
			errs = append(errs, field.NotSupported(at, p.Status, states))
		}
	}
	return errs
}

func validateExitCodes(c *batchv1.PodFailurePolicyOnExitCodesRequirement, path *field.Path, names map[string]bool) field.ErrorList {
	operators := []batchv1.PodFailurePolicyOnExitCodesOperator{batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn}
	var errs field.ErrorList
	if c.Operator == "" {
		errs = append(errs, field.Required(path.Child("operator"), fmt.Sprintf("valid values: %q", operators)))
	} else if !slices.Contains(operators, c.Operator) {
		errs = append(errs, field.NotSupported(path.Child("operator"), c.Operator, operators))
	}
	if c.ContainerName != nil && !names[*c.ContainerName] {
		errs = append(errs, field.Invalid(path.Child("containerName"), *c.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	at := path.Child("values")
	if n := len(c.Values); n == 0 {
		errs = append(errs, field.Invalid(at, c.Values, "at least one value is required"))
	} else if n > maxExitCodes {
		errs = append(errs, field.TooMany(at, n, maxExitCodes))
	}
	seen := map[int32]bool{}
	for i, v := range c.Values {
		if v == 0 && c.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(at.Index(i), v, "must not be 0 for the In operator"))
		}
		if seen[v] {
			errs = append(errs, field.Duplicate(at.Index(i), v))
		}
		seen[v] = true
	}
	if !slices.IsSorted(c.Values) {
		errs = append(errs, field.Invalid(at, c.Values, "must be ordered"))
	}
	return errs
}

func validateSuccessPolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(s.SuccessPolicy.Rules); n == 0 {
		errs = append(errs, field.Required(path, "at least one rules must be specified when the successPolicy is specified"))
	} else if n > maxRules {
		errs = append(errs, field.TooMany(path, n, maxRules))
	}
	all := int32(number(s.Completions))
	for i := range s.SuccessPolicy.Rules {
		r, at := &s.SuccessPolicy.Rules[i], path.Index(i)
		if r.SucceededCount == nil && r.SucceededIndexes == nil {
			errs = append(errs, field.Required(at, "at least one of succeededCount or succeededIndexes must be specified"))
		}
		total := int32(0)
		if t := r.SucceededIndexes; t != nil {
			if len(*t) > maxIndexesText {
				errs = append(errs, field.TooLong(at.Child("succeededIndexes"), *t, maxIndexesText))
			}
			var err error
			if total, err = countIndexes(*t, all); err != nil {
				errs = append(errs, field.Invalid(at.Child("succeededIndexes"), *t, "error parsing succeededIndexes: "+err.Error()))
			}
		}
		if r.SucceededCount == nil {
			continue
		}
		n, count := *r.SucceededCount, at.Child("succeededCount")
		errs = append(errs, notNegative(at, named{"succeededCount", int64(n)})...)
		if n > all {
			errs = append(errs, field.Invalid(count, n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", all)))
		}
		if r.SucceededIndexes != nil && n > total {
			errs = append(errs, field.Invalid(count, n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}

// countIndexes reads a list such as 0,3-5 of indexes below all, which must be
// in order.
func countIndexes(text string, all int32) (int32, error) {
	if text == "" {
		return 0, nil
	}
	total, last := int32(0), int32(-1)
	for _, part := range strings.Split(text, ",") {
		from, to, err := readInterval(part, all)
		if err != nil {
			return 0, err
		}
		if from <= last {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, from)
		}
		total, last = total+to-from+1, to
	}
	return total, nil
}

func readInterval(text string, all int32) (from, to int32, err error) {
	limits := strings.Split(text, "-")
	if len(limits) > 2 {
		return 0, 0, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", text)
	}
	numbers := make([]int32, len(limits))
	for i, l := range limits {
		n, err := strconv.ParseInt(l, 10, 32)
		if err != nil {
			return 0, 0, fmt.Errorf("cannot convert string to integer for index: %q", l)
		}
		if n < 0 || int32(n) >= all {
			return 0, 0, fmt.Errorf("too large index: %q", l)
		}
		numbers[i] = int32(n)
	}
	from, to = numbers[0], numbers[len(numbers)-1]
	if len(numbers) == 2 && from >= to {
		return 0, 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", from, to)
	}
	return from, to, nil
}
