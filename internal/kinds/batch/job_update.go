package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateJobUpdate keeps what a job does; how much of it at once, and whether
// at all, may change.
func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	s, was, path := &j.Spec, &old.Spec, field.NewPath("spec")
	errs := validateCompletions(s, was, path.Child("completions"))
	template := &was.Template
	if old.Spec.Suspend != nil && *old.Spec.Suspend && old.Status.StartTime == nil {
		template = withDirectives(template, &s.Template)
	}
	for _, f := range []struct {
		name   string
		is, of any
	}{
		{"selector", s.Selector, was.Selector},
		{"template", &s.Template, template},
		{"completionMode", s.CompletionMode, was.CompletionMode},
		{"podFailurePolicy", s.PodFailurePolicy, was.PodFailurePolicy},
		{"backoffLimitPerIndex", s.BackoffLimitPerIndex, was.BackoffLimitPerIndex},
		{"managedBy", s.ManagedBy, was.ManagedBy},
		{"successPolicy", s.SuccessPolicy, was.SuccessPolicy},
	} {
		errs = append(errs, validation.ValidateImmutableField(f.is, f.of, path.Child(f.name))...)
	}
	return errs
}

// validateCompletions lets an indexed job grow and shrink, all of it at once.
func validateCompletions(s, was *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if !indexed(s) || s.Completions == nil {
		if indexed(s) {
			return nil // which is refused for itself
		}
		return validation.ValidateImmutableField(s.Completions, was.Completions, path)
	}
	if equality.Semantic.DeepEqual(s.Completions, was.Completions) || number(s.Completions) == number(s.Parallelism) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, *s.Completions, fmt.Sprintf("can only be modified in tandem with %s", path.Root().Child("parallelism")))}
}

// withDirectives is a template with what tells the scheduler where to put its
// pods taken from another one. A job that has never run may change that.
func withDirectives(t, from *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	out := t.DeepCopy()
	var nodes *corev1.NodeAffinity
	if a := from.Spec.Affinity; a != nil {
		nodes = a.NodeAffinity
	}
	switch {
	case out.Spec.Affinity != nil:
		out.Spec.Affinity.NodeAffinity = nodes
		if *out.Spec.Affinity == (corev1.Affinity{}) && from.Spec.Affinity == nil {
			out.Spec.Affinity = nil
		}
	case from.Spec.Affinity != nil:
		out.Spec.Affinity = &corev1.Affinity{NodeAffinity: nodes}
	}
	out.Spec.NodeSelector, out.Spec.Tolerations, out.Spec.SchedulingGates = from.Spec.NodeSelector, from.Spec.Tolerations, from.Spec.SchedulingGates
	out.Annotations, out.Labels = from.Annotations, from.Labels
	return out
}

func validateJobStatus(j, old *batchv1.Job) field.ErrorList {
	s, path := &j.Status, field.NewPath("status")
	errs := notNegative(path, named{"active", int64(s.Active)}, named{"succeeded", int64(s.Succeeded)}, named{"failed", int64(s.Failed)},
		named{"ready", number(s.Ready)}, named{"terminating", number(s.Terminating)})
	errs = append(errs, validateUncounted(s.UncountedTerminatedPods, path.Child("uncountedTerminatedPods"))...)
	errs = append(errs, validateConditions(j, old, path.Child("conditions"))...)
	errs = append(errs, validateTimes(j, old, path)...)
	finished := is(j, batchv1.JobComplete) || is(j, batchv1.JobFailed)
	if finished && s.Active > 0 {
		errs = append(errs, field.Invalid(path.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	if finished && number(s.Terminating) > 0 {
		errs = append(errs, field.Invalid(path.Child("terminating"), *s.Terminating, "terminating>0 is invalid for finished job"))
	}
	if u := s.UncountedTerminatedPods; finished && u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		errs = append(errs, field.Invalid(path.Child("uncountedTerminatedPods"), u, "uncountedTerminatedPods needs to be empty for finished job"))
	}
	if s.Ready != nil && *s.Ready > s.Active {
		errs = append(errs, field.Invalid(path.Child("ready"), *s.Ready, "cannot set more ready pods than active"))
	}
	if s.Failed < old.Status.Failed {
		errs = append(errs, field.Invalid(path.Child("failed"), s.Failed, "cannot decrease the failed counter"))
	}
	if s.Succeeded < old.Status.Succeeded {
		errs = append(errs, field.Invalid(path.Child("succeeded"), s.Succeeded, "cannot decrease the succeeded counter"))
	}
	return append(errs, validateIndexes(j, path)...)
}

func validateUncounted(u *batchv1.UncountedTerminatedPods, path *field.Path) field.ErrorList {
	if u == nil {
		return nil
	}
	var errs field.ErrorList
	seen := map[types.UID]bool{}
	for _, l := range []struct {
		name string
		of   []types.UID
	}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
		for i, uid := range l.of {
			at := path.Child(l.name).Index(i)
			if uid == "" {
				errs = append(errs, field.Invalid(at, uid, "must not be empty"))
			} else if seen[uid] {
				errs = append(errs, field.Duplicate(at, uid))
			}
			seen[uid] = true
		}
	}
	return errs
}

// validateConditions keeps an ended job ended, in one way.
func validateConditions(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	complete, failed, target, met := is(j, batchv1.JobComplete), is(j, batchv1.JobFailed), is(j, batchv1.JobFailureTarget), is(j, batchv1.JobSuccessCriteriaMet)
	for _, c := range []struct {
		wrong bool
		msg   string
	}{
		{complete && failed, "cannot set Complete=True and Failed=true conditions"},
		{complete && target, "cannot set Complete=True and FailureTarget=true conditions"},
		{failed && !target, "cannot set Failed=True condition without the FailureTarget=true condition"},
		{complete && !met, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"},
		{met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"},
		{met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"},
		{is(old, batchv1.JobSuccessCriteriaMet) && !met, "cannot disable the SuccessCriteriaMet=True condition"},
	} {
		if c.wrong {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, c.msg))
		}
	}
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailureTarget} {
		if is(old, t) && !is(j, t) {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", t)))
		}
	}
	return errs
}

func validateTimes(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, was := &j.Status, &old.Status
	at, complete := path.Child("completionTime"), is(j, batchv1.JobComplete)
	switch {
	case s.CompletionTime != nil && !complete:
		errs = append(errs, field.Invalid(at, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
	case s.CompletionTime == nil && complete:
		errs = append(errs, field.Required(at, "completionTime is required for Complete jobs"))
	}
	if s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(at, s.CompletionTime, "completionTime cannot be set before startTime"))
	}
	if s.CompletionTime != nil && was.CompletionTime != nil && !s.CompletionTime.Equal(was.CompletionTime) {
		errs = append(errs, field.Invalid(at, s.CompletionTime, "completionTime cannot be mutated"))
	}
	if s.StartTime == nil && (complete || is(j, batchv1.JobFailed)) {
		errs = append(errs, field.Required(path.Child("startTime"), "startTime is required for finished job"))
	}
	suspended := j.Spec.Suspend != nil && *j.Spec.Suspend
	if was.StartTime != nil && !s.StartTime.Equal(was.StartTime) && !suspended {
		errs = append(errs, field.Required(path.Child("startTime"), "startTime cannot be removed for unsuspended job"))
	}
	return errs
}

// validateIndexes checks the indexes that are done.
func validateIndexes(j *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s := &j.Status
	at := path.Child("completedIndexes")
	if s.CompletedIndexes != "" && !indexed(&j.Spec) {
		errs = append(errs, field.Invalid(at, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
	}
	if j.Spec.Completions != nil {
		if _, err := countIndexes(s.CompletedIndexes, *j.Spec.Completions); err != nil {
			errs = append(errs, field.Invalid(at, s.CompletedIndexes, "error parsing completedIndexes: "+err.Error()))
		}
	}
	if s.FailedIndexes == nil {
		return errs
	}
	at = path.Child("failedIndexes")
	if j.Spec.BackoffLimitPerIndex == nil {
		return append(errs, field.Invalid(at, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
	}
	if j.Spec.Completions != nil {
		if _, err := countIndexes(*s.FailedIndexes, *j.Spec.Completions); err != nil {
			errs = append(errs, field.Invalid(at, *s.FailedIndexes, "error parsing failedIndexes: "+err.Error()))
		}
	}
	return errs
}
