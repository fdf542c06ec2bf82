package apps

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// DaemonSet is the kind of daemon sets.
func DaemonSet() *api.Kind {
	spec, status := appsv1.DaemonSetSpec{}.SwaggerDoc(), appsv1.DaemonSetStatus{}.SwaggerDoc()
	return &api.Kind{
		Group: "apps", Version: "v1", Kind: "DaemonSet",
		Resource: "daemonsets", Singular: "daemonset",
		Warn:         api.Warn(warnDaemonSet),
		ShortNames:   []string{"ds"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        allVerbs(),
		Subresources: []api.Subresource{{Name: "status", Verbs: []string{"get", "patch", "update"}}},
		New:          func() api.Object { return &appsv1.DaemonSet{} },
		Default:      api.On(defaultDaemonSet),
		OnCreate:     api.On(func(d *appsv1.DaemonSet) { d.Status = appsv1.DaemonSetStatus{} }),
		OnUpdate:     api.OnPair(func(d, old *appsv1.DaemonSet) { d.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(d, old *appsv1.DaemonSet) {
			api.KeepMeta(d, old)
			d.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:   api.Of(func(d *appsv1.DaemonSet) any { return &d.Spec }),
		Validate: api.Check(validateDaemonSet),
		ValidateUpdate: api.CheckPair(func(d, old *appsv1.DaemonSet) field.ErrorList {
			return validation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))
		}),
		ValidateStatus: api.CheckPair(validateDaemonSetStatus),
		Columns: append([]metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Desired", status["desiredNumberScheduled"]),
			api.NumberColumn("Current", status["currentNumberScheduled"]),
			api.NumberColumn("Ready", status["numberReady"]),
			api.NumberColumn("Up-to-date", status["updatedNumberScheduled"]),
			api.NumberColumn("Available", status["numberAvailable"]),
			api.TextColumn("Node Selector", corev1.PodSpec{}.SwaggerDoc()["nodeSelector"]),
			api.AgeColumn(),
		}, templateColumns(spec["selector"])...),
		Cells: api.Row(func(d *appsv1.DaemonSet, now time.Time) []any {
			s, st := &d.Spec.Template.Spec, &d.Status
			return []any{
				d.Name, int64(st.DesiredNumberScheduled), int64(st.CurrentNumberScheduled), int64(st.NumberReady),
				int64(st.UpdatedNumberScheduled), int64(st.NumberAvailable), labels.FormatLabels(s.NodeSelector), api.Age(d.CreationTimestamp, now),
				podspec.ContainerNames(s), podspec.Images(s), metav1.FormatLabelSelector(d.Spec.Selector),
			}
		}),
	}
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	s := &d.Spec
	setPtr(&s.RevisionHistoryLimit, defaultHistory)
	u := &s.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if u.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		setPtr(&u.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		setPtr(&u.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	podspec.DefaultTemplate(&s.Template)
}

func validateDaemonSet(d *appsv1.DaemonSet) field.ErrorList {
	s, path := &d.Spec, field.NewPath("spec")
	errs := metavalidation.ValidateLabelSelector(s.Selector, metavalidation.LabelSelectorValidationOptions{}, path.Child("selector"))
	selector, err := metav1.LabelSelectorAsSelector(s.Selector)
	at := path.Child("template")
	if err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	if s.Selector != nil && len(s.Selector.MatchLabels)+len(s.Selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path.Child("selector"), s.Selector, "empty selector is invalid for daemonset"))
	}
	errs = append(errs, podspec.ValidateTemplate(&s.Template, at)...)
	errs = append(errs, keptRunning(&s.Template, "DaemonSet", at)...)
	errs = append(errs, notNegative(path, named{"minReadySeconds", int64(s.MinReadySeconds)}, named{"revisionHistoryLimit", int64(number(s.RevisionHistoryLimit))})...)
	return append(errs, validateDaemonStrategy(&s.UpdateStrategy, path.Child("updateStrategy"))...)
}

func validateDaemonStrategy(u *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch u.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
	default:
		return field.ErrorList{field.NotSupported(path, *u, []appsv1.DaemonSetUpdateStrategyType{
			appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType,
		})}
	}
	path = path.Child("rollingUpdate")
	if u.RollingUpdate == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	unavailable, surge := part(u.RollingUpdate.MaxUnavailable), part(u.RollingUpdate.MaxSurge)
	errs := append(validatePart(unavailable, path.Child("maxUnavailable")), validatePart(surge, path.Child("maxSurge"))...)
	errs = append(append(errs, notOverAll(unavailable, path.Child("maxUnavailable"))...), notOverAll(surge, path.Child("maxSurge"))...)
	switch down, up := amount(unavailable) != 0, amount(surge) != 0; {
	case down && up:
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !down && !up:
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetStatus(d, old *appsv1.DaemonSet) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	errs := notNegative(path,
		named{"currentNumberScheduled", int64(s.CurrentNumberScheduled)},
		named{"numberMisscheduled", int64(s.NumberMisscheduled)},
		named{"desiredNumberScheduled", int64(s.DesiredNumberScheduled)},
		named{"numberReady", int64(s.NumberReady)},
		named{"observedGeneration", s.ObservedGeneration},
		named{"updatedNumberScheduled", int64(s.UpdatedNumberScheduled)},
		named{"numberAvailable", int64(s.NumberAvailable)},
		named{"numberUnavailable", int64(s.NumberUnavailable)},
		named{"collisionCount", int64(number(s.CollisionCount))},
	)
	return append(errs, validateCollisions(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}
