package core

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateServiceUpdate(s, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if s.Spec.Type != corev1.ServiceTypeExternalName && old.Spec.Type != corev1.ServiceTypeExternalName {
		errs = validateKeptAddresses(s, old, path)
	}
	if healthChecked(s) && healthChecked(old) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(path.Child("healthCheckNodePort"), "field is immutable"))
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer {
		if !samePtr(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
			errs = append(errs, field.Invalid(path.Child("loadBalancerClass"), s.Spec.LoadBalancerClass, "may not change once set"))
		}
	}
	return errs
}

// validateKeptAddresses lets only a second address be added or removed.
func validateKeptAddresses(s, old *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	is, was := s.Spec.ClusterIPs, old.Spec.ClusterIPs
	at := path.Child("clusterIPs")
	switch {
	case len(was) == 0 || was[0] == "":
	case len(is) == 0:
		errs = append(errs, field.Invalid(at, is, "primary clusterIP can not be unset"))
	case is[0] != was[0]:
		errs = append(errs, field.Invalid(at.Index(0), is, "may not change once set"))
	case len(is) == 2 && len(was) == 2 && is[1] != was[1]:
		errs = append(errs, field.Invalid(at.Index(1), is, "may not change once set"))
	}
	fams, had := s.Spec.IPFamilies, old.Spec.IPFamilies
	if len(fams) > 0 && len(had) > 0 && fams[0] != had[0] {
		errs = append(errs, field.Invalid(path.Child("ipFamilies").Index(0), fams, "may not change once set"))
	}
	return errs
}

func validateServiceStatus(s, _ *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status", "loadBalancer", "ingress")
	if len(s.Status.LoadBalancer.Ingress) > 0 && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		errs = append(errs, field.Forbidden(path, "may only be used when `spec.type` is \"LoadBalancer\""))
	}
	for i, in := range s.Status.LoadBalancer.Ingress {
		at := path.Index(i)
		if in.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), in.IP, false, nil)...)
		}
		if in.IPMode != nil {
			if in.IP == "" {
				errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
			}
			if *in.IPMode != corev1.LoadBalancerIPModeVIP && *in.IPMode != corev1.LoadBalancerIPModeProxy {
				errs = append(errs, field.NotSupported(at.Child("ipMode"), *in.IPMode, []corev1.LoadBalancerIPMode{corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP}))
			}
		}
		if in.Hostname != "" {
			for _, msg := range apivalidation.NameIsDNSSubdomain(in.Hostname, false) {
				errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, msg))
			}
			if _, isIP := familyOf(in.Hostname); isIP {
				errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}
