package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

// How large an indexed job may be.
const (
	maxParallelism = 100000
	maxFailed      = 100000
	// Above manyCompletions a job with a limit for each index may run fewer pods
	// at once, and let fewer indexes fail.
	manyCompletions   = 100000
	parallelismOfMany = 10000
	failedOfMany      = 10000
	maxManagedBy      = 63
)

func validateJob(j *batchv1.Job) field.ErrorList {
	s, path := &j.Spec, field.NewPath("spec")
	errs := validateGenerated(j)
	errs = append(errs, validateJobSpec(s, path)...)
	if s.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		errs = append(errs, metavalidation.ValidateLabelSelector(s.Selector, metavalidation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	if indexed(s) && s.Completions != nil && *s.Completions > 0 {
		last := fmt.Sprintf("%s-%d", j.Name, *s.Completions-1)
		if len(utilvalidation.IsDNS1123Label(last)) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+last))
		}
	}
	return errs
}

func indexed(s *batchv1.JobSpec) bool {
	return s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
}

// validateGenerated refuses a selector, or labels, that are not what the server
// makes of a job, unless the user makes them himself.
func validateGenerated(j *batchv1.Job) field.ErrorList {
	s := &j.Spec
	if s.Selector == nil || s.ManualSelector != nil && *s.ManualSelector {
		return nil
	}
	var errs field.ErrorList
	path, own := field.NewPath("spec", "template", "metadata", "labels"), ownLabels(j)
	for _, name := range []string{oldUIDLabel, oldNameLabel, batchv1.ControllerUidLabel, batchv1.JobNameLabel} {
		has, ok := s.Template.Labels[name]
		switch want := own[name]; {
		case !ok:
			errs = append(errs, field.Required(path.Key(name), fmt.Sprintf("must be '%s'", want)))
		case has != want:
			errs = append(errs, field.Invalid(path.Key(name), s.Template.Labels, fmt.Sprintf("must be '%s'", want)))
		}
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(own)) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), s.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// validateJobSpec checks what jobs and templates of jobs have in common.
func validateJobSpec(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	errs := notNegative(path,
		named{"parallelism", number(s.Parallelism)}, named{"completions", number(s.Completions)},
		named{"activeDeadlineSeconds", number(s.ActiveDeadlineSeconds)}, named{"backoffLimit", number(s.BackoffLimit)},
		named{"ttlSecondsAfterFinished", number(s.TTLSecondsAfterFinished)}, named{"backoffLimitPerIndex", number(s.BackoffLimitPerIndex)},
		named{"maxFailedIndexes", number(s.MaxFailedIndexes)},
	)
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if m := s.ManagedBy; m != nil {
		errs = append(errs, utilvalidation.IsDomainPrefixedPath(path.Child("managedBy"), *m)...)
		if len(*m) > maxManagedBy {
			errs = append(errs, field.TooLong(path.Child("managedBy"), *m, maxManagedBy))
		}
	}
	errs = append(errs, validateMode(s, path)...)
	if s.PodFailurePolicy != nil {
		errs = append(errs, validateFailurePolicy(s, path.Child("podFailurePolicy", "rules"))...)
	}
	if p := s.SuccessPolicy; p != nil && !indexed(s) {
		errs = append(errs, field.Invalid(path.Child("successPolicy"), *p, "requires indexed completion mode"))
	} else if p != nil {
		errs = append(errs, validateSuccessPolicy(s, path.Child("successPolicy", "rules"))...)
	}
	errs = append(errs, validateReplacement(s, path.Child("podReplacementPolicy"))...)
	at := path.Child("template")
	errs = append(errs, podspec.ValidateTemplate(&s.Template, at)...)
	return append(errs, validateRestart(s, at.Child("spec", "restartPolicy"))...)
}

func validateRestart(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	switch p := s.Template.Spec.RestartPolicy; {
	case p == corev1.RestartPolicyAlways || p == "": // which is the default of pods
		return field.ErrorList{field.Required(path, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))}
	case p != corev1.RestartPolicyOnFailure && p != corev1.RestartPolicyNever:
		return field.ErrorList{field.NotSupported(path, p, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})}
	case s.PodFailurePolicy != nil && p != corev1.RestartPolicyNever:
		return field.ErrorList{field.Invalid(path, p, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever))}
	}
	return nil
}

func validateReplacement(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	p := s.PodReplacementPolicy
	if p == nil || *p == batchv1.Failed || *p == batchv1.TerminatingOrFailed && s.PodFailurePolicy == nil {
		return nil
	}
	allowed := []batchv1.PodReplacementPolicy{batchv1.Failed}
	if s.PodFailurePolicy == nil {
		allowed = append(allowed, batchv1.TerminatingOrFailed)
	}
	return field.ErrorList{field.NotSupported(path, *p, allowed)}
}

// validateMode checks what the mode of completion demands of the numbers.
func validateMode(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m := s.CompletionMode; m != nil && *m != batchv1.NonIndexedCompletion && *m != batchv1.IndexedCompletion {
		return field.ErrorList{field.NotSupported(path.Child("completionMode"), *m, []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion})}
	}
	if !indexed(s) {
		if n := s.BackoffLimitPerIndex; n != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *n, "requires indexed completion mode"))
		}
		if n := s.MaxFailedIndexes; n != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *n, "requires indexed completion mode"))
		}
		return errs
	}
	all, failed, parallel := s.Completions, number(s.MaxFailedIndexes), number(s.Parallelism)
	if all == nil {
		errs = append(errs, field.Required(path.Child("completions"), fmt.Sprintf("when completion mode is %s", batchv1.IndexedCompletion)))
	}
	if parallel > maxParallelism {
		errs = append(errs, field.Invalid(path.Child("parallelism"), parallel,
			fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxParallelism, batchv1.IndexedCompletion)))
	}
	if all != nil && failed > int64(*all) {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), failed, "must be less than or equal to completions"))
	}
	if failed > maxFailed {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), failed, fmt.Sprintf("must be less than or equal to %d", maxFailed)))
	}
	if all == nil || *all <= manyCompletions || s.BackoffLimitPerIndex == nil {
		return errs
	}
	if s.MaxFailedIndexes == nil {
		errs = append(errs, field.Required(path.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
	}
	const of = "must be less than or equal to %d when completions are above %d and used with backoff limit per index"
	if parallel > parallelismOfMany {
		errs = append(errs, field.Invalid(path.Child("parallelism"), parallel, fmt.Sprintf(of, parallelismOfMany, manyCompletions)))
	}
	if failed > failedOfMany {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), failed, fmt.Sprintf(of, failedOfMany, manyCompletions)))
	}
	return errs
}

type named struct {
	name  string
	value int64
}

// notNegative checks numbers that count something.
func notNegative(path *field.Path, numbers ...named) field.ErrorList {
	var errs field.ErrorList
	for _, n := range numbers {
		if n.value < 0 {
			errs = append(errs, field.Invalid(path.Child(n.name), n.value, "must be greater than or equal to 0"))
		}
	}
	return errs
}

func number[T int32 | int64](n *T) int64 {
	if n == nil {
		return 0
	}
	return int64(*n)
}
