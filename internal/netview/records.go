package netview

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/wherry-project/wherry/internal/dns"
)

// Records are what the DNS has to answer. What did not change since the last
// call is shared with its result.
func (v *View) Records() *dns.Records {
	if !v.clean {
		var spaces []string
		for n := range v.namespaces {
			spaces = append(spaces, n)
		}
		services := make([]dns.Service, 0, len(v.services))
		for _, s := range v.services {
			services = append(services, v.record(s))
		}
		v.records = dns.NewRecords(spaces, services, nil)
		v.clean = true
	} else if len(v.stale)+len(v.spaces) > 0 {
		e := v.records.Edit()
		for n := range v.spaces {
			if v.namespaces[n] {
				e.PutNamespace(n)
			} else {
				e.DeleteNamespace(n)
			}
		}
		for n := range v.stale {
			if s := v.services[n]; s != nil {
				e.PutService(v.record(s))
			} else {
				e.DeleteService(n.Namespace, n.Name)
			}
		}
		v.records = e.Records()
	}
	clear(v.stale)
	clear(v.spaces)
	return v.records
}

func (v *View) record(s *corev1.Service) dns.Service {
	out := dns.Service{
		Namespace: s.Namespace, Name: s.Name, ClusterIPs: addresses(s.Spec.ClusterIPs),
		Headless: s.Spec.ClusterIP == corev1.ClusterIPNone, PublishNotReady: s.Spec.PublishNotReadyAddresses,
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		out.ExternalName = s.Spec.ExternalName
		return out
	}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, dns.Port{Name: p.Name, Protocol: string(p.Protocol), Port: uint16(p.Port)}) //nolint:gosec // validated
	}
	for _, slice := range v.sortedSlices(Name{s.Namespace, s.Name}) {
		out.Endpoints = append(out.Endpoints, endpoints(slice)...)
	}
	return out
}

func endpoints(slice *discoveryv1.EndpointSlice) []dns.Endpoint {
	var ports []dns.Port
	for _, p := range slice.Ports {
		if p.Port == nil {
			continue
		}
		one := dns.Port{Protocol: string(corev1.ProtocolTCP), Port: uint16(*p.Port)} //nolint:gosec // validated
		if p.Name != nil {
			one.Name = *p.Name
		}
		if p.Protocol != nil {
			one.Protocol = string(*p.Protocol)
		}
		ports = append(ports, one)
	}
	var out []dns.Endpoint
	for _, e := range slice.Endpoints {
		for _, text := range e.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			one := dns.Endpoint{Address: a, Ready: e.Conditions.Ready == nil || *e.Conditions.Ready, Ports: ports}
			if e.Hostname != nil {
				one.Hostname = *e.Hostname
			}
			out = append(out, one)
		}
	}
	return out
}
