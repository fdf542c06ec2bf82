// Package network is a node's part of the pod network: the pods' routed veth
// pairs, the routes and the VXLAN device to the other nodes, masquerade to the
// outside, and the addresses that the node itself holds for the cluster.
//
// Invariants: every pod has its own namespace, one veth and a /32; every
// packet of a pod is routed by the node (there is no bridge). What belongs to
// this package can be told from the kernel alone: links named whp* and
// wherry-vxlan, routes of protocol 119, the nftables table ip wherry-network,
// and pins in the run folder. Nothing else is touched.
package network

import (
	"fmt"
	"net/netip"

	"github.com/wherry-project/wherry/internal/apierr"
)

// Options are what a Network needs before it knows anything of the cluster.
type Options struct {
	// RunDir holds the pins of the pods' namespaces, a file per pod; on tmpfs,
	// for example /run/wherry/netns.
	RunDir string
	// NetNS is the path of the node's network namespace. Empty is the
	// caller's own, which is what noded uses.
	NetNS string
}

// Encapsulation says when traffic to another node travels inside VXLAN.
type Encapsulation uint8

// The encapsulations.
const (
	EncapAuto   Encapsulation = iota // routes on a shared segment, VXLAN otherwise
	EncapAlways                      // VXLAN to every node
	EncapNever                       // routes only; a node off the segment is an error
)

// Config is all that the node's network depends on. Apply takes it whole.
type Config struct {
	// PodCIDRs are this node's own pod ranges (today: one, IPv4).
	PodCIDRs []netip.Prefix
	// ClusterCIDRs hold every node's pods; their traffic is never masqueraded
	// on its way to each other.
	ClusterCIDRs []netip.Prefix
	// ServiceCIDRs hold the service addresses. The node gets a route for each
	// so that it can call services itself even without a default route.
	ServiceCIDRs []netip.Prefix
	// Address is the node's own address, by which the others know it.
	Address netip.Addr
	// Peers are the other nodes.
	Peers []Peer
	// LocalAddresses are held by the node's lo: the cluster DNS.
	LocalAddresses []netip.Addr
	// Masquerade hides pods behind the node's address when they call
	// something outside the cluster.
	Masquerade bool
	// Encapsulation is EncapAuto unless said otherwise.
	Encapsulation Encapsulation
	// MTU of the pods' links; 0 is the MTU of the link that holds Address,
	// less 50 for VXLAN unless Encapsulation is EncapNever.
	MTU int
	// VXLANPort is 8472 if 0, VNI is 4096 if 0.
	VXLANPort uint16
	VNI       uint32
}

// Peer is another node.
type Peer struct {
	Name     string
	Address  netip.Addr
	PodCIDRs []netip.Prefix
}

// PodConfig is what Attach needs to know of a pod.
type PodConfig struct {
	// ID names the pod for ever, its UID; a file name of at most 100 bytes.
	ID string
	// NetNS is the path of a namespace to use. Empty makes one, pinned in the
	// run folder, and Detach deletes it.
	NetNS string
	// Address is the pod's address if it must have that one; the zero value
	// takes the next free one of the node's range.
	Address netip.Addr
}

// Pod is an attached pod, as Attach made it and as List finds it again.
type Pod struct {
	ID    string
	NetNS string // path of the namespace; empty if it was the caller's and the process has restarted
	// Address is the pod's address. It is invalid for a pod that List found
	// half made: Attach finishes it, Detach removes it.
	Address netip.Addr
	// Link is the node's end of the veth pair.
	Link string
}

const (
	defaultVXLANPort = 8472
	defaultVNI       = 4096
	vxlanOverhead    = 50
)

func (c Config) withDefaults() Config {
	if c.VXLANPort == 0 {
		c.VXLANPort = defaultVXLANPort
	}
	if c.VNI == 0 {
		c.VNI = defaultVNI
	}
	return c
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	if len(c.PodCIDRs) > 1 {
		return apierr.BadRequest("podCIDRs: %v: a node has one pod range; dual stack is not built yet", c.PodCIDRs)
	}
	for _, p := range c.PodCIDRs {
		if err := validPrefix("podCIDRs", p); err != nil {
			return err
		}
		if p.Bits() > 30 {
			return apierr.BadRequest("podCIDRs: %v: too small, use a /30 or larger", p)
		}
	}
	for _, p := range c.ClusterCIDRs {
		if err := validPrefix("clusterCIDRs", p); err != nil {
			return err
		}
	}
	for _, p := range c.ServiceCIDRs {
		if err := validPrefix("serviceCIDRs", p); err != nil {
			return err
		}
	}
	if err := validAddr("address", c.Address); err != nil {
		return err
	}
	for _, a := range c.LocalAddresses {
		if err := validAddr("localAddresses", a); err != nil {
			return err
		}
	}
	return c.validatePeers()
}

func (c Config) validatePeers() error {
	seen := make(map[netip.Prefix]string, len(c.Peers))
	for _, p := range c.Peers {
		field := fmt.Sprintf("peers[%s]", p.Name)
		if err := validAddr(field+".address", p.Address); err != nil {
			return err
		}
		for _, r := range p.PodCIDRs {
			if err := validPrefix(field+".podCIDRs", r); err != nil {
				return err
			}
			if other, ok := seen[r]; ok {
				return apierr.BadRequest("%s.podCIDRs: %v is also the range of node %q", field, r, other)
			}
			seen[r] = p.Name
		}
	}
	return nil
}

func validPrefix(field string, p netip.Prefix) error {
	if !p.IsValid() || p != p.Masked() {
		return apierr.BadRequest("%s: %v is not a network prefix", field, p)
	}
	if !p.Addr().Is4() {
		return apierr.BadRequest("%s: %v: the pod network is IPv4 only yet; use an IPv4 range", field, p)
	}
	return nil
}

func validAddr(field string, a netip.Addr) error {
	if !a.Is4() {
		return apierr.BadRequest("%s: %v is not an IPv4 address; the pod network is IPv4 only yet", field, a)
	}
	return nil
}
