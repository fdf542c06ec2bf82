package autoscaling

import (
	"fmt"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of scaling rules, in seconds.
const (
	maxWindow = 3600
	maxPeriod = 1800
)

func validate(h *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	s, at := &h.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if s.MinReplicas != nil && *s.MinReplicas < 1 {
		errs = append(errs, field.Invalid(at.Child("minReplicas"), *s.MinReplicas, "must be greater than or equal to 1"))
	}
	if s.MaxReplicas < 1 {
		errs = append(errs, field.Invalid(at.Child("maxReplicas"), s.MaxReplicas, "must be greater than 0"))
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(at.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, validateReference(s.ScaleTargetRef, at.Child("scaleTargetRef"))...)
	for i := range s.Metrics {
		errs = append(errs, validateMetric(&s.Metrics[i], at.Child("metrics").Index(i))...)
	}
	if b := s.Behavior; b != nil {
		errs = append(errs, validateRules(b.ScaleUp, at.Child("behavior", "scaleUp"))...)
		errs = append(errs, validateRules(b.ScaleDown, at.Child("behavior", "scaleDown"))...)
	}
	return errs
}

func validateStatus(h, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	var errs field.ErrorList
	for _, n := range []struct {
		name  string
		value int32
	}{{"currentReplicas", h.Status.CurrentReplicas}, {"desiredReplicas", h.Status.DesiredReplicas}} {
		if n.value < 0 {
			errs = append(errs, field.Invalid(field.NewPath("status", n.name), int64(n.value), "must be greater than or equal to 0"))
		}
	}
	return errs
}

func validateReference(r autoscalingv2.CrossVersionObjectReference, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, p := range []struct{ name, value string }{{"kind", r.Kind}, {"name", r.Name}} {
		if p.value == "" {
			errs = append(errs, field.Required(at.Child(p.name), ""))
		}
		for _, msg := range path.IsValidPathSegmentName(p.value) {
			errs = append(errs, field.Invalid(at.Child(p.name), p.value, msg))
		}
	}
	if _, err := schema.ParseGroupVersion(r.APIVersion); err != nil {
		errs = append(errs, field.Invalid(at.Child("apiVersion"), r.APIVersion, err.Error()))
	}
	return errs
}

func validateRules(r *autoscalingv2.HPAScalingRules, at *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil && *w < 0 {
		errs = append(errs, field.Invalid(at.Child("stabilizationWindowSeconds"), *w, "must be greater than or equal to zero"))
	} else if w != nil && *w > maxWindow {
		errs = append(errs, field.Invalid(at.Child("stabilizationWindowSeconds"), *w, fmt.Sprintf("must be less than or equal to %d", maxWindow)))
	}
	selects := []autoscalingv2.ScalingPolicySelect{autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect}
	if p := r.SelectPolicy; p != nil && !slices.Contains(selects, *p) {
		errs = append(errs, field.NotSupported(at.Child("selectPolicy"), *p, selects))
	}
	if t := r.Tolerance; t != nil && t.Sign() < 0 {
		errs = append(errs, field.Invalid(at.Child("tolerance"), t.String(), "must be greater than or equal to 0"))
	}
	at = at.Child("policies")
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(at, "must specify at least one Policy"))
	}
	types := []autoscalingv2.HPAScalingPolicyType{autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy}
	for i, p := range r.Policies {
		if !slices.Contains(types, p.Type) {
			errs = append(errs, field.NotSupported(at.Index(i).Child("type"), p.Type, types))
		}
		if p.Value <= 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("value"), p.Value, "must be greater than zero"))
		}
		if p.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
		} else if p.PeriodSeconds > maxPeriod {
			errs = append(errs, field.Invalid(at.Index(i).Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %d", maxPeriod)))
		}
	}
	return errs
}

// validateMetric checks that the source which the type names is there, alone,
// and in order.
func validateMetric(m *autoscalingv2.MetricSpec, at *field.Path) field.ErrorList {
	types := []autoscalingv2.MetricSourceType{
		autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType, autoscalingv2.ObjectMetricSourceType,
		autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
	}
	var errs field.ErrorList
	if m.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric source type"))
	} else if !slices.Contains(types, m.Type) {
		errs = append(errs, field.NotSupported(at.Child("type"), m.Type, types))
	}
	c := &metricCheck{}
	for _, s := range []struct {
		name  string
		of    autoscalingv2.MetricSourceType
		set   bool
		check func(at *field.Path)
	}{
		{"containerResource", autoscalingv2.ContainerResourceMetricSourceType, m.ContainerResource != nil, func(at *field.Path) {
			c.required(at.Child("name"), string(m.ContainerResource.Name), "must specify a resource name")
			c.required(at.Child("container"), m.ContainerResource.Container, "must specify a container")
			c.use(&m.ContainerResource.Target, at.Child("target"))
		}},
		{"external", autoscalingv2.ExternalMetricSourceType, m.External != nil, func(at *field.Path) {
			c.metric(m.External.Metric, at.Child("metric"))
			c.external(&m.External.Target, at.Child("target"))
		}},
		{"object", autoscalingv2.ObjectMetricSourceType, m.Object != nil, func(at *field.Path) {
			c.add(validateReference(m.Object.DescribedObject, at.Child("describedObject"))...)
			c.metric(m.Object.Metric, at.Child("metric"))
			c.target(&m.Object.Target, at.Child("target"))
			if m.Object.Target.Value == nil && m.Object.Target.AverageValue == nil {
				c.add(field.Required(at.Child("target", "averageValue"), "must set either a target value or averageValue"))
			}
		}},
		{"pods", autoscalingv2.PodsMetricSourceType, m.Pods != nil, func(at *field.Path) {
			c.metric(m.Pods.Metric, at.Child("metric"))
			c.target(&m.Pods.Target, at.Child("target"))
			if q := m.Pods.Target.AverageValue; q == nil || q.Sign() != 1 {
				c.add(field.Required(at.Child("target", "averageValue"), "must specify a positive target averageValue"))
			}
		}},
		{"resource", autoscalingv2.ResourceMetricSourceType, m.Resource != nil, func(at *field.Path) {
			c.required(at.Child("name"), string(m.Resource.Name), "must specify a resource name")
			c.use(&m.Resource.Target, at.Child("target"))
		}},
	} {
		switch own := s.of == m.Type; {
		case own && !s.set:
			c.add(field.Required(at.Child(s.name), "must populate information for the given metric source"))
		case s.set && !own:
			c.add(field.Forbidden(at.Child(s.name), "must populate the given metric source only"))
		case s.set:
			s.check(at.Child(s.name))
		}
	}
	return append(errs, c.errs...)
}

type metricCheck struct{ errs field.ErrorList }

func (c *metricCheck) add(errs ...*field.Error) { c.errs = append(c.errs, errs...) }

func (c *metricCheck) required(at *field.Path, value, msg string) {
	if value == "" {
		c.add(field.Required(at, msg))
	}
}

func (c *metricCheck) metric(m autoscalingv2.MetricIdentifier, at *field.Path) {
	if m.Name == "" {
		c.add(field.Required(at.Child("name"), "must specify a metric name"))
		return
	}
	for _, msg := range path.IsValidPathSegmentName(m.Name) {
		c.add(field.Invalid(at.Child("name"), m.Name, msg))
	}
}

func (c *metricCheck) target(t *autoscalingv2.MetricTarget, at *field.Path) {
	switch t.Type {
	case "":
		c.add(field.Required(at.Child("type"), "must specify a metric target type"))
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	default:
		c.add(field.Invalid(at.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	for _, v := range []struct {
		name string
		of   *resource.Quantity
	}{{"value", t.Value}, {"averageValue", t.AverageValue}} {
		if v.of != nil && v.of.Sign() != 1 {
			c.add(field.Invalid(at.Child(v.name), v.of.String(), "must be positive"))
		}
	}
	if n := t.AverageUtilization; n != nil && *n < 1 {
		c.add(field.Invalid(at.Child("averageUtilization"), *n, "must be greater than 0"))
	}
}

// use checks the target of a resource: a part of the requests, or an amount.
func (c *metricCheck) use(t *autoscalingv2.MetricTarget, at *field.Path) {
	c.target(t, at)
	if t.AverageUtilization == nil && t.AverageValue == nil {
		c.add(field.Required(at.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	}
	if t.AverageUtilization != nil && t.AverageValue != nil {
		c.add(field.Forbidden(at.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
}

func (c *metricCheck) external(t *autoscalingv2.MetricTarget, at *field.Path) {
	c.target(t, at)
	if t.Value == nil && t.AverageValue == nil {
		c.add(field.Required(at.Child("averageValue"), "must set either a target value for metric or a per-pod target"))
	}
	if t.Value != nil && t.AverageValue != nil {
		c.add(field.Forbidden(at.Child("value"), "may not set both a target value for metric and a per-pod target"))
	}
}
