package autoscaling

import (
	"encoding/json"
	"maps"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// The annotations in which version v1 says what it has no fields for.
const (
	metricsAnnotation    = "autoscaling.alpha.kubernetes.io/metrics"
	currentAnnotation    = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorAnnotation   = "autoscaling.alpha.kubernetes.io/behavior"
)

// HorizontalPodAutoscalerV1 is the kind of autoscalers in version v1.
func HorizontalPodAutoscalerV1() *api.Kind {
	k := HorizontalPodAutoscaler()
	return &api.Kind{
		Group: k.Group, Version: "v1", Kind: k.Kind,
		Resource: k.Resource, Singular: k.Singular,
		ShortNames: k.ShortNames, Categories: k.Categories, Namespaced: true,
		Verbs: k.Verbs, Subresources: k.Subresources,
		As:  api.Converts(schema.GroupKind{Group: k.Group, Kind: k.Kind}, toV2, fromV2),
		New: func() api.Object { return &autoscalingv1.HorizontalPodAutoscaler{} },
		Validate: api.Check(func(h *autoscalingv1.HorizontalPodAutoscaler) field.ErrorList {
			return validatePercent(h.Spec.TargetCPUUtilizationPercentage)
		}),
		ValidateUpdate: api.CheckPair(func(h, _ *autoscalingv1.HorizontalPodAutoscaler) field.ErrorList {
			return validatePercent(h.Spec.TargetCPUUtilizationPercentage)
		}),
	}
}

func validatePercent(n *int32) field.ErrorList {
	if n == nil || *n >= 1 {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("spec", "targetCPUUtilizationPercentage"), *n, "must be greater than 0")}
}

// hidden is what v1 keeps in annotations.
type hidden struct {
	metrics    []autoscalingv1.MetricSpec
	current    []autoscalingv1.MetricStatus
	conditions []autoscalingv1.HorizontalPodAutoscalerCondition
	behavior   *autoscalingv2.HorizontalPodAutoscalerBehavior
}

func (h *hidden) parts() map[string]any {
	return map[string]any{
		metricsAnnotation: &h.metrics, currentAnnotation: &h.current, conditionsAnnotation: &h.conditions, behaviorAnnotation: &h.behavior,
	}
}

// reveal takes what it can read out of annotations; what it cannot stays there.
func reveal(meta *metav1.ObjectMeta) hidden {
	var h hidden
	meta.Annotations = maps.Clone(meta.Annotations)
	for name, to := range h.parts() {
		text, ok := meta.Annotations[name]
		if ok && json.Unmarshal([]byte(text), to) == nil {
			delete(meta.Annotations, name)
		}
	}
	if len(meta.Annotations) == 0 {
		meta.Annotations = nil
	}
	return h
}

// hide writes into annotations.
func (h *hidden) hide(meta *metav1.ObjectMeta) {
	say := map[string]bool{
		metricsAnnotation: len(h.metrics) > 0, currentAnnotation: len(h.current) > 0, conditionsAnnotation: len(h.conditions) > 0, behaviorAnnotation: h.behavior != nil,
	}
	meta.Annotations = maps.Clone(meta.Annotations)
	for name, of := range h.parts() {
		if !say[name] {
			continue
		}
		text, err := json.Marshal(of)
		if err != nil {
			continue // plain data
		}
		metav1.SetMetaDataAnnotation(meta, name, string(text))
	}
}

func toV2(v1 *autoscalingv1.HorizontalPodAutoscaler) *autoscalingv2.HorizontalPodAutoscaler {
	out := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: v1.ObjectMeta}
	h := reveal(&out.ObjectMeta)
	s, st := &v1.Spec, &v1.Status
	out.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(s.ScaleTargetRef), MinReplicas: s.MinReplicas, MaxReplicas: s.MaxReplicas, Behavior: h.behavior,
	}
	for i := range h.metrics {
		out.Spec.Metrics = append(out.Spec.Metrics, metricToV2(&h.metrics[i]))
	}
	if n := s.TargetCPUUtilizationPercentage; n != nil {
		out.Spec.Metrics = append(out.Spec.Metrics, autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: n},
		}})
	}
	out.Status = autoscalingv2.HorizontalPodAutoscalerStatus{
		ObservedGeneration: st.ObservedGeneration, LastScaleTime: st.LastScaleTime, CurrentReplicas: st.CurrentReplicas, DesiredReplicas: st.DesiredReplicas,
	}
	for _, c := range h.conditions {
		out.Status.Conditions = append(out.Status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{
			Type: autoscalingv2.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
		})
	}
	for i := range h.current {
		out.Status.CurrentMetrics = append(out.Status.CurrentMetrics, currentToV2(&h.current[i]))
	}
	if n := st.CurrentCPUUtilizationPercentage; n != nil {
		found := false
		for i := range out.Status.CurrentMetrics {
			found = found || cpuNow(&out.Status.CurrentMetrics[i])
		}
		if !found {
			out.Status.CurrentMetrics = append(out.Status.CurrentMetrics, autoscalingv2.MetricStatus{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricStatus{
				Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{AverageUtilization: n},
			}})
		}
	}
	return out
}

// cpuUse reports whether a metric is the one that v1 has a field for.
func cpuUse(m *autoscalingv2.MetricSpec) bool {
	r := m.Resource
	return m.Type == autoscalingv2.ResourceMetricSourceType && r != nil && r.Name == corev1.ResourceCPU && r.Target.AverageUtilization != nil && r.Target.AverageValue == nil
}

// cpuNow reports whether a status is the one that v1 has a field for.
func cpuNow(m *autoscalingv2.MetricStatus) bool {
	r := m.Resource
	return m.Type == autoscalingv2.ResourceMetricSourceType && r != nil && r.Name == corev1.ResourceCPU && r.Current.AverageUtilization != nil
}

func fromV2(v2 *autoscalingv2.HorizontalPodAutoscaler) *autoscalingv1.HorizontalPodAutoscaler {
	out := &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: v2.ObjectMeta}
	s, st := &v2.Spec, &v2.Status
	h := hidden{behavior: s.Behavior}
	out.Spec = autoscalingv1.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(s.ScaleTargetRef), MinReplicas: s.MinReplicas, MaxReplicas: s.MaxReplicas,
	}
	for i := range s.Metrics {
		if m := &s.Metrics[i]; cpuUse(m) && out.Spec.TargetCPUUtilizationPercentage == nil {
			out.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
		} else {
			h.metrics = append(h.metrics, metricToV1(m))
		}
	}
	out.Status = autoscalingv1.HorizontalPodAutoscalerStatus{
		ObservedGeneration: st.ObservedGeneration, LastScaleTime: st.LastScaleTime, CurrentReplicas: st.CurrentReplicas, DesiredReplicas: st.DesiredReplicas,
	}
	for i := range st.CurrentMetrics {
		m := &st.CurrentMetrics[i]
		if cpuNow(m) && out.Status.CurrentCPUUtilizationPercentage == nil {
			if out.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization; m.Resource.Current.AverageValue == nil {
				continue // the field says it all
			}
		}
		h.current = append(h.current, currentToV1(m))
	}
	for _, c := range st.Conditions {
		h.conditions = append(h.conditions, autoscalingv1.HorizontalPodAutoscalerCondition{
			Type: autoscalingv1.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
		})
	}
	h.hide(&out.ObjectMeta)
	return out
}
