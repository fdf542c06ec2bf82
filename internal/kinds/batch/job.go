package batch

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// defaultBackoff is how many pods of a job may fail.
const defaultBackoff = 6

// The labels by which a job's pods were found in the past. They are still set.
const (
	oldUIDLabel  = "controller-uid"
	oldNameLabel = "job-name"
)

// Job is the kind of jobs.
func Job() *api.Kind {
	spec := batchv1.JobSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: "batch", Version: "v1", Kind: "Job",
		Resource: "jobs", Singular: "job",
		Warn:         api.Warn(warnJob),
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        allVerbs(),
		Subresources: statusOnly(),
		New:          func() api.Object { return &batchv1.Job{} },
		Default:      api.On(defaultJob),
		OnCreate: api.On(func(j *batchv1.Job) {
			j.Status = batchv1.JobStatus{}
			generateSelector(j)
		}),
		OnUpdate: api.OnPair(func(j, old *batchv1.Job) { j.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(j, old *batchv1.Job) {
			api.KeepMeta(j, old)
			j.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:         api.Of(func(j *batchv1.Job) any { return &j.Spec }),
		Validate:       api.Check(validateJob),
		ValidateUpdate: api.CheckPair(validateJobUpdate),
		ValidateStatus: api.CheckPair(validateJobStatus),
		Columns: append([]metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Status", "How the job is."),
			api.TextColumn("Completions", batchv1.JobStatus{}.SwaggerDoc()["succeeded"]),
			api.TextColumn("Duration", "How long the job has run, or took."),
			api.AgeColumn(),
		}, templateColumns(spec["selector"])...),
		Cells: api.Row(func(j *batchv1.Job, now time.Time) []any {
			s := &j.Spec.Template.Spec
			return []any{
				j.Name, jobStatus(j), completions(j), took(&j.Status, now), api.Age(j.CreationTimestamp, now),
				podspec.ContainerNames(s), podspec.Images(s), metav1.FormatLabelSelector(j.Spec.Selector),
			}
		}),
		FieldNames: []string{"status.successful"},
		Fields: api.Of(func(j *batchv1.Job) map[string]string {
			return map[string]string{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		}),
		DeleteOrphans: true,
	}
}

func allVerbs() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}

func statusOnly() []api.Subresource {
	return []api.Subresource{{Name: "status", Verbs: []string{"get", "patch", "update"}}}
}

// templateColumns are the wide columns of kinds with a pod template.
func templateColumns(selector string) []metav1.TableColumnDefinition {
	return api.Wide(
		api.TextColumn("Containers", "The names of the template's containers."),
		api.TextColumn("Images", "The images of the template's containers."),
		api.TextColumn("Selector", selector),
	)
}

func defaultJob(j *batchv1.Job) {
	s := &j.Spec
	if s.Completions == nil && s.Parallelism == nil {
		setPtr(&s.Completions, 1)
	}
	setPtr(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		setPtr(&s.BackoffLimit, math.MaxInt32)
	}
	setPtr(&s.BackoffLimit, defaultBackoff)
	setPtr(&s.CompletionMode, batchv1.NonIndexedCompletion)
	setPtr(&s.Suspend, false)
	setPtr(&s.ManualSelector, false)
	if s.PodFailurePolicy != nil {
		setPtr(&s.PodReplacementPolicy, batchv1.Failed)
	}
	setPtr(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(s.Template.Labels)
	}
	defaultPattern(s)
	podspec.DefaultTemplate(&s.Template)
}

// defaultPattern fills in what a failure policy leaves out, also in templates of
// jobs.
func defaultPattern(s *batchv1.JobSpec) {
	if s.PodFailurePolicy == nil {
		return
	}
	for i := range s.PodFailurePolicy.Rules {
		patterns := s.PodFailurePolicy.Rules[i].OnPodConditions
		for k := range patterns {
			if patterns[k].Status == "" {
				patterns[k].Status = corev1.ConditionTrue
			}
		}
	}
}

func setPtr[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}

// generateSelector makes the job find its own pods and no others: by its uid.
// What the user set himself stays; validation has a word to say then.
func generateSelector(j *batchv1.Job) {
	s := &j.Spec
	if s.ManualSelector != nil && *s.ManualSelector {
		return
	}
	if s.Template.Labels == nil {
		s.Template.Labels = map[string]string{}
	}
	for name, value := range ownLabels(j) {
		if _, ok := s.Template.Labels[name]; !ok {
			s.Template.Labels[name] = value
		}
	}
	if s.Selector == nil {
		s.Selector = &metav1.LabelSelector{}
	}
	if s.Selector.MatchLabels == nil {
		s.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := s.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		s.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
}

// ownLabels are those that all pods of a job have.
func ownLabels(j *batchv1.Job) map[string]string {
	return map[string]string{
		batchv1.ControllerUidLabel: string(j.UID), batchv1.JobNameLabel: j.Name,
		oldUIDLabel: string(j.UID), oldNameLabel: j.Name,
	}
}

func completions(j *batchv1.Job) string {
	if j.Spec.Completions != nil {
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	}
	if p := j.Spec.Parallelism; p != nil && *p > 1 {
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, *p)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func took(s *batchv1.JobStatus, now time.Time) string {
	if s.StartTime == nil {
		return ""
	}
	if s.CompletionTime != nil {
		now = s.CompletionTime.Time
	}
	return duration.HumanDuration(now.Sub(s.StartTime.Time))
}

func jobStatus(j *batchv1.Job) string {
	switch {
	case is(j, batchv1.JobComplete):
		return "Complete"
	case is(j, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case is(j, batchv1.JobSuspended):
		return "Suspended"
	case is(j, batchv1.JobFailureTarget):
		return "FailureTarget"
	}
	return "Running"
}

// is reports whether a condition of a job is true.
func is(j *batchv1.Job, t batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == t && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}
