package svcproxy

import (
	"net/netip"
	"time"

	"github.com/wherry-project/wherry/internal/nft"
)

// front is where clients connect to: an address and port, or a port of the
// node if the address is invalid.
type front struct {
	addr  netip.Addr
	proto Protocol
	port  uint16
}

func (f front) node() bool { return !f.addr.IsValid() }

func (f front) key() nft.Data {
	k := nft.Proto(uint8(f.proto)) + nft.Port(f.port)
	if f.node() {
		return k
	}
	return nft.Addr(f.addr) + k
}

// target is a front of a service and what becomes of its connections.
type target struct {
	front
	hide      bool
	sticky    time.Duration
	endpoints []netip.AddrPort
	drop      bool // without endpoints: drop instead of refuse
}

func (t target) choice() choice {
	return choice{n: len(t.endpoints), node: t.node(), sticky: t.sticky, hide: t.hide}
}

func (t target) verdict() nft.Verdict {
	switch {
	case len(t.endpoints) > 0:
		return nft.Verdict{Action: nft.GoTo, Chain: t.choice().chainName()}
	case t.drop:
		return nft.Verdict{Action: nft.Drop}
	}
	return nft.Verdict{Action: nft.GoTo, Chain: chainRefuse}
}

// entries calls yield with every element that the target is made of.
func (t target) entries(yield func(set string, e nft.Element)) {
	key := t.key()
	set := setServices
	if t.node() {
		set = setNodePorts
	}
	yield(set, nft.Element{Key: key, Verdict: t.verdict()})
	set = t.choice().mapName()
	for i, ep := range t.endpoints {
		yield(set, nft.Element{Key: key + nft.Mark(uint32(i)), Value: nft.Endpoint(ep)})
	}
}

// targets are the fronts of a service. What cannot be served is told to
// problem.
func targets(cfg *Config, s *Service, problem func(string)) []target {
	out := make([]target, 0, len(s.Ports)*(len(s.ClusterIPs)+len(s.ExternalIPs)))
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Port == 0 && p.NodePort == 0 {
			continue
		}
		all := ipv4(p.Endpoints, problem)
		t := target{front: front{proto: p.Protocol, port: p.Port}, sticky: s.Affinity.Truncate(time.Second)}
		inside := t.limited(cfg, all, s.InternalLocal)
		for _, a := range s.ClusterIPs {
			out = inside.at(cfg, out, a, problem)
		}
		outside := t.limited(cfg, all, s.ExternalLocal)
		outside.hide = !s.ExternalLocal
		for _, a := range s.ExternalIPs {
			out = outside.at(cfg, out, a, problem)
		}
		if p.NodePort != 0 {
			outside.addr, outside.port = netip.Addr{}, p.NodePort
			out = append(out, outside)
		}
	}
	return out
}

// limited is t with these endpoints, only those on this node if local.
func (t target) limited(cfg *Config, all []netip.AddrPort, local bool) target {
	t.endpoints = all
	if local {
		t.endpoints = nil
		for _, ep := range all {
			if cfg.local(ep.Addr()) {
				t.endpoints = append(t.endpoints, ep)
			}
		}
		t.drop = len(all) > 0
	}
	return t
}

// at appends t for one address unless that address is not to be translated.
func (t target) at(cfg *Config, out []target, a netip.Addr, problem func(string)) []target {
	for _, u := range cfg.Untranslated {
		if u == a {
			return out
		}
	}
	if !a.Is4() {
		problem("address " + a.String() + " is not served: services are IPv4 only yet")
		return out
	}
	t.addr = a
	return append(out, t)
}

// ipv4 is the list itself unless it holds other addresses.
func ipv4(list []netip.AddrPort, problem func(string)) []netip.AddrPort {
	for i, ep := range list {
		if ep.Addr().Is4() {
			continue
		}
		problem("endpoint " + ep.String() + " is not used: services are IPv4 only yet")
		out := append([]netip.AddrPort(nil), list[:i]...)
		return append(out, ipv4(list[i+1:], problem)...)
	}
	return list
}

// local reports whether an endpoint's address is on this node.
func (c *Config) local(a netip.Addr) bool {
	for _, n := range c.NodeAddresses {
		if n == a {
			return true
		}
	}
	return c.localPod(a)
}

func (c *Config) localPod(a netip.Addr) bool {
	for _, p := range c.LocalPodCIDRs {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
