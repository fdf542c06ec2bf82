package autoscaling

import (
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// What an autoscaler gets where it says nothing, and how many metrics a table
// names.
const (
	defaultUtilization = 80
	maxShown           = 2
)

// HorizontalPodAutoscaler is the kind of autoscalers, in the version in which
// they are stored.
func HorizontalPodAutoscaler() *api.Kind {
	spec, status := autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc(), autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()
	return &api.Kind{
		Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler",
		Resource: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler",
		ShortNames:   []string{"hpa"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{{Name: "status", Verbs: []string{"get", "patch", "update"}}},
		New:          func() api.Object { return &autoscalingv2.HorizontalPodAutoscaler{} },
		Default:      api.On(setDefaults),
		OnCreate: api.On(func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
		}),
		OnUpdate: api.OnPair(func(h, old *autoscalingv2.HorizontalPodAutoscaler) { h.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(h, old *autoscalingv2.HorizontalPodAutoscaler) {
			api.KeepMeta(h, old)
			h.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:         api.Of(func(h *autoscalingv2.HorizontalPodAutoscaler) any { return &h.Spec }),
		Validate:       api.Check(validate),
		ValidateStatus: api.CheckPair(validateStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Reference", spec["scaleTargetRef"]),
			api.TextColumn("Targets", spec["metrics"]),
			api.TextColumn("MinPods", spec["minReplicas"]),
			api.TextColumn("MaxPods", spec["maxReplicas"]),
			api.TextColumn("Replicas", status["currentReplicas"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(h *autoscalingv2.HorizontalPodAutoscaler, now time.Time) []any {
			least := "<unset>"
			if h.Spec.MinReplicas != nil {
				least = fmt.Sprint(*h.Spec.MinReplicas)
			}
			ref := h.Spec.ScaleTargetRef
			return []any{
				h.Name, ref.Kind + "/" + ref.Name, targets(h.Spec.Metrics, h.Status.CurrentMetrics), least,
				int64(h.Spec.MaxReplicas), int64(h.Status.CurrentReplicas), api.Age(h.CreationTimestamp, now),
			}
		}),
	}
}

func setDefaults(h *autoscalingv2.HorizontalPodAutoscaler) {
	s := &h.Spec
	setPtr(&s.MinReplicas, 1)
	if len(s.Metrics) == 0 {
		percent := int32(defaultUtilization)
		s.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
		}}}
	}
	if b := s.Behavior; b != nil {
		fast := []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}, {Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}}
		b.ScaleUp = withRules(b.ScaleUp, fast)
		setPtr(&b.ScaleUp.StabilizationWindowSeconds, 0)
		b.ScaleDown = withRules(b.ScaleDown, fast[1:])
	}
}

// withRules fills in the policies that rules leave out.
func withRules(r *autoscalingv2.HPAScalingRules, policies []autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	if r == nil {
		r = &autoscalingv2.HPAScalingRules{}
	}
	setPtr(&r.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if r.Policies == nil {
		r.Policies = policies
	}
	return r
}

func setPtr[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}

// targets prints each metric as what it is and what it should be.
func targets(specs []autoscalingv2.MetricSpec, now []autoscalingv2.MetricStatus) string {
	if len(specs) == 0 {
		return api.CellNone
	}
	out := make([]string, len(specs))
	for i := range specs {
		var current autoscalingv2.MetricStatus
		if i < len(now) {
			current = now[i]
		}
		out[i] = target(&specs[i], &current)
	}
	if len(out) > maxShown {
		return fmt.Sprintf("%s + %d more...", strings.Join(out[:maxShown], ", "), len(out)-maxShown)
	}
	return strings.Join(out, ", ")
}

func target(s *autoscalingv2.MetricSpec, now *autoscalingv2.MetricStatus) string {
	switch {
	case s.Type == autoscalingv2.ExternalMetricSourceType && s.External != nil:
		var c autoscalingv2.MetricValueStatus
		if now.External != nil {
			c = now.External.Current
		}
		return valueOrAverage(&s.External.Target, &c)
	case s.Type == autoscalingv2.ObjectMetricSourceType && s.Object != nil:
		var c autoscalingv2.MetricValueStatus
		if now.Object != nil {
			c = now.Object.Current
		}
		return valueOrAverage(&s.Object.Target, &c)
	case s.Type == autoscalingv2.PodsMetricSourceType && s.Pods != nil:
		var c autoscalingv2.MetricValueStatus
		if now.Pods != nil {
			c = now.Pods.Current
		}
		return quantity(c.AverageValue) + "/" + quantity(s.Pods.Target.AverageValue)
	case s.Type == autoscalingv2.ResourceMetricSourceType && s.Resource != nil:
		var c autoscalingv2.MetricValueStatus
		if now.Resource != nil {
			c = now.Resource.Current
		}
		return string(s.Resource.Name) + ": " + averageOrPercent(&s.Resource.Target, &c)
	case s.Type == autoscalingv2.ContainerResourceMetricSourceType && s.ContainerResource != nil:
		var c autoscalingv2.MetricValueStatus
		if now.ContainerResource != nil {
			c = now.ContainerResource.Current
		}
		return string(s.ContainerResource.Name) + ": " + averageOrPercent(&s.ContainerResource.Target, &c)
	}
	return "<unknown type>"
}

func valueOrAverage(t *autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return quantity(now.AverageValue) + "/" + quantity(t.AverageValue) + " (avg)"
	}
	return quantity(now.Value) + "/" + quantity(t.Value)
}

func averageOrPercent(t *autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return quantity(now.AverageValue) + "/" + quantity(t.AverageValue)
	}
	current, wanted := api.CellUnknown, "<auto>"
	if now.AverageUtilization != nil {
		current = fmt.Sprintf("%d%%", *now.AverageUtilization)
	}
	if t.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *t.AverageUtilization)
	}
	return current + "/" + wanted
}

func quantity(q *resource.Quantity) string {
	if q == nil {
		return api.CellUnknown
	}
	return q.String()
}
