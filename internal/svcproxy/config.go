// Package svcproxy makes services reachable: it turns services and their
// endpoints into one nftables table, ip wherry-services, in which a service is
// only elements of maps and never a chain or rule of its own. So ten thousand
// services load in some 0.1 s and one change costs its own elements.
package svcproxy

import (
	"net/netip"
	"time"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols of service ports.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "unknown"
}

// Config is all that the service rules depend on. Apply takes it whole and
// keeps it: a caller that builds the next one must not change slices of this
// one, and gets the best speed by sharing the slices of unchanged services.
type Config struct {
	// Services in any order; names are unique.
	Services []Service
	// HostPorts are ports of this node that lead to one of its pods.
	HostPorts []HostPort
	// ServiceCIDRs hold the service addresses: what goes there and is no
	// service port is refused.
	ServiceCIDRs []netip.Prefix
	// LocalPodCIDRs are this node's pod ranges. Endpoints within them, or at
	// NodeAddresses, are on this node.
	LocalPodCIDRs []netip.Prefix
	// NodeAddresses are the addresses of this node that serve node ports.
	NodeAddresses []netip.Addr
	// Untranslated addresses are never touched, even if a service has one:
	// the cluster DNS, which lo holds.
	Untranslated []netip.Addr
}

// Service is a service and, within its ports, its endpoints.
type Service struct {
	Name string // NAMESPACE/NAME
	// ClusterIPs; none for a headless service, which needs no rules.
	ClusterIPs []netip.Addr
	// ExternalIPs are externalIPs and load balancer addresses.
	ExternalIPs []netip.Addr
	Ports       []Port
	// Affinity is for how long a client keeps its endpoint (sessionAffinity
	// ClientIP); 0 is not at all. Every new connection renews it.
	Affinity time.Duration
	// InternalLocal and ExternalLocal are the traffic policies Local: only
	// endpoints on this node, and traffic from outside keeps its source.
	InternalLocal bool
	ExternalLocal bool
}

// Port is a port of a service.
type Port struct {
	Protocol Protocol
	Port     uint16
	NodePort uint16 // 0 is none
	// Endpoints that may be used, of all nodes. Without any the port refuses.
	Endpoints []netip.AddrPort
}

// HostPort is a port of the node itself that leads to a pod on it.
type HostPort struct {
	Name     string // NAMESPACE/POD, for messages
	Protocol Protocol
	Address  netip.Addr // invalid is every address of the node
	Port     uint16
	Endpoint netip.AddrPort
}
