package svcproxy

import (
	"net/netip"
	"slices"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/nft"
)

// route is a way that connections took: a front and the endpoint behind it.
type route struct {
	front
	endpoint netip.AddrPort
}

// stale is what the kernel remembers of ways that are no more. The kernel
// keeps sending a UDP client, whose connection never ends, to an endpoint that
// is gone, and past a service that is new; and a client with session affinity
// to its former endpoint.
type stale struct {
	gone   map[route]bool // UDP
	opened map[front]bool // UDP, now served
	kept   map[route]bool // session affinity
	// all is set when it is not known what was before: after a restart.
	all bool
}

func newStale() stale {
	return stale{gone: make(map[route]bool), opened: make(map[front]bool), kept: make(map[route]bool)}
}

func (s *stale) compare(old, now []target) {
	if len(old) == 0 && len(now) == 0 {
		return
	}
	present := make(map[front]target, len(now))
	for _, t := range now {
		present[t.front] = t
	}
	served := make(map[front]bool, len(old))
	for _, t := range old {
		served[t.front] = len(t.endpoints) > 0
		if t.proto != UDP && t.sticky == 0 {
			continue
		}
		still := make(map[netip.AddrPort]bool)
		for _, ep := range present[t.front].endpoints {
			still[ep] = true
		}
		for _, ep := range t.endpoints {
			r := route{t.front, ep}
			if still[ep] {
				continue
			}
			if t.proto == UDP {
				s.gone[r] = true
			}
			if t.sticky > 0 {
				s.kept[r] = true
			}
		}
	}
	for _, t := range now {
		if t.proto == UDP && len(t.endpoints) > 0 && !served[t.front] {
			s.opened[t.front] = true
		}
	}
}

func (s *stale) compareHostPorts(was, is []hostTarget) {
	list := func(from []hostTarget) (out []target) {
		for _, h := range from {
			out = append(out, target{
				front:     front{addr: h.port.Address, proto: h.port.Protocol, port: h.port.Port},
				endpoints: []netip.AddrPort{h.port.Endpoint},
			})
		}
		return out
	}
	s.compare(list(was), list(is))
}

// merge adds what an earlier Apply could not clear.
func (s *stale) merge(o stale) {
	s.all = s.all || o.all
	for k := range o.gone {
		s.gone[k] = true
	}
	for k := range o.opened {
		s.opened[k] = true
	}
	for k := range o.kept {
		s.kept[k] = true
	}
}

// drops reports whether a tracked connection took a way that is no more.
func (s *stale) drops(c link.Connection) bool {
	if c.Protocol != uint8(UDP) {
		return false
	}
	at := front{addr: c.Destination.Addr(), proto: UDP, port: c.Destination.Port()}
	node := front{proto: UDP, port: at.port}
	if c.Server == c.Destination {
		return s.opened[at] || s.opened[node]
	}
	return s.gone[route{at, c.Server}] || s.gone[route{node, c.Server}]
}

// strays returns what reports whether a tracked connection goes elsewhere than
// s says, whatever was before.
func (s *state) strays() func(link.Connection) bool {
	ways := make(map[front][]netip.AddrPort)
	for i := range s.cfg.Services {
		if !slices.ContainsFunc(s.cfg.Services[i].Ports, func(p Port) bool { return p.Protocol == UDP }) {
			continue
		}
		for _, t := range targets(&s.cfg, &s.cfg.Services[i], func(string) {}) {
			if t.proto == UDP && s.owners[t.front] == s.cfg.Services[i].Name {
				ways[t.front] = t.endpoints
			}
		}
	}
	for _, h := range hostTargets(s.cfg.HostPorts) {
		if h.port.Protocol == UDP {
			f := front{addr: h.port.Address, proto: UDP, port: h.port.Port}
			ways[f] = []netip.AddrPort{h.port.Endpoint}
		}
	}
	return func(c link.Connection) bool {
		if c.Protocol != uint8(UDP) || slices.Contains(s.cfg.Untranslated, c.Destination.Addr()) {
			return false
		}
		f := front{addr: c.Destination.Addr(), proto: UDP, port: c.Destination.Port()}
		way, ok := ways[f]
		if !ok && slices.Contains(s.cfg.NodeAddresses, f.addr) {
			way, ok = ways[front{proto: UDP, port: f.port}]
		}
		if !ok {
			in := func(p netip.Prefix) bool { return p.Contains(f.addr) }
			return slices.ContainsFunc(s.cfg.ServiceCIDRs, in)
		}
		return !slices.Contains(way, c.Server)
	}
}

// forgets reports whether an element of the affinity map leads to an endpoint
// that is no more.
func (s *stale) forgets(e nft.Element) bool {
	if len(e.Key) != 16 || len(e.Value) != 8 {
		return false
	}
	at := front{addr: addrFrom(e.Key[4:8]), proto: Protocol(e.Key[8]), port: portFrom(e.Key[12:14])}
	node := front{proto: at.proto, port: at.port}
	ep := netip.AddrPortFrom(addrFrom(e.Value[:4]), portFrom(e.Value[4:6]))
	return s.kept[route{at, ep}] || s.kept[route{node, ep}]
}

func addrFrom(d nft.Data) netip.Addr { return netip.AddrFrom4([4]byte([]byte(d))) }

func portFrom(d nft.Data) uint16 { return uint16(d[0])<<8 | uint16(d[1]) }
