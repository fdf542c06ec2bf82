package batch

import (
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

func warnJob(j, old *batchv1.Job) []string {
	switch {
	case old == nil:
		return append(podspec.NameWarnings(j.Name), warnJobSpec(field.NewPath("spec"), &j.Spec)...)
	case old.Generation != j.Generation:
		return warnJobSpec(field.NewPath("spec"), &j.Spec)
	}
	return nil
}

func warnCronJob(c, old *batchv1.CronJob) []string {
	at := field.NewPath("spec", "jobTemplate", "spec")
	if old == nil {
		return append(podspec.NameWarnings(c.Name), warnJobSpec(at, &c.Spec.JobTemplate.Spec)...)
	}
	var out []string
	if old.Generation != c.Generation {
		out = warnJobSpec(at, &c.Spec.JobTemplate.Spec)
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		out = append(out, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return out
}

const (
	hugeCompletions = 100_000
	hugeAtOnce      = 10_000
)

func warnJobSpec(at *field.Path, s *batchv1.JobSpec) []string {
	var out []string
	if s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion &&
		s.Completions != nil && *s.Completions > hugeCompletions && s.Parallelism != nil && *s.Parallelism > hugeAtOnce {
		out = append(out, at.String()+": In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail")
	}
	return append(out, podspec.Warnings(at.Child("template"), &s.Template.ObjectMeta, &s.Template.Spec)...)
}
