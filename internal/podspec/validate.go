package podspec

import (
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Where tells in what a spec lies; a few rules differ.
type Where bool

// A spec lies in a template or in a pod.
const (
	InTemplate Where = false
	InPod      Where = true
)

// ValidateTemplate checks a defaulted pod template at path.
func ValidateTemplate(t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(t.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	errs = append(errs, Validate(&t.Spec, InTemplate, path.Child("spec"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// Validate checks a defaulted pod spec at path.
func Validate(s *corev1.PodSpec, in Where, path *field.Path) field.ErrorList {
	v := &checker{spec: s, in: in, volumes: map[string]*corev1.Volume{}}
	v.checkVolumes(path.Child("volumes"))
	v.claims(path.Child("resourceClaims"))
	v.containers(path.Child("containers"))
	v.initContainers(path.Child("initContainers"))
	v.ephemeralContainers(path.Child("ephemeralContainers"))
	v.podResources(path.Child("resources"))
	v.hostNetwork(path)
	v.oneOf(path.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	v.oneOf(path.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	v.add(metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))...)
	v.podSecurity(path)
	v.affinity(path.Child("affinity"))
	v.dnsConfig(path.Child("dnsConfig"))
	v.gates(path)
	v.spread(path.Child("topologySpreadConstraints"))
	v.names(path)
	v.add(ValidateTolerations(s.Tolerations, path.Child("tolerations"))...)
	v.hostAliases(path.Child("hostAliases"))
	v.overhead(path.Child("overhead"))
	v.os(path)
	return v.errs
}

// checker collects what is wrong with one spec.
type checker struct {
	spec    *corev1.PodSpec
	in      Where
	volumes map[string]*corev1.Volume
	errs    field.ErrorList
}

func (v *checker) add(errs ...*field.Error) { v.errs = append(v.errs, errs...) }

func (v *checker) invalid(path *field.Path, value any, format string, args ...any) {
	v.add(field.Invalid(path, value, fmt.Sprintf(format, args...)))
}

// msgs reports each message of one of apimachinery's checks.
func (v *checker) msgs(path *field.Path, value any, msgs []string) bool {
	for _, m := range msgs {
		v.add(field.Invalid(path, value, m))
	}
	return len(msgs) == 0
}

func (v *checker) required(path *field.Path, value string) bool {
	if value == "" {
		v.add(field.Required(path, ""))
	}
	return value != ""
}

// oneOf demands a value out of a set.
func (v *checker) oneOf(path *field.Path, value any, allowed ...any) {
	text := fmt.Sprint(value)
	if text == "" {
		v.add(field.Required(path, ""))
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		if names[i] = fmt.Sprint(a); names[i] == text {
			return
		}
	}
	v.add(field.NotSupported(path, text, names))
}

// oneOfPtr demands nothing, or a value out of a set.
func oneOfPtr[T ~string](v *checker, path *field.Path, value *T, allowed ...T) {
	if value != nil && !slices.Contains(allowed, *value) {
		v.add(field.NotSupported(path, *value, allowed))
	}
}

func (v *checker) names(path *field.Path) {
	s := v.spec
	if s.ServiceAccountName != "" {
		v.msgs(path.Child("serviceAccountName"), s.ServiceAccountName, apivalidation.ValidateServiceAccountName(s.ServiceAccountName, false))
	}
	if s.NodeName != "" {
		v.msgs(path.Child("nodeName"), s.NodeName, apivalidation.NameIsDNSSubdomain(s.NodeName, false))
	}
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		v.invalid(path.Child("activeDeadlineSeconds"), *d, "%s", validation.InclusiveRangeError(1, math.MaxInt32))
	}
	if s.Hostname != "" {
		v.msgs(path.Child("hostname"), s.Hostname, validation.IsDNS1123Label(s.Hostname))
	}
	if s.Subdomain != "" {
		v.msgs(path.Child("subdomain"), s.Subdomain, validation.IsDNS1123Label(s.Subdomain))
	}
	if n := s.HostnameOverride; n != nil {
		if v.msgs(path.Child("hostnameOverride"), *n, validation.IsDNS1123Subdomain(*n)) && len(*n) > 64 {
			v.add(field.TooLong(path.Child("hostnameOverride"), *n, 64))
		}
	}
	if s.PriorityClassName != "" {
		v.msgs(path.Child("priorityClassName"), s.PriorityClassName, apivalidation.NameIsDNSSubdomain(s.PriorityClassName, false))
	}
	if n := s.RuntimeClassName; n != nil {
		v.msgs(path.Child("runtimeClassName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
	}
	oneOfPtr(v, path.Child("preemptionPolicy"), s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
}

func (v *checker) gates(path *field.Path) {
	for i, g := range v.spec.ReadinessGates {
		v.msgs(path.Child("readinessGates").Index(i).Child("conditionType"), string(g.ConditionType), validation.IsQualifiedName(string(g.ConditionType)))
	}
	seen := map[string]bool{}
	for i, g := range v.spec.SchedulingGates {
		at := path.Child("schedulingGates").Index(i)
		v.msgs(at.Child("name"), g.Name, validation.IsQualifiedName(g.Name))
		if seen[g.Name] {
			v.add(field.Duplicate(at, g.Name))
		}
		seen[g.Name] = true
	}
}

func (v *checker) claims(path *field.Path) {
	seen := map[string]bool{}
	for i, c := range v.spec.ResourceClaims {
		at := path.Index(i)
		if c.Name == "" {
			v.add(field.Required(at.Child("name"), ""))
		} else {
			v.msgs(at.Child("name"), c.Name, validation.IsDNS1123Label(c.Name))
		}
		if seen[c.Name] {
			v.add(field.Duplicate(at.Child("name"), c.Name))
		}
		seen[c.Name] = true
		switch {
		case c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil:
			v.invalid(at, c, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		case c.ResourceClaimName == nil && c.ResourceClaimTemplateName == nil:
			v.invalid(at, c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
	}
}

func (v *checker) hostAliases(path *field.Path) {
	for i, a := range v.spec.HostAliases {
		v.add(validation.IsValidIPForLegacyField(path.Index(i).Child("ip"), a.IP, false, nil)...)
		for j, name := range a.Hostnames {
			v.msgs(path.Index(i).Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain(name))
		}
	}
}

func (v *checker) os(path *field.Path) {
	s := v.spec
	if s.OS == nil {
		return
	}
	at := path.Child("os", "name")
	switch s.OS.Name {
	case "":
		v.add(field.Required(at, "os name cannot be empty"))
	case corev1.Linux:
		if s.SecurityContext != nil && s.SecurityContext.WindowsOptions != nil {
			v.add(field.Forbidden(path.Child("securityContext", "windowsOptions"), "windows options cannot be set for a linux pod"))
		}
	default:
		// Nodes run Linux only: better refused here than never scheduled.
		v.add(field.NotSupported(at, s.OS.Name, []corev1.OSName{corev1.Linux}))
	}
}
