package apps

import (
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// ReplicaSet is the kind of replica sets.
func ReplicaSet() *api.Kind {
	spec, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	return &api.Kind{
		Group: "apps", Version: "v1", Kind: "ReplicaSet",
		Resource: "replicasets", Singular: "replicaset",
		Warn:         api.Warn(warnReplicaSet),
		ShortNames:   []string{"rs"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        allVerbs(),
		Subresources: scaled(),
		New:          func() api.Object { return &appsv1.ReplicaSet{} },
		Default: api.On(func(r *appsv1.ReplicaSet) {
			setPtr(&r.Spec.Replicas, 1)
			podspec.DefaultTemplate(&r.Spec.Template)
		}),
		OnCreate: api.On(func(r *appsv1.ReplicaSet) { r.Status = appsv1.ReplicaSetStatus{} }),
		OnUpdate: api.OnPair(func(r, old *appsv1.ReplicaSet) {
			r.Status = *old.Status.DeepCopy()
		}),
		OnStatus: api.OnPair(func(r, old *appsv1.ReplicaSet) {
			api.KeepMeta(r, old)
			r.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:   api.Of(func(r *appsv1.ReplicaSet) any { return &r.Spec }),
		Validate: api.Check(validateReplicaSet),
		ValidateUpdate: api.CheckPair(func(r, old *appsv1.ReplicaSet) field.ErrorList {
			return validation.ValidateImmutableField(r.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))
		}),
		ValidateStatus: api.CheckPair(validateReplicaSetStatus),
		Columns: append([]metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Desired", spec["replicas"]),
			api.NumberColumn("Current", status["replicas"]),
			api.NumberColumn("Ready", status["readyReplicas"]),
			api.AgeColumn(),
		}, templateColumns(spec["selector"])...),
		Cells: api.Row(func(r *appsv1.ReplicaSet, now time.Time) []any {
			s := &r.Spec.Template.Spec
			return []any{
				r.Name, int64(number(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
				api.Age(r.CreationTimestamp, now), podspec.ContainerNames(s), podspec.Images(s), metav1.FormatLabelSelector(r.Spec.Selector),
			}
		}),
		FieldNames: []string{"status.replicas"},
		Fields: api.Of(func(r *appsv1.ReplicaSet) map[string]string {
			return map[string]string{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		}),
		Scale: &api.Scale{
			Get: func(obj api.Object) (autoscalingv1.ScaleSpec, autoscalingv1.ScaleStatus) {
				r := obj.(*appsv1.ReplicaSet)
				return scaleOf(r.Spec.Replicas, r.Status.Replicas, r.Spec.Selector)
			},
			Set: func(obj api.Object, n int32) { obj.(*appsv1.ReplicaSet).Spec.Replicas = &n },
		},
	}
}

func validateReplicaSet(r *appsv1.ReplicaSet) field.ErrorList {
	s, path := &r.Spec, field.NewPath("spec")
	errs := notNegative(path, named{"replicas", int64(number(s.Replicas))}, named{"minReadySeconds", int64(s.MinReadySeconds)})
	selector, more := validateSelector(s.Selector, "replicaset", path.Child("selector"))
	errs = append(errs, more...)
	return append(errs, validateTemplate(&s.Template, selector, path.Child("template"))...)
}

func validateReplicaSetStatus(r, _ *appsv1.ReplicaSet) field.ErrorList {
	s, path := &r.Status, field.NewPath("status")
	errs := notNegative(path,
		named{"replicas", int64(s.Replicas)},
		named{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)},
		named{"readyReplicas", int64(s.ReadyReplicas)},
		named{"availableReplicas", int64(s.AvailableReplicas)},
		named{"observedGeneration", s.ObservedGeneration},
		named{"terminatingReplicas", int64(number(s.TerminatingReplicas))},
	)
	for _, n := range []named{
		{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)},
		{"readyReplicas", int64(s.ReadyReplicas)},
		{"availableReplicas", int64(s.AvailableReplicas)},
	} {
		if n.value > int64(s.Replicas) {
			errs = append(errs, field.Invalid(path.Child(n.name), n.value, "cannot be greater than status.replicas"))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}
