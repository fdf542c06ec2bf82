package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// dnsVersion is the version of the specification, at dns-version.Z.
const dnsVersion = "1.1.0"

// result is what the records say to a question.
type result struct {
	rcode  int
	answer []dns.RR
	extra  []dns.RR
	chase  string // a name outside the zone whose records complete the answer
}

func nodata() result   { return result{} }
func nxdomain() result { return result{rcode: dns.RcodeNameError} }

// zone answers the names below the cluster domain out of one Records. It is
// made for one question.
type zone struct {
	r      *Records
	cfg    *Config
	self   []netip.Addr // addresses this server is reached at
	name   string       // the name asked for, as it was spelt
	domain string       // the domain, as it was spelt in name, with a dot at its end
	qtype  uint16
	ttl    uint32
	serial uint32
	turn   int // how far to rotate
}

// cut returns the labels of name below domain in lower case, the last first,
// and the domain as spelt in name. It reports whether name is in domain.
func cut(name, domain string) (labels []string, spelt string, ok bool) {
	n := len(name) - len(domain)
	if n < 0 || !strings.EqualFold(name[n:], domain) || (n > 0 && name[n-1] != '.') {
		return nil, "", false
	}
	if n > 0 {
		labels = strings.Split(strings.ToLower(name[:n-1]), ".")
		slices.Reverse(labels)
	}
	return labels, name[n:], true
}

// answer answers a name below the domain, given as its labels, last first.
func (z *zone) answer(labels []string) result {
	if len(labels) == 0 {
		return z.apex()
	}
	switch labels[0] {
	case "dns-version":
		return z.version(labels[1:])
	case "dns":
		return z.nameserver(labels[1:])
	case "svc":
		return z.services(labels[1:])
	case "pod":
		return z.podNames(labels[1:])
	}
	return nxdomain()
}

func (z *zone) apex() result {
	switch z.qtype {
	case dns.TypeSOA:
		return result{answer: []dns.RR{z.soa()}}
	case dns.TypeNS:
		return z.ns()
	}
	return nodata()
}

func (z *zone) version(rest []string) result {
	if len(rest) > 0 {
		return nxdomain()
	}
	if z.qtype != dns.TypeTXT && z.qtype != dns.TypeANY {
		return nodata()
	}
	return result{answer: []dns.RR{&dns.TXT{Hdr: z.header(z.name, dns.TypeTXT), Txt: []string{dnsVersion}}}}
}

// nameserver answers ns.dns, with the addresses that serve the zone.
func (z *zone) nameserver(rest []string) result {
	switch {
	case len(rest) == 0:
		return nodata()
	case len(rest) > 1 || rest[0] != "ns":
		return nxdomain()
	}
	return result{answer: z.addresses(z.name, z.servers())}
}

func (z *zone) servers() []netip.Addr {
	out := slices.Clone(z.self)
	for _, below := range z.ownServices() {
		out = append(out, z.serviceAddresses(below)...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// ns names the services that this server is behind, or ns.dns.
func (z *zone) ns() result {
	var out result
	for _, below := range z.ownServices() {
		out.answer = append(out.answer, &dns.NS{Hdr: z.header(z.name, dns.TypeNS), Ns: below + "." + z.domain})
		out.extra = append(out.extra, z.glue(below+"."+z.domain, z.serviceAddresses(below))...)
	}
	if len(out.answer) == 0 {
		name := "ns.dns." + z.domain
		out.answer = []dns.RR{&dns.NS{Hdr: z.header(z.name, dns.TypeNS), Ns: name}}
		out.extra = z.glue(name, z.self)
	}
	return out
}

// ownServices returns the names below the domain of the services, or hosts of
// headless services, that have an address of this server.
func (z *zone) ownServices() []string {
	var out []string
	for _, a := range z.self {
		for _, n := range z.r.names(a) {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

// serviceAddresses returns the addresses of [host.]name.namespace.svc.
func (z *zone) serviceAddresses(below string) []netip.Addr {
	parts := strings.Split(below, ".")
	n := len(parts)
	s := z.r.service(parts[n-2], parts[n-3])
	switch {
	case s == nil:
		return nil
	case n == 3:
		return s.ClusterIPs
	}
	if h := s.host(parts[0]); h != nil {
		return h.addresses()
	}
	return nil
}

// podNames answers a-b-c-d.N.pod.
func (z *zone) podNames(rest []string) result {
	if z.cfg.Pods == Disabled {
		if len(rest) == 0 {
			return nodata()
		}
		return nxdomain()
	}
	switch {
	case len(rest) == 0:
		return nodata()
	case len(rest) > 2 || !z.r.hasNamespace(rest[0]):
		return nxdomain()
	case len(rest) == 1:
		return nodata()
	}
	a, ok := undashed(rest[1])
	if !ok || (z.cfg.Pods == Verified && !z.r.hasPod(rest[0], a)) {
		return nxdomain()
	}
	return result{answer: z.addresses(z.name, []netip.Addr{a})}
}

// reverse answers an address. It reports whether the cluster knows it.
func (z *zone) reverse(a netip.Addr) ([]dns.RR, bool) {
	var out []dns.RR
	for _, below := range z.r.names(a) {
		out = append(out, &dns.PTR{Hdr: z.header(z.name, dns.TypePTR), Ptr: below + "." + z.domain})
	}
	return out, len(out) > 0
}

// addresses returns those addresses that the question is for, rotated.
func (z *zone) addresses(name string, all []netip.Addr) []dns.RR {
	return rotate(z.records(name, all, z.qtype), z.turn)
}

// glue returns all addresses, of both families.
func (z *zone) glue(name string, all []netip.Addr) []dns.RR { return z.records(name, all, dns.TypeANY) }

func (z *zone) records(name string, all []netip.Addr, qtype uint16) []dns.RR {
	var out []dns.RR
	for _, a := range all {
		a = a.Unmap()
		switch {
		case a.Is4() && (qtype == dns.TypeA || qtype == dns.TypeANY):
			out = append(out, &dns.A{Hdr: z.header(name, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && (qtype == dns.TypeAAAA || qtype == dns.TypeANY):
			out = append(out, &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return out
}

func (z *zone) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: z.ttl}
}

// soa returns the zone's SOA record, for answers and for the authority section
// of those that have none.
func (z *zone) soa() *dns.SOA {
	return &dns.SOA{
		Hdr: z.header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: z.serial, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: z.ttl,
	}
}

func rotate(rrs []dns.RR, by int) []dns.RR {
	if len(rrs) < 2 {
		return rrs
	}
	by %= len(rrs)
	return append(slices.Clone(rrs[by:]), rrs[:by]...)
}
