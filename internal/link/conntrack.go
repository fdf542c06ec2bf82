package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Connection is a tracked connection: where its packets were sent, and where
// they really go.
type Connection struct {
	Protocol    uint8
	Source      netip.AddrPort
	Destination netip.AddrPort
	// Server is who answers: Destination, or what it was translated to.
	Server netip.AddrPort
}

// ForgetConnections drops the IPv4 connections that drop reports true for and
// returns how many. drop is called for every tracked connection.
func (h *Handle) ForgetConnections(drop func(Connection) bool) (int, error) {
	n, err := h.nl.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, flowFilter(drop))
	if err != nil {
		return int(n), fmt.Errorf("forget connections: %w", err)
	}
	return int(n), nil
}

type flowFilter func(Connection) bool

// MatchConntrackFlow is called by the library for each connection.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return f(Connection{
		Protocol:    flow.Forward.Protocol,
		Source:      netip.AddrPortFrom(addrOf(flow.Forward.SrcIP), flow.Forward.SrcPort),
		Destination: netip.AddrPortFrom(addrOf(flow.Forward.DstIP), flow.Forward.DstPort),
		Server:      netip.AddrPortFrom(addrOf(flow.Reverse.SrcIP), flow.Reverse.SrcPort),
	})
}
