package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Address is an address of a link.
type Address struct {
	Link   int // index
	Prefix netip.Prefix
	// HostScope keeps the kernel from choosing the address as a source for
	// traffic through other links.
	HostScope bool
	// Label notes whose address it is; it begins with the link's name and a
	// colon and has at most 15 bytes.
	Label string
}

// Addresses returns all IPv4 addresses.
func (h *Handle) Addresses() ([]Address, error) {
	list, err := h.nl.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]Address, 0, len(list))
	for _, a := range list {
		out = append(out, Address{
			Link: a.LinkIndex, Prefix: prefixOf(a.IPNet), HostScope: a.Scope == unix.RT_SCOPE_HOST,
			Label: a.Label,
		})
	}
	return out, nil
}

// AddAddress gives a link an address.
func (h *Handle) AddAddress(a Address) error {
	if err := h.nl.AddrReplace(at(a.Link), addrMessage(a)); err != nil && !exists(err) {
		return fmt.Errorf("add address %v: %w", a.Prefix, err)
	}
	return nil
}

// DeleteAddress takes an address from a link.
func (h *Handle) DeleteAddress(a Address) error {
	if err := h.nl.AddrDel(at(a.Link), addrMessage(a)); err != nil && !gone(err) {
		return fmt.Errorf("delete address %v: %w", a.Prefix, err)
	}
	return nil
}

func addrMessage(a Address) *netlink.Addr {
	m := &netlink.Addr{IPNet: ipNet(a.Prefix), Label: a.Label}
	if a.HostScope {
		m.Scope = unix.RT_SCOPE_HOST
	}
	return m
}

// at names a link by its index alone, without a look-up.
func at(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}
