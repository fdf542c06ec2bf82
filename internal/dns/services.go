package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// services answers what is below svc: rest is namespace, name and what stands
// before the name.
func (z *zone) services(rest []string) result {
	switch {
	case len(rest) == 0:
		return nodata()
	case len(rest) == 1:
		if z.r.hasNamespace(rest[0]) {
			return nodata()
		}
		return nxdomain()
	case len(rest) > 4:
		return nxdomain()
	}
	s := z.r.service(rest[0], rest[1])
	if s == nil {
		return nxdomain()
	}
	if s.ExternalName != "" {
		return z.external(s, rest[2:])
	}
	switch len(rest) {
	case 2:
		return z.service(s)
	case 3:
		return z.host(s, rest[2])
	}
	proto, ok := strings.CutPrefix(rest[2], "_")
	port, ok2 := strings.CutPrefix(rest[3], "_")
	if !ok || !ok2 {
		return nxdomain()
	}
	return z.srv(s, func(p Port) bool { return p.Name == port && p.Protocol == proto })
}

// service answers the service's own name.
func (z *zone) service(s *service) result {
	if s.Headless && len(s.hosts) == 0 {
		return nxdomain()
	}
	switch z.qtype {
	case dns.TypeSRV:
		r := z.srv(s, func(Port) bool { return true })
		r.rcode = dns.RcodeSuccess // the name exists, with ports or without
		return r
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY:
		if !s.Headless {
			return result{answer: z.addresses(z.name, s.ClusterIPs)}
		}
		var all []netip.Addr
		for i := range s.hosts {
			all = append(all, s.hosts[i].addresses()...)
		}
		return result{answer: z.addresses(z.name, uniqueAddrs(all))}
	}
	return nodata()
}

// host answers HOST.service; _proto.service exists if a port below it does.
func (z *zone) host(s *service, name string) result {
	if proto, ok := strings.CutPrefix(name, "_"); ok {
		if s.has(func(p Port) bool { return p.Name != "" && p.Protocol == proto }) {
			return nodata()
		}
		return nxdomain()
	}
	h := s.host(name)
	if h == nil {
		return nxdomain()
	}
	return result{answer: z.addresses(z.name, h.addresses())}
}

// srv answers the ports of s that want accepts: of a headless service, those of
// each endpoint. If there is none the name does not exist.
func (z *zone) srv(s *service, want func(Port) bool) result {
	if !s.has(want) {
		return nxdomain()
	}
	if z.qtype != dns.TypeSRV && z.qtype != dns.TypeANY {
		return nodata()
	}
	var out result
	add := func(target string, p Port) {
		out.answer = append(out.answer, &dns.SRV{Hdr: z.header(z.name, dns.TypeSRV), Port: p.Port, Target: target})
	}
	if !s.Headless {
		target := s.below + "." + z.domain
		for _, p := range s.Ports {
			if want(p) {
				add(target, p)
			}
		}
		out.extra = z.glue(target, s.ClusterIPs)
	} else {
		z.hostPorts(s, want, add, &out)
	}
	weight := uint16(max(1, 100/len(out.answer)))
	for _, rr := range out.answer {
		rr.(*dns.SRV).Weight = weight
	}
	out.answer = rotate(out.answer, z.turn)
	return out
}

// hostPorts adds each host once per port number, and its addresses.
func (z *zone) hostPorts(s *service, want func(Port) bool, add func(string, Port), out *result) {
	for i := range s.hosts {
		h := &s.hosts[i]
		target := h.name + "." + s.below + "." + z.domain
		seen := map[Port]bool{}
		for _, ep := range h.endpoints {
			for _, p := range ep.Ports {
				if want(p) && !seen[p] {
					seen[p] = true
					add(target, p)
				}
			}
		}
		if len(seen) > 0 {
			out.extra = append(out.extra, z.glue(target, h.addresses())...)
		}
	}
}

// has reports whether want accepts a port of the service, of a headless one, of
// an endpoint.
func (s *service) has(want func(Port) bool) bool {
	for _, p := range s.Ports {
		if !s.Headless && want(p) {
			return true
		}
	}
	if !s.Headless {
		return false
	}
	for _, h := range s.hosts {
		for _, ep := range h.endpoints {
			for _, p := range ep.Ports {
				if want(p) {
					return true
				}
			}
		}
	}
	return false
}

// external answers a service that is another name for something.
func (z *zone) external(s *service, before []string) result {
	if len(before) > 0 {
		return nxdomain()
	}
	switch z.qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeANY:
	default:
		return nodata()
	}
	target := dns.Fqdn(s.ExternalName)
	out := result{answer: []dns.RR{&dns.CNAME{Hdr: z.header(z.name, dns.TypeCNAME), Target: target}}}
	_, err := netip.ParseAddr(strings.TrimSuffix(target, "."))
	if isIP := err == nil; !isIP && (z.qtype == dns.TypeA || z.qtype == dns.TypeAAAA) {
		out.chase = target
	}
	return out
}

func (h *host) addresses() []netip.Addr {
	var out []netip.Addr
	for _, ep := range h.endpoints {
		out = append(out, ep.Address)
	}
	return out
}

// uniqueAddrs drops repeated addresses: one may have several names.
func uniqueAddrs(in []netip.Addr) []netip.Addr {
	seen := make(map[netip.Addr]bool, len(in))
	out := in[:0:0]
	for _, a := range in {
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}
