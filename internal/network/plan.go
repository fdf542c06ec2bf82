package network

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/wherry-project/wherry/internal/link"
)

// What is ours, seen from the kernel.
const (
	podLinkPrefix = "whp"
	vxlanName     = "wherry-vxlan"
	tableName     = "wherry-network"
	protocol      = 119 // of routes
	loLabel       = "lo:wherry"
	lo            = 1 // its index in every namespace
)

// settings are what Attach needs of the Config in force.
type settings struct {
	ready  bool
	mtu    int
	source netip.Addr // of traffic from the node to its pods
}

// facts are what the kernel says.
type facts struct {
	links     []link.Link
	addresses []link.Address
	routes    []link.Route // of everybody
}

// device is a VXLAN device as it should be.
type device struct {
	mac  net.HardwareAddr
	mtu  int
	spec link.VXLAN
}

// wanted is what the kernel should have. Routes, neighbours and forwarding
// entries whose Link is viaVXLAN belong to the VXLAN device, whose index is
// known only when it is there.
type wanted struct {
	settings  settings
	vxlan     *device
	addresses []link.Address
	routes    []link.Route
	neighs    []link.Neighbour
	forwards  []link.Forward
	direct    []netip.Addr // nodes on a shared segment
	remote    []netip.Addr // nodes behind VXLAN
}

const viaVXLAN = -1

// plan says what the kernel should have: pure, the same for the same input.
func plan(cfg Config, f facts) (wanted, error) {
	uplink, err := f.holder(cfg.Address)
	if err != nil {
		return wanted{}, err
	}
	w := wanted{settings: settings{ready: true, mtu: cfg.MTU, source: cfg.Address}}
	if w.settings.mtu == 0 {
		w.settings.mtu = uplink.MTU
		if cfg.Encapsulation != EncapNever {
			w.settings.mtu -= vxlanOverhead
		}
	}
	for _, a := range cfg.LocalAddresses {
		w.addresses = append(w.addresses, link.Address{Link: lo, Prefix: host(a), HostScope: true, Label: loLabel})
	}
	for _, p := range cfg.ServiceCIDRs {
		w.routes = append(w.routes, link.Route{
			Destination: p, Link: lo, Source: cfg.Address, MTU: w.settings.mtu, Protocol: protocol,
		})
	}
	for _, p := range cfg.Peers {
		if err := w.addPeer(cfg, f, p); err != nil {
			return wanted{}, err
		}
	}
	if len(w.remote) > 0 {
		w.vxlan = &device{
			mac: nodeMAC(cfg.Address), mtu: uplink.MTU - vxlanOverhead,
			spec: link.VXLAN{VNI: cfg.VNI, Port: cfg.VXLANPort, Local: cfg.Address, Device: uplink.Index},
		}
		w.addresses = append(w.addresses, link.Address{Link: viaVXLAN, Prefix: host(cfg.PodCIDRs[0].Addr())})
	}
	return w, nil
}

func (w *wanted) addPeer(cfg Config, f facts, p Peer) error {
	at, onLink := f.segment(p.Address)
	if onLink && cfg.Encapsulation != EncapAlways {
		w.direct = append(w.direct, p.Address)
		for _, r := range p.PodCIDRs {
			w.routes = append(w.routes, link.Route{
				Destination: r, Link: at, Gateway: p.Address, Source: cfg.Address, Protocol: protocol,
			})
		}
		return nil
	}
	if cfg.Encapsulation == EncapNever {
		return fmt.Errorf("node %s at %v is not on a segment of this node, and encapsulation is off: "+
			"put them on one segment or allow VXLAN", p.Name, p.Address)
	}
	if len(cfg.PodCIDRs) == 0 || len(p.PodCIDRs) == 0 {
		return nil // nothing to carry yet
	}
	w.remote = append(w.remote, p.Address)
	mac := nodeMAC(p.Address)
	w.forwards = append(w.forwards, link.Forward{Link: viaVXLAN, MAC: mac, Host: p.Address})
	for _, r := range p.PodCIDRs {
		w.neighs = append(w.neighs, link.Neighbour{Link: viaVXLAN, Address: r.Addr(), MAC: mac})
		w.routes = append(w.routes, link.Route{
			Destination: r, Link: viaVXLAN, Gateway: r.Addr(), Source: cfg.PodCIDRs[0].Addr(),
			OnLink: true, Protocol: protocol,
		})
	}
	return nil
}

// holder returns the link that has an address.
func (f facts) holder(a netip.Addr) (link.Link, error) {
	for _, x := range f.addresses {
		if x.Prefix.Addr() != a {
			continue
		}
		for _, l := range f.links {
			if l.Index == x.Link {
				return l, nil
			}
		}
	}
	return link.Link{}, fmt.Errorf("address %v of this node is on none of its links; "+
		"give a link that address or advertise another", a)
}

// segment returns the link through which an address is reached without a
// gateway, and whether there is one: what the most specific route of others
// says.
func (f facts) segment(a netip.Addr) (index int, onLink bool) {
	best := -1
	for _, r := range f.routes {
		if r.Protocol != protocol && r.Destination.Contains(a) && r.Destination.Bits() > best {
			best, index, onLink = r.Destination.Bits(), r.Link, !r.Gateway.IsValid()
		}
	}
	return index, onLink
}

func (f facts) byName(name string) (link.Link, bool) {
	for _, l := range f.links {
		if l.Name == name {
			return l, true
		}
	}
	return link.Link{}, false
}

// podLinks are the indices of the pods' links.
func (f facts) podLinks() map[int]bool {
	m := make(map[int]bool)
	for _, l := range f.links {
		if strings.HasPrefix(l.Name, podLinkPrefix) {
			m[l.Index] = true
		}
	}
	return m
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// nodeMAC is the hardware address of a node's VXLAN device: every node can
// tell that of every other.
func nodeMAC(a netip.Addr) net.HardwareAddr { return macOf(0x0e, a) }

// podMAC is the hardware address of a pod's link.
func podMAC(a netip.Addr) net.HardwareAddr { return macOf(0x0a, a) }

func macOf(first byte, a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{first, 0x57, b[0], b[1], b[2], b[3]}
}

// gatewayMAC is that of the node's end of every pod link. Each is a segment of
// two, so one is enough for all.
func gatewayMAC() net.HardwareAddr { return net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee} }
