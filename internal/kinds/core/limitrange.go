package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// LimitRange is the kind of limit ranges.
func LimitRange() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "LimitRange",
		Resource: "limitranges", Singular: "limitrange",
		Warn:           api.Warn(warnLimits),
		CreateOnUpdate: true,
		ShortNames:     []string{"limits"},
		Namespaced:     true,
		Verbs:          allVerbs(),
		New:            func() api.Object { return &corev1.LimitRange{} },
		Default: api.On(func(r *corev1.LimitRange) {
			for i := range r.Spec.Limits {
				defaultLimits(&r.Spec.Limits[i])
			}
		}),
		Validate: api.Check(validateLimitRange),
	}
}

// defaultLimits gives containers as default limit the highest, and as default
// request the default limit or else the least.
func defaultLimits(l *corev1.LimitRangeItem) {
	if l.Type != corev1.LimitTypeContainer {
		return
	}
	l.Default = withMore(l.Default, l.Max)
	l.DefaultRequest = withMore(withMore(l.DefaultRequest, l.Default), l.Min)
}

// withMore is l with the resources of more that l does not have.
func withMore(l, more corev1.ResourceList) corev1.ResourceList {
	for name, q := range more {
		if _, ok := l[name]; ok {
			continue
		}
		if l == nil {
			l = corev1.ResourceList{}
		}
		l[name] = q.DeepCopy()
	}
	return l
}

func validateLimitRange(r *corev1.LimitRange) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.LimitType]bool{}
	for i := range r.Spec.Limits {
		l, path := &r.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateLimitType(l.Type, path.Child("type"))...)
		if seen[l.Type] {
			errs = append(errs, field.Duplicate(path.Child("type"), l.Type))
		}
		seen[l.Type] = true
		errs = append(errs, validateLimitNames(l, path)...)
		if l.Type == corev1.LimitTypePersistentVolumeClaim {
			_, least := l.Min[corev1.ResourceStorage]
			_, most := l.Max[corev1.ResourceStorage]
			if !least && !most {
				errs = append(errs, field.Required(path.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
			}
		}
		errs = append(errs, validateLimitOrder(l, path)...)
	}
	return errs
}

func validateLimitType(t corev1.LimitType, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsQualifiedName(string(t)) {
		errs = append(errs, field.Invalid(path, t, msg))
	}
	known := t == corev1.LimitTypePod || t == corev1.LimitTypeContainer || t == corev1.LimitTypePersistentVolumeClaim
	if len(errs) == 0 && !strings.Contains(string(t), "/") && !known {
		errs = append(errs, field.Invalid(path, t, "must be a standard limit type or fully qualified"))
	}
	return errs
}

func validateLimitNames(l *corev1.LimitRangeItem, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	valid := podspec.ValidateResourceName
	if l.Type == corev1.LimitTypePod || l.Type == corev1.LimitTypeContainer {
		valid = podspec.ValidateContainerResourceName
	}
	for _, part := range []struct {
		name string
		of   corev1.ResourceList
	}{
		{"max", l.Max}, {"min", l.Min}, {"default", l.Default}, {"defaultRequest", l.DefaultRequest}, {"maxLimitRequestRatio", l.MaxLimitRequestRatio},
	} {
		if l.Type == corev1.LimitTypePod && len(part.of) > 0 && strings.HasPrefix(part.name, "default") {
			errs = append(errs, field.Forbidden(path.Child(part.name), "may not be specified when `type` is 'Pod'"))
			continue
		}
		for _, name := range podspec.ResourceNames(part.of) {
			errs = append(errs, valid(name, path.Child(part.name).Key(string(name)))...)
		}
	}
	return errs
}

// validateLimitOrder demands min ≤ default request ≤ default ≤ max of each
// resource, as far as they are given.
func validateLimitOrder(l *corev1.LimitRangeItem, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[corev1.ResourceName]bool{}
	for _, list := range []corev1.ResourceList{l.Min, l.Max, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
		for name := range list {
			names[name] = true
		}
	}
	type part struct {
		name, text string
		of         corev1.ResourceList
	}
	least, most := part{"min", "min value", l.Min}, part{"max", "max value", l.Max}
	usual, request := part{"default", "default value", l.Default}, part{"defaultRequest", "default request value", l.DefaultRequest}
	limit := usual
	limit.text = "default limit value"
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, c := range []struct {
			at        string
			low, high part
			value     part
		}{
			{"min", least, most, least}, {"defaultRequest", least, request, request}, {"defaultRequest", request, most, request},
			{"defaultRequest", request, limit, request}, {"default", least, usual, least}, {"default", usual, most, most},
		} {
			low, ok := c.low.of[name]
			high, ok2 := c.high.of[name]
			if ok && ok2 && low.Cmp(high) > 0 {
				value := c.value.of[name]
				errs = append(errs, field.Invalid(path.Child(c.at).Key(string(name)), value.String(),
					fmt.Sprintf("%s %s is greater than %s %s", c.low.text, low.String(), c.high.text, high.String())))
			}
		}
		errs = append(errs, validateRatio(l, name, path)...)
		d, ok := l.Default[name]
		if q, ok2 := l.DefaultRequest[name]; ok && ok2 && !podspec.Overcommit(name) && d.Cmp(q) != 0 {
			errs = append(errs, field.Invalid(path.Child("defaultRequest").Key(string(name)), q.String(),
				fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", d.String(), q.String(), name)))
		}
	}
	return errs
}

func validateRatio(l *corev1.LimitRangeItem, name corev1.ResourceName, path *field.Path) field.ErrorList {
	ratio, ok := l.MaxLimitRequestRatio[name]
	if !ok {
		return nil
	}
	var errs field.ErrorList
	at := path.Child("maxLimitRequestRatio").Key(string(name))
	if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		errs = append(errs, field.Invalid(at, ratio.String(), fmt.Sprintf("ratio %s is less than 1", ratio.String())))
	}
	least, ok := l.Min[name]
	most, ok2 := l.Max[name]
	if ok && ok2 && !least.IsZero() {
		if highest := most.AsApproximateFloat64() / least.AsApproximateFloat64(); ratio.AsApproximateFloat64() > highest {
			errs = append(errs, field.Invalid(at, ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), highest)))
		}
	}
	return errs
}
