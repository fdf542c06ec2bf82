package netview

import (
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/wherry-project/wherry/internal/svcproxy"
)

// Proxy is what the service rules have to be. Local are what only the node
// knows: ranges and addresses; they are taken as they are.
func (v *View) Proxy(local svcproxy.Config) svcproxy.Config {
	cfg := local
	if v.order == nil {
		v.order = slices.SortedFunc(maps.Keys(v.services), compare)
	}
	cfg.Services = make([]svcproxy.Service, 0, len(v.order))
	for _, n := range v.order {
		s := v.services[n]
		if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.ClusterIP == "" {
			continue
		}
		one, ok := v.rendered[n]
		if !ok {
			one = v.service(s)
			v.rendered[n] = one
		}
		cfg.Services = append(cfg.Services, one)
	}
	cfg.HostPorts = v.hostPorts()
	return cfg
}

// compare orders names as NAMESPACE/NAME, as svcproxy does.
func compare(a, b Name) int {
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

func (v *View) service(s *corev1.Service) svcproxy.Service {
	out := svcproxy.Service{
		Name: s.Namespace + "/" + s.Name, ClusterIPs: addresses(s.Spec.ClusterIPs), ExternalIPs: addresses(s.Spec.ExternalIPs),
		InternalLocal: s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal: s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	if len(out.ClusterIPs) == 0 {
		out.ClusterIPs = addresses([]string{s.Spec.ClusterIP})
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			out.ExternalIPs = append(out.ExternalIPs, addresses([]string{in.IP})...)
		}
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		seconds := corev1.DefaultClientIPServiceAffinitySeconds
		if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			seconds = *c.ClientIP.TimeoutSeconds
		}
		out.Affinity = time.Duration(seconds) * time.Second
	}
	parts := v.sortedSlices(Name{s.Namespace, s.Name})
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, svcproxy.Port{
			Protocol: protocol(p.Protocol), Port: uint16(p.Port), NodePort: uint16(p.NodePort), //nolint:gosec // validated to 1-65535
			Endpoints: usable(parts, p),
		})
	}
	return out
}

func protocol(p corev1.Protocol) svcproxy.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return svcproxy.UDP
	case corev1.ProtocolSCTP:
		return svcproxy.SCTP
	}
	return svcproxy.TCP
}

// usable are the endpoints of a service port: those that are ready, or if there
// are none those that still serve while they end.
func usable(parts []*discoveryv1.EndpointSlice, p corev1.ServicePort) []netip.AddrPort {
	var ready, serving []netip.AddrPort
	for _, s := range parts {
		number, ok := slicePort(s, p)
		if !ok || s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			a, err := netip.ParseAddr(e.Addresses[0])
			if err != nil {
				continue
			}
			ap := netip.AddrPortFrom(a, number)
			c := e.Conditions
			switch {
			case c.Ready == nil || *c.Ready:
				ready = append(ready, ap)
			case (c.Serving == nil || *c.Serving) && c.Terminating != nil && *c.Terminating:
				serving = append(serving, ap)
			}
		}
	}
	if len(ready) == 0 {
		ready = serving
	}
	sort.Slice(ready, func(i, j int) bool { return ready[i].Compare(ready[j]) < 0 })
	return ready
}

// slicePort is the number that a slice has for a service port.
func slicePort(s *discoveryv1.EndpointSlice, p corev1.ServicePort) (uint16, bool) {
	for _, sp := range s.Ports {
		name, proto := "", corev1.ProtocolTCP
		if sp.Name != nil {
			name = *sp.Name
		}
		if sp.Protocol != nil {
			proto = *sp.Protocol
		}
		if name == p.Name && proto == p.Protocol && sp.Port != nil {
			return uint16(*sp.Port), true //nolint:gosec // validated to 1-65535
		}
	}
	return 0, false
}

// hostPorts are the ports of the node that lead to its own pods.
func (v *View) hostPorts() []svcproxy.HostPort {
	var out []svcproxy.HostPort
	for n, p := range v.pods {
		if p.Spec.HostNetwork || p.Status.PodIP == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		ip, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil {
			continue
		}
		for _, c := range longRunning(p) {
			for _, port := range c.Ports {
				if port.HostPort == 0 {
					continue
				}
				h := svcproxy.HostPort{
					Name: n.Namespace + "/" + n.Name, Protocol: protocol(port.Protocol), Port: uint16(port.HostPort), //nolint:gosec // validated
					Endpoint: netip.AddrPortFrom(ip, uint16(port.ContainerPort)), //nolint:gosec // validated
				}
				if a, err := netip.ParseAddr(port.HostIP); err == nil && !a.IsUnspecified() {
					h.Address = a
				}
				out = append(out, h)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Port != out[j].Port {
			return out[i].Port < out[j].Port
		}
		return out[i].Name < out[j].Name
	})
	return out
}
