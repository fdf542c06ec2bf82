package apps

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

func allVerbs() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}

// scaled are the subresources of kinds with a number of pods.
func scaled() []api.Subresource {
	verbs := []string{"get", "patch", "update"}
	return []api.Subresource{
		{
			Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: verbs,
			New: func() runtime.Object { return &autoscalingv1.Scale{} },
		},
		{Name: "status", Verbs: verbs},
	}
}

func scaleOf(want *int32, seen int32, selector *metav1.LabelSelector) (autoscalingv1.ScaleSpec, autoscalingv1.ScaleStatus) {
	text := ""
	if s, err := metav1.LabelSelectorAsSelector(selector); err == nil {
		text = s.String()
	}
	return autoscalingv1.ScaleSpec{Replicas: number(want)}, autoscalingv1.ScaleStatus{Replicas: seen, Selector: text}
}

// templateColumns are the wide columns of kinds with a pod template.
func templateColumns(selector string) []metav1.TableColumnDefinition {
	return api.Wide(
		api.TextColumn("Containers", "The names of the template's containers."),
		api.TextColumn("Images", "The images of the template's containers."),
		api.TextColumn("Selector", selector),
	)
}

// validateSelector demands a selector that picks something and can be read.
func validateSelector(s *metav1.LabelSelector, what string, path *field.Path) (labels.Selector, field.ErrorList) {
	if s == nil {
		return nil, field.ErrorList{field.Required(path, "")}
	}
	errs := metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path, s, "empty selector is invalid for "+what))
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, append(errs, field.Invalid(path, s, "invalid label selector"))
	}
	return selector, errs
}

// validateTemplate checks the template of pods that are kept running.
func validateTemplate(t *corev1.PodTemplateSpec, selector labels.Selector, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if selector != nil && !selector.Empty() && !selector.Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, podspec.ValidateTemplate(t, path)...)
	return append(errs, keptRunning(t, "ReplicaSet", path)...)
}

// keptRunning refuses what makes pods end by themselves.
func keptRunning(t *corev1.PodTemplateSpec, what string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p := t.Spec.RestartPolicy; p != corev1.RestartPolicyAlways && p != "" {
		errs = append(errs, field.NotSupported(path.Child("spec", "restartPolicy"), p, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+what+" is not Supported"))
	}
	return errs
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

type named struct {
	name  string
	value int64
}
