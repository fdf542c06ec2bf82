package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxAffinityTimeout is a day, in seconds.
const maxAffinityTimeout = 86400

func validateService(s *corev1.Service) field.ErrorList {
	v := &serviceCheck{s: s, path: field.NewPath("spec")}
	v.byType()
	v.ports()
	v.add(metavalidation.ValidateLabels(s.Spec.Selector, v.path.Child("selector"))...)
	v.affinity()
	v.addresses()
	v.families()
	v.traffic()
	v.balancer()
	return v.errs
}

type serviceCheck struct {
	s    *corev1.Service
	path *field.Path
	errs field.ErrorList
}

func (v *serviceCheck) add(errs ...*field.Error) { v.errs = append(v.errs, errs...) }

func (v *serviceCheck) invalid(path *field.Path, value any, msg string) {
	v.add(field.Invalid(path, value, msg))
}

func (v *serviceCheck) byType() {
	spec := &v.s.Spec
	if len(spec.Ports) == 0 && !headless(v.s) && spec.Type != corev1.ServiceTypeExternalName {
		v.add(field.Required(v.path.Child("ports"), ""))
	}
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		if headless(v.s) {
			v.invalid(v.path.Child("clusterIPs").Index(0), spec.ClusterIPs[0], "may not be set to 'None' for LoadBalancer services")
		}
	case corev1.ServiceTypeNodePort:
		if headless(v.s) {
			v.invalid(v.path.Child("clusterIPs").Index(0), spec.ClusterIPs[0], "may not be set to 'None' for NodePort services")
		}
	case corev1.ServiceTypeExternalName:
		v.externalName()
	case corev1.ServiceTypeClusterIP:
	default:
		v.add(field.NotSupported(v.path.Child("type"), spec.Type, []corev1.ServiceType{
			corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort,
		}))
	}
}

func (v *serviceCheck) externalName() {
	spec := &v.s.Spec
	if len(spec.ClusterIPs) > 0 || spec.ClusterIP != "" {
		v.add(field.Forbidden(v.path.Child("clusterIPs"), "may not be set for ExternalName services"))
	}
	if len(spec.IPFamilies) > 0 {
		v.add(field.Forbidden(v.path.Child("ipFamilies"), "may not be set for ExternalName services"))
	}
	if spec.IPFamilyPolicy != nil {
		v.add(field.Forbidden(v.path.Child("ipFamilyPolicy"), "may not be set for ExternalName services"))
	}
	name := strings.TrimSuffix(spec.ExternalName, ".")
	if name == "" {
		v.add(field.Required(v.path.Child("externalName"), ""))
		return
	}
	for _, msg := range validation.IsDNS1123Subdomain(name) {
		v.invalid(v.path.Child("externalName"), name, msg)
	}
}

func (v *serviceCheck) ports() {
	spec, path := &v.s.Spec, v.path.Child("ports")
	names := map[string]bool{}
	type where struct {
		protocol corev1.Protocol
		port     int32
	}
	ports, nodePorts := map[where]bool{}, map[where]bool{}
	for i := range spec.Ports {
		p, at := &spec.Ports[i], path.Index(i)
		v.port(p, len(spec.Ports) > 1, names, at)
		if p.NodePort != 0 {
			if spec.Type == corev1.ServiceTypeClusterIP || spec.Type == corev1.ServiceTypeExternalName {
				v.add(field.Forbidden(at.Child("nodePort"), fmt.Sprintf("may not be used when `type` is '%s'", spec.Type)))
			}
			w := where{p.Protocol, p.NodePort}
			if nodePorts[w] {
				v.add(field.Duplicate(at.Child("nodePort"), p.NodePort))
			}
			nodePorts[w] = true
		}
		w := where{p.Protocol, p.Port}
		if ports[w] {
			v.add(field.Duplicate(at, corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}))
		}
		ports[w] = true
	}
}

func (v *serviceCheck) port(p *corev1.ServicePort, named bool, names map[string]bool, at *field.Path) {
	switch {
	case p.Name == "":
		if named {
			v.add(field.Required(at.Child("name"), ""))
		}
	default:
		for _, msg := range validation.IsDNS1123Label(p.Name) {
			v.invalid(at.Child("name"), p.Name, msg)
		}
		if names[p.Name] {
			v.add(field.Duplicate(at.Child("name"), p.Name))
		}
		names[p.Name] = true
	}
	for _, msg := range validation.IsValidPortNum(int(p.Port)) {
		v.invalid(at.Child("port"), p.Port, msg)
	}
	v.protocol(p.Protocol, at.Child("protocol"))
	if p.TargetPort.Type == intstr.Int {
		for _, msg := range validation.IsValidPortNum(p.TargetPort.IntValue()) {
			v.invalid(at.Child("targetPort"), p.TargetPort, msg)
		}
	} else {
		for _, msg := range validation.IsValidPortName(p.TargetPort.StrVal) {
			v.invalid(at.Child("targetPort"), p.TargetPort, msg)
		}
	}
	if p.AppProtocol != nil {
		for _, msg := range validation.IsQualifiedName(*p.AppProtocol) {
			v.invalid(at.Child("appProtocol"), *p.AppProtocol, msg)
		}
	}
}

func (v *serviceCheck) protocol(p corev1.Protocol, at *field.Path) {
	switch p {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	case "":
		v.add(field.Required(at, ""))
	default:
		v.add(field.NotSupported(at, p, []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}))
	}
}

func (v *serviceCheck) affinity() {
	spec, path := &v.s.Spec, v.path.Child("sessionAffinity")
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if spec.SessionAffinityConfig != nil {
			v.add(field.Forbidden(v.path.Child("sessionAffinityConfig"), "must not be set when session affinity is None"))
		}
	case corev1.ServiceAffinityClientIP:
		at := v.path.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds")
		c := spec.SessionAffinityConfig
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			v.add(field.Required(at, ""))
		} else if t := *c.ClientIP.TimeoutSeconds; t <= 0 || t > maxAffinityTimeout {
			v.invalid(at, t, fmt.Sprintf("must be greater than 0 and less than %d", maxAffinityTimeout))
		}
	case "":
		v.add(field.Required(path, ""))
	default:
		v.add(field.NotSupported(path, spec.SessionAffinity, []corev1.ServiceAffinity{corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone}))
	}
}

func (v *serviceCheck) addresses() {
	for i, ip := range v.s.Spec.ExternalIPs {
		at := v.path.Child("externalIPs").Index(i)
		if errs := validation.IsValidIPForLegacyField(at, ip, false, nil); len(errs) > 0 {
			v.add(errs...)
			continue
		}
		v.outside(ip, at)
	}
	for i, cidr := range v.s.Spec.LoadBalancerSourceRanges {
		v.add(validation.IsValidCIDRForLegacyField(v.path.Child("loadBalancerSourceRanges").Index(i), cidr, false, nil)...)
	}
	if len(v.s.Spec.LoadBalancerSourceRanges) > 0 && v.s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		v.add(field.Forbidden(v.path.Child("LoadBalancerSourceRanges"), "may only be used when `type` is 'LoadBalancer'"))
	}
}

// outside refuses addresses to which nobody outside can send.
func (v *serviceCheck) outside(ip string, at *field.Path) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return // an old spelling, such as one with leading zeros
	}
	a = a.Unmap()
	switch {
	case a.IsUnspecified():
		v.invalid(at, ip, "may not be unspecified (0.0.0.0 or ::)")
	case a.IsLoopback():
		v.invalid(at, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	case a.IsLinkLocalUnicast():
		v.invalid(at, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	case a.IsLinkLocalMulticast():
		v.invalid(at, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}

func (v *serviceCheck) families() {
	spec := &v.s.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if p := spec.IPFamilyPolicy; p != nil {
		all := []corev1.IPFamilyPolicy{corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack}
		if !slices.Contains(all, *p) {
			v.add(field.NotSupported(v.path.Child("ipFamilyPolicy"), *p, all))
		}
	}
	path := v.path.Child("ipFamilies")
	for i, f := range spec.IPFamilies {
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			v.add(field.NotSupported(path.Index(i), f, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}))
		}
		if slices.Index(spec.IPFamilies, f) < i {
			v.add(field.Duplicate(path.Index(i), f))
		}
	}
	if !headless(v.s) || len(spec.Selector) > 0 { // else whoever writes the endpoints decides
		for i, f := range spec.IPFamilies {
			if f == corev1.IPv6Protocol {
				v.invalid(path.Index(i), f, "not configured on this cluster")
			}
		}
		if p := spec.IPFamilyPolicy; p != nil && *p == corev1.IPFamilyPolicyRequireDualStack {
			v.invalid(v.path.Child("ipFamilyPolicy"), *p, "this cluster is not configured for dual-stack services")
		}
	}
	v.clusterIPs()
}

func (v *serviceCheck) clusterIPs() {
	spec, path := &v.s.Spec, v.path.Child("clusterIPs")
	if spec.ClusterIP != "" && (len(spec.ClusterIPs) == 0 || spec.ClusterIPs[0] != spec.ClusterIP) {
		v.invalid(path, spec.ClusterIPs, "first value must match `clusterIP`")
		return
	}
	if len(spec.ClusterIPs) > 2 {
		v.invalid(path, spec.ClusterIPs, "may only hold up to 2 values")
	}
	for i, ip := range spec.ClusterIPs {
		at := path.Index(i)
		if ip == corev1.ClusterIPNone && i == 0 {
			if len(spec.ClusterIPs) > 1 {
				v.invalid(path, spec.ClusterIPs, "'None' must be the first and only value")
			}
			return
		}
		if errs := validation.IsValidIPForLegacyField(at, ip, false, nil); len(errs) > 0 {
			v.add(errs...)
			continue
		}
		f, _ := familyOf(ip)
		if i < len(spec.IPFamilies) && spec.IPFamilies[i] != f {
			v.invalid(at, ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", spec.IPFamilies[i], i))
		}
		if i == 1 {
			if first, _ := familyOf(spec.ClusterIPs[0]); first == f {
				v.invalid(path, spec.ClusterIPs, "may specify no more than one IP for each IP family")
			}
		}
	}
}

func (v *serviceCheck) traffic() {
	spec := &v.s.Spec
	if p := spec.ExternalTrafficPolicy; external(v.s) {
		switch p {
		case corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal:
		case "":
			v.add(field.Required(v.path.Child("externalTrafficPolicy"), ""))
		default:
			v.add(field.NotSupported(v.path.Child("externalTrafficPolicy"), p, []corev1.ServiceExternalTrafficPolicy{
				corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal,
			}))
		}
	} else if p != "" {
		v.invalid(v.path.Child("externalTrafficPolicy"), p, "may only be set for externally-accessible services")
	}
	if p := spec.InternalTrafficPolicy; p != nil {
		if *p != corev1.ServiceInternalTrafficPolicyCluster && *p != corev1.ServiceInternalTrafficPolicyLocal {
			v.add(field.NotSupported(v.path.Child("internalTrafficPolicy"), *p, []corev1.ServiceInternalTrafficPolicy{
				corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal,
			}))
		}
	} else if spec.Type != corev1.ServiceTypeExternalName {
		v.add(field.Required(v.path.Child("internalTrafficPolicy"), ""))
	}
	if d := spec.TrafficDistribution; d != nil {
		all := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
		if !slices.Contains(all, *d) {
			v.add(field.NotSupported(v.path.Child("trafficDistribution"), *d, all))
		}
	}
}

func (v *serviceCheck) balancer() {
	spec := &v.s.Spec
	if spec.HealthCheckNodePort < 0 {
		v.invalid(v.path.Child("healthCheckNodePort"), spec.HealthCheckNodePort, "must be greater than or equal to 0")
	}
	if spec.HealthCheckNodePort > 0 && !healthChecked(v.s) {
		v.invalid(v.path.Child("healthCheckNodePort"), spec.HealthCheckNodePort,
			"may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
	}
	balanced := spec.Type == corev1.ServiceTypeLoadBalancer
	if c := spec.LoadBalancerClass; c != nil {
		for _, msg := range validation.IsQualifiedName(*c) {
			v.invalid(v.path.Child("loadBalancerClass"), *c, msg)
		}
		if !balanced {
			v.add(field.Forbidden(v.path.Child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'"))
		}
	}
	switch {
	case balanced && spec.AllocateLoadBalancerNodePorts == nil:
		v.add(field.Required(v.path.Child("allocateLoadBalancerNodePorts"), ""))
	case !balanced && spec.AllocateLoadBalancerNodePorts != nil:
		v.add(field.Forbidden(v.path.Child("allocateLoadBalancerNodePorts"), "may only be used when `type` is 'LoadBalancer'"))
	}
}
