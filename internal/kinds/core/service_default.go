package core

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	setText(&spec.SessionAffinity, corev1.ServiceAffinityNone)
	if spec.SessionAffinity == corev1.ServiceAffinityNone {
		spec.SessionAffinityConfig = nil
	} else if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		c := spec.SessionAffinityConfig
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			timeout := int32(corev1.DefaultClientIPServiceAffinitySeconds)
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
	setText(&spec.Type, corev1.ServiceTypeClusterIP)
	for i := range spec.Ports {
		p := &spec.Ports[i]
		setText(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if external(s) {
		setText(&spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if spec.InternalTrafficPolicy == nil && spec.Type != corev1.ServiceTypeExternalName {
		cluster := corev1.ServiceInternalTrafficPolicyCluster
		spec.InternalTrafficPolicy = &cluster
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && spec.AllocateLoadBalancerNodePorts == nil {
		yes := true
		spec.AllocateLoadBalancerNodePorts = &yes
	}
	defaultFamilies(s)
}

// external reports whether traffic comes to a service from outside.
func external(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return true
	case corev1.ServiceTypeClusterIP:
		return len(s.Spec.ExternalIPs) > 0
	}
	return false
}

// headless reports that a service wants no address of its own.
func headless(s *corev1.Service) bool {
	return s.Spec.ClusterIP == corev1.ClusterIPNone || (len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone)
}

// defaultFamilies makes clusterIP and clusterIPs agree and names the address
// families. A headless service without selector is of both, since whoever
// writes its endpoints decides.
func defaultFamilies(s *corev1.Service) {
	spec := &s.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	both := headless(s) && len(spec.Selector) == 0
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if both || len(spec.ClusterIPs) == 2 || len(spec.IPFamilies) == 2 {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	if len(spec.IPFamilies) == 0 {
		for _, ip := range spec.ClusterIPs {
			if f, ok := familyOf(ip); ok {
				spec.IPFamilies = append(spec.IPFamilies, f)
			}
		}
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	if both && len(spec.IPFamilies) == 1 && *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		other := corev1.IPv6Protocol
		if spec.IPFamilies[0] == other {
			other = corev1.IPv4Protocol
		}
		spec.IPFamilies = append(spec.IPFamilies, other)
	}
}

func familyOf(ip string) (corev1.IPFamily, bool) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return "", false
	}
	if a.Unmap().Is4() {
		return corev1.IPv4Protocol, true
	}
	return corev1.IPv6Protocol, true
}

// keepOfService keeps the status, and of what was allocated all that the new
// object leaves out, so that a manifest can be put again as it was written.
func keepOfService(s, old *corev1.Service) {
	s.Status = *old.Status.DeepCopy()
	setText(&s.Spec.Type, corev1.ServiceTypeClusterIP)
	agreeClusterIPs(s, old)
	dropByType(s, old)
	if s.Spec.Type == corev1.ServiceTypeExternalName || old.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = old.Spec.ClusterIP, slices.Clone(old.Spec.ClusterIPs)
	}
	if s.Spec.IPFamilyPolicy == nil && old.Spec.IPFamilyPolicy != nil {
		policy := *old.Spec.IPFamilyPolicy
		s.Spec.IPFamilyPolicy = &policy
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = slices.Clone(old.Spec.IPFamilies)
	}
	if s.Spec.Type != corev1.ServiceTypeClusterIP {
		keepNodePorts(s, old)
	}
	if healthChecked(s) && healthChecked(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

func keepNodePorts(s, old *corev1.Service) {
	type where struct {
		protocol corev1.Protocol
		port     int32
	}
	had, taken := map[where]int32{}, map[int32]bool{}
	for _, p := range old.Spec.Ports {
		had[where{p.Protocol, p.Port}] = p.NodePort
	}
	for _, p := range s.Spec.Ports {
		taken[p.NodePort] = true
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		protocol := p.Protocol
		setText(&protocol, corev1.ProtocolTCP)
		if n := had[where{protocol, p.Port}]; p.NodePort == 0 && n != 0 && !taken[n] {
			p.NodePort = n
		}
	}
}

// agreeClusterIPs follows an old client, which changes only clusterIP, in
// clusterIPs.
func agreeClusterIPs(s, old *corev1.Service) {
	same := slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs)
	switch {
	case s.Spec.ClusterIP == old.Spec.ClusterIP || !same:
	case s.Spec.ClusterIP == "":
		s.Spec.ClusterIPs = nil
	default:
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

func healthChecked(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// dropByType clears what the new type has no use for, unless it was changed
// together with the type: then validation has a word to say.
func dropByType(s, old *corev1.Service) {
	is, was := &s.Spec, &old.Spec
	if is.Type == corev1.ServiceTypeExternalName && was.Type != corev1.ServiceTypeExternalName {
		if is.ClusterIP == was.ClusterIP && slices.Equal(is.ClusterIPs, was.ClusterIPs) {
			is.ClusterIP, is.ClusterIPs = "", nil
		}
		is.IPFamilies, is.IPFamilyPolicy, is.InternalTrafficPolicy = nil, nil, nil
	}
	ported := func(t corev1.ServiceType) bool {
		return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
	}
	if ported(was.Type) && !ported(is.Type) && sameNodePorts(is.Ports, was.Ports) {
		for i := range is.Ports {
			is.Ports[i].NodePort = 0
		}
	}
	if !external(s) && is.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		is.ExternalTrafficPolicy = ""
	}
	if healthChecked(old) && !healthChecked(s) && is.HealthCheckNodePort == was.HealthCheckNodePort {
		is.HealthCheckNodePort = 0
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && is.Type != corev1.ServiceTypeLoadBalancer {
		if samePtr(is.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			is.AllocateLoadBalancerNodePorts = nil
		}
		if samePtr(is.LoadBalancerClass, was.LoadBalancerClass) {
			is.LoadBalancerClass = nil
		}
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

func sameNodePorts(is, was []corev1.ServicePort) bool {
	had := map[int32]bool{0: true}
	for _, p := range was {
		had[p.NodePort] = true
	}
	return !slices.ContainsFunc(is, func(p corev1.ServicePort) bool { return !had[p.NodePort] })
}

func samePtr[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func setText[T ~string](to *T, value T) {
	if *to == "" {
		*to = value
	}
}
