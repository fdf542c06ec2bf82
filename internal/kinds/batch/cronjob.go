package batch

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// What a cron job keeps where it says nothing, and how long its name may be: its
// jobs add eleven characters to it.
const (
	keptSuccessful = 3
	keptFailed     = 1
	maxCronName    = 52
)

// CronJob is the kind of cron jobs.
func CronJob() *api.Kind {
	spec, status := batchv1.CronJobSpec{}.SwaggerDoc(), batchv1.CronJobStatus{}.SwaggerDoc()
	return &api.Kind{
		Group: "batch", Version: "v1", Kind: "CronJob",
		Resource: "cronjobs", Singular: "cronjob",
		Warn:         api.Warn(warnCronJob),
		ShortNames:   []string{"cj"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        allVerbs(),
		Subresources: statusOnly(),
		New:          func() api.Object { return &batchv1.CronJob{} },
		Default:      api.On(defaultCronJob),
		OnCreate:     api.On(func(c *batchv1.CronJob) { c.Status = batchv1.CronJobStatus{} }),
		OnUpdate:     api.OnPair(func(c, old *batchv1.CronJob) { c.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(c, old *batchv1.CronJob) {
			api.KeepMeta(c, old)
			c.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:   api.Of(func(c *batchv1.CronJob) any { return &c.Spec }),
		Validate: api.Check(validateCronJob),
		ValidateCreate: api.Check(func(c *batchv1.CronJob) field.ErrorList {
			var errs field.ErrorList
			if len(c.Name) > maxCronName {
				errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, fmt.Sprintf("must be no more than %d characters", maxCronName)))
			}
			return append(errs, validateZones(&c.Spec, nil)...)
		}),
		ValidateUpdate: api.CheckPair(func(c, old *batchv1.CronJob) field.ErrorList { return validateZones(&c.Spec, &old.Spec) }),
		Columns: append([]metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Schedule", spec["schedule"]),
			api.TextColumn("Timezone", spec["timeZone"]),
			{Name: "Suspend", Type: "boolean", Description: spec["suspend"]},
			api.NumberColumn("Active", status["active"]),
			api.TextColumn("Last Schedule", status["lastScheduleTime"]),
			api.AgeColumn(),
		}, templateColumns(batchv1.JobSpec{}.SwaggerDoc()["selector"])...),
		Cells: api.Row(cronCells),
	}
}

func cronCells(c *batchv1.CronJob, now time.Time) []any {
	last, zone, suspend := api.CellNone, api.CellNone, "<unset>"
	if t := c.Status.LastScheduleTime; t != nil {
		last = duration.HumanDuration(now.Sub(t.Time))
	}
	if c.Spec.TimeZone != nil {
		zone = *c.Spec.TimeZone
	}
	if c.Spec.Suspend != nil {
		suspend = "False"
		if *c.Spec.Suspend {
			suspend = "True"
		}
	}
	t := &c.Spec.JobTemplate.Spec
	return []any{
		c.Name, c.Spec.Schedule, zone, suspend, int64(len(c.Status.Active)), last, api.Age(c.CreationTimestamp, now),
		podspec.ContainerNames(&t.Template.Spec), podspec.Images(&t.Template.Spec), metav1.FormatLabelSelector(t.Selector),
	}
}

func defaultCronJob(c *batchv1.CronJob) {
	s := &c.Spec
	if s.ConcurrencyPolicy == "" {
		s.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	setPtr(&s.Suspend, false)
	setPtr(&s.SuccessfulJobsHistoryLimit, keptSuccessful)
	setPtr(&s.FailedJobsHistoryLimit, keptFailed)
	defaultPattern(&s.JobTemplate.Spec)
	podspec.DefaultTemplate(&s.JobTemplate.Spec.Template)
}

func validateCronJob(c *batchv1.CronJob) field.ErrorList {
	s, path := &c.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if s.Schedule == "" {
		errs = append(errs, field.Required(path.Child("schedule"), ""))
	} else if _, err := parse(s.Schedule); err != nil {
		errs = append(errs, field.Invalid(path.Child("schedule"), s.Schedule, err.Error()))
	}
	errs = append(errs, notNegative(path, named{"startingDeadlineSeconds", number(s.StartingDeadlineSeconds)})...)
	switch p := s.ConcurrencyPolicy; p {
	case batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent:
	case "":
		errs = append(errs, field.Required(path.Child("concurrencyPolicy"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("concurrencyPolicy"), p, []batchv1.ConcurrencyPolicy{
			batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent,
		}))
	}
	at, t := path.Child("jobTemplate", "spec"), &s.JobTemplate.Spec
	errs = append(errs, validateJobSpec(t, at)...)
	if t.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), t.Selector, "`selector` will be auto-generated"))
	}
	if t.ManualSelector != nil && *t.ManualSelector {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), *t.ManualSelector, []string{"nil", "false"}))
	}
	return append(errs, notNegative(path, named{"successfulJobsHistoryLimit", number(s.SuccessfulJobsHistoryLimit)}, named{"failedJobsHistoryLimit", number(s.FailedJobsHistoryLimit)})...)
}

// parse reads a schedule. The parser panics on some that it cannot read.
func parse(schedule string) (s cron.Schedule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("invalid schedule format: %v", r)
		}
	}()
	return cron.ParseStandard(schedule)
}

// validateZones checks the time zone, and that the schedule does not name one
// too, as it once could.
func validateZones(s, old *batchv1.CronJobSpec) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	had := old != nil && strings.Contains(old.Schedule, "TZ")
	switch has := strings.Contains(s.Schedule, "TZ"); {
	case has && had && s.TimeZone != nil:
		errs = append(errs, field.Invalid(path.Child("schedule"), s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	case has && !had:
		errs = append(errs, field.Invalid(path.Child("schedule"), s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	}
	if s.TimeZone == nil || old != nil && old.TimeZone != nil && *old.TimeZone == *s.TimeZone {
		return errs
	}
	return append(errs, validateZone(*s.TimeZone, path.Child("timeZone"))...)
}

var zonePart = regexp.MustCompile(`^[A-Za-z\.\-_0-9+]{1,14}$`)

func validateZone(zone string, path *field.Path) field.ErrorList {
	if zone == "" {
		return field.ErrorList{field.Invalid(path, zone, "timeZone must be nil or non-empty string")}
	}
	for _, part := range strings.Split(zone, "/") {
		if part == "." || part == ".." || strings.HasPrefix(part, "-") || !zonePart.MatchString(part) {
			return field.ErrorList{field.Invalid(path, zone, "unknown time zone "+zone)}
		}
	}
	var errs field.ErrorList
	if strings.EqualFold(zone, "Local") {
		errs = append(errs, field.Invalid(path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
	}
	if _, err := time.LoadLocation(zone); err != nil {
		errs = append(errs, field.Invalid(path, zone, err.Error()))
	}
	return errs
}
