package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a unicast route of the main table.
type Route struct {
	Destination netip.Prefix // 0.0.0.0/0 is the default route
	Link        int          // index
	Gateway     netip.Addr   // invalid: on the link itself
	Source      netip.Addr   // preferred source address; invalid: the kernel's choice
	// OnLink takes the gateway to be reachable through Link though no route
	// says so.
	OnLink   bool
	Protocol uint8 // who made the route
	MTU      int
	Metric   int
}

// AnyProtocol asks Routes for the routes of everybody.
const AnyProtocol = 0

// Routes returns the IPv4 routes of the main table that protocol made.
func (h *Handle) Routes(protocol uint8) ([]Route, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	mask := netlink.RT_FILTER_TABLE
	if protocol != AnyProtocol {
		filter.Protocol = netlink.RouteProtocol(protocol)
		mask |= netlink.RT_FILTER_PROTOCOL
	}
	var out []Route
	err := h.nl.RouteListFilteredIter(netlink.FAMILY_V4, filter, mask, func(r netlink.Route) bool {
		if r.Type == unix.RTN_UNICAST && len(r.MultiPath) == 0 {
			out = append(out, routeFrom(r))
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return out, nil
}

// AddRoute adds a route; one to the same destination and metric is replaced.
func (h *Handle) AddRoute(r Route) error {
	if err := h.nl.RouteReplace(routeMessage(r)); err != nil {
		return fmt.Errorf("add route to %v: %w", r.Destination, err)
	}
	return nil
}

// DeleteRoute deletes a route.
func (h *Handle) DeleteRoute(r Route) error {
	if err := h.nl.RouteDel(routeMessage(r)); err != nil && !gone(err) {
		return fmt.Errorf("delete route to %v: %w", r.Destination, err)
	}
	return nil
}

func routeMessage(r Route) *netlink.Route {
	m := &netlink.Route{
		Dst: ipNet(r.Destination), LinkIndex: r.Link, Gw: ipOf(r.Gateway), Src: ipOf(r.Source),
		Protocol: netlink.RouteProtocol(r.Protocol), MTU: r.MTU, Priority: r.Metric,
		Table: unix.RT_TABLE_MAIN,
	}
	if !r.Gateway.IsValid() {
		m.Scope = unix.RT_SCOPE_LINK
	}
	if r.OnLink {
		m.Flags = int(netlink.FLAG_ONLINK)
	}
	return m
}

func routeFrom(m netlink.Route) Route {
	r := Route{
		Destination: prefixOf(m.Dst), Link: m.LinkIndex, Gateway: addrOf(m.Gw), Source: addrOf(m.Src),
		OnLink: m.Flags&int(netlink.FLAG_ONLINK) != 0, Protocol: uint8(m.Protocol), MTU: m.MTU, Metric: m.Priority,
	}
	if !r.Destination.IsValid() {
		r.Destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return r
}
