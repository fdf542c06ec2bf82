package core

import (
	"maps"
	"strconv"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// ReplicationController is the kind of replication controllers, which came
// before replica sets.
func ReplicationController() *api.Kind {
	spec, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	return &api.Kind{
		Version: "v1", Kind: "ReplicationController",
		Resource: "replicationcontrollers", Singular: "replicationcontroller",
		Warn:       api.Warn(warnReplication),
		ShortNames: []string{"rc"},
		Categories: []string{"all"},
		Namespaced: true,
		Verbs:      allVerbs(),
		Subresources: []api.Subresource{
			{
				Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: statusVerbs(),
				New: func() runtime.Object { return &autoscalingv1.Scale{} },
			},
			{Name: "status", Verbs: statusVerbs()},
		},
		New:      func() api.Object { return &corev1.ReplicationController{} },
		Default:  api.On(defaultReplication),
		OnCreate: api.On(func(r *corev1.ReplicationController) { r.Status = corev1.ReplicationControllerStatus{} }),
		OnUpdate: api.OnPair(func(r, old *corev1.ReplicationController) { r.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(r, old *corev1.ReplicationController) {
			api.KeepMeta(r, old)
			r.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:         api.Of(func(r *corev1.ReplicationController) any { return &r.Spec }),
		Validate:       api.Check(validateReplication),
		ValidateStatus: api.CheckPair(validateReplicationStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Desired", spec["replicas"]),
			api.NumberColumn("Current", status["replicas"]),
			api.NumberColumn("Ready", status["readyReplicas"]),
			api.AgeColumn(),
			wideText("Containers", "The names of the template's containers."),
			wideText("Images", "The images of the template's containers."),
			wideText("Selector", spec["selector"]),
		},
		Cells: api.Row(func(r *corev1.ReplicationController, now time.Time) []any {
			s := &corev1.PodSpec{}
			if r.Spec.Template != nil {
				s = &r.Spec.Template.Spec
			}
			return []any{
				r.Name, int64(number(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), api.Age(r.CreationTimestamp, now),
				podspec.ContainerNames(s), podspec.Images(s), labels.FormatLabels(r.Spec.Selector),
			}
		}),
		FieldNames: []string{"status.replicas"},
		Fields: api.Of(func(r *corev1.ReplicationController) map[string]string {
			return map[string]string{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		}),
		Scale: &api.Scale{
			Get: func(obj api.Object) (autoscalingv1.ScaleSpec, autoscalingv1.ScaleStatus) {
				r := obj.(*corev1.ReplicationController)
				return autoscalingv1.ScaleSpec{Replicas: number(r.Spec.Replicas)},
					autoscalingv1.ScaleStatus{Replicas: r.Status.Replicas, Selector: labels.Set(r.Spec.Selector).String()}
			},
			Set: func(obj api.Object, n int32) { obj.(*corev1.ReplicationController).Spec.Replicas = &n },
		},
		DeleteOrphans: true,
	}
}

func number(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}

// defaultReplication takes selector and labels from the template.
func defaultReplication(r *corev1.ReplicationController) {
	setPtr(&r.Spec.Replicas, 1)
	t := r.Spec.Template
	if t == nil {
		return
	}
	if len(r.Spec.Selector) == 0 {
		r.Spec.Selector = maps.Clone(t.Labels)
	}
	if len(r.Labels) == 0 {
		r.Labels = maps.Clone(t.Labels)
	}
	podspec.DefaultTemplate(t)
}

func validateReplication(r *corev1.ReplicationController) field.ErrorList {
	s, path := &r.Spec, field.NewPath("spec")
	errs := notNegative(path, []counted{{"minReadySeconds", s.MinReadySeconds}, {"replicas", number(s.Replicas)}})
	if len(s.Selector) == 0 {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	at := path.Child("template")
	t := s.Template
	if t == nil {
		return append(errs, field.Required(at, ""))
	}
	if selector := labels.Set(s.Selector).AsSelectorPreValidated(); len(s.Selector) > 0 && !selector.Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(at.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, podspec.ValidateTemplate(t, at)...)
	if p := t.Spec.RestartPolicy; p != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("spec", "restartPolicy"), p, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(at.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported"))
	}
	return errs
}

type counted struct {
	name  string
	value int32
}

func notNegative(path *field.Path, numbers []counted) field.ErrorList {
	var errs field.ErrorList
	for _, n := range numbers {
		if n.value < 0 {
			errs = append(errs, field.Invalid(path.Child(n.name), int64(n.value), "must be greater than or equal to 0"))
		}
	}
	return errs
}

func validateReplicationStatus(r, _ *corev1.ReplicationController) field.ErrorList {
	s, path := &r.Status, field.NewPath("status")
	parts := []counted{{"fullyLabeledReplicas", s.FullyLabeledReplicas}, {"readyReplicas", s.ReadyReplicas}, {"availableReplicas", s.AvailableReplicas}}
	errs := notNegative(path, append([]counted{{"replicas", s.Replicas}}, parts...))
	if s.ObservedGeneration < 0 {
		errs = append(errs, field.Invalid(path.Child("observedGeneration"), s.ObservedGeneration, "must be greater than or equal to 0"))
	}
	for _, n := range parts {
		if n.value > s.Replicas {
			errs = append(errs, field.Invalid(path.Child(n.name), n.value, "cannot be greater than status.replicas"))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}
