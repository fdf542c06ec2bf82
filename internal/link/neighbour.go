package link

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Neighbour says which hardware address an address on a link has. Only
// permanent ones are set and listed here: nobody asks for them by ARP.
type Neighbour struct {
	Link    int // index
	Address netip.Addr
	MAC     net.HardwareAddr
}

// Forward says to which host a VXLAN device sends frames for a hardware
// address.
type Forward struct {
	Link int // index of the VXLAN device
	MAC  net.HardwareAddr
	Host netip.Addr
}

// Neighbours returns a link's permanent IPv4 neighbours.
func (h *Handle) Neighbours(index int) ([]Neighbour, error) {
	list, err := h.nl.NeighList(index, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	var out []Neighbour
	for _, n := range list {
		if n.State&netlink.NUD_PERMANENT != 0 {
			out = append(out, Neighbour{Link: n.LinkIndex, Address: addrOf(n.IP), MAC: n.HardwareAddr})
		}
	}
	return out, nil
}

// SetNeighbour adds or changes a permanent neighbour.
func (h *Handle) SetNeighbour(n Neighbour) error {
	if err := h.nl.NeighSet(neighMessage(n)); err != nil {
		return fmt.Errorf("set neighbour %v: %w", n.Address, err)
	}
	return nil
}

// DeleteNeighbour deletes a neighbour.
func (h *Handle) DeleteNeighbour(n Neighbour) error {
	if err := h.nl.NeighDel(neighMessage(n)); err != nil && !gone(err) {
		return fmt.Errorf("delete neighbour %v: %w", n.Address, err)
	}
	return nil
}

func neighMessage(n Neighbour) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: n.Link, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: ipOf(n.Address), HardwareAddr: n.MAC,
	}
}

// Forwards returns the forwarding entries of a VXLAN device that name a host.
func (h *Handle) Forwards(index int) ([]Forward, error) {
	list, err := h.nl.NeighList(index, unix.AF_BRIDGE)
	if err != nil {
		return nil, fmt.Errorf("list forwarding entries: %w", err)
	}
	var out []Forward
	for _, n := range list {
		if host := addrOf(n.IP); host.IsValid() {
			out = append(out, Forward{Link: n.LinkIndex, MAC: n.HardwareAddr, Host: host})
		}
	}
	return out, nil
}

// SetForward adds or changes a forwarding entry.
func (h *Handle) SetForward(f Forward) error {
	if err := h.nl.NeighSet(forwardMessage(f)); err != nil {
		return fmt.Errorf("set forwarding entry %v to %v: %w", f.MAC, f.Host, err)
	}
	return nil
}

// DeleteForward deletes a forwarding entry.
func (h *Handle) DeleteForward(f Forward) error {
	if err := h.nl.NeighDel(forwardMessage(f)); err != nil && !gone(err) {
		return fmt.Errorf("delete forwarding entry %v to %v: %w", f.MAC, f.Host, err)
	}
	return nil
}

func forwardMessage(f Forward) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: f.Link, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
		IP: ipOf(f.Host), HardwareAddr: f.MAC,
	}
}
