package link

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is a network interface as the kernel knows it.
type Link struct {
	Index  int
	Name   string
	Alias  string
	Kind   string // "veth", "vxlan", "bridge", "device" …
	MTU    int
	MAC    net.HardwareAddr
	Up     bool // somebody set it up
	Run    bool // it is up and has a carrier
	Master int  // index of its bridge, 0 if none
	VXLAN  *VXLAN
}

// VXLAN are the settings of a VXLAN device.
type VXLAN struct {
	VNI    uint32
	Port   uint16
	Local  netip.Addr
	Device int // index of the link underneath
}

// Veth describes a veth pair: one end here, its peer possibly in another
// namespace. A zero MAC or MTU leaves the choice to the kernel. Name the
// peer's namespace by path or, faster, by a Handle in it; neither is this one.
type Veth struct {
	Name, Peer      string
	MAC, PeerMAC    net.HardwareAddr
	MTU             int
	PeerNetNS       string // path; empty is this namespace
	Up              bool   // sets this end up at once
	PeerNetNSHandle *Handle
}

// Links returns all links.
func (h *Handle) Links() ([]Link, error) {
	list, err := h.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := make([]Link, 0, len(list))
	for _, l := range list {
		out = append(out, from(l))
	}
	return out, nil
}

// Find returns the link of that name; ok is false if there is none.
func (h *Handle) Find(name string) (l Link, ok bool, err error) {
	n, err := h.nl.LinkByName(name)
	if err != nil {
		if gone(err) {
			return Link{}, false, nil
		}
		return Link{}, false, fmt.Errorf("find link %s: %w", name, err)
	}
	return from(n), true, nil
}

// Running reports whether a link can be sent through, after the kernel has acted on what
// happened to its carrier: until then a link that just got one drops what is
// sent. Kernels before 6.8 act in their own time.
func (h *Handle) Running(index int) (bool, error) {
	n, err := h.nl.LinkByIndex(index)
	if err != nil {
		return false, fmt.Errorf("look at link %d: %w", index, err)
	}
	return from(n).Run, nil
}

// AddVeth makes a veth pair and returns the index of this end.
func (h *Handle) AddVeth(v Veth) (index int, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = v.Name, v.MTU, v.MAC
	if v.Up {
		attrs.Flags |= net.FlagUp
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = v.Peer, v.PeerMAC, uint32(v.MTU)
	switch {
	case v.PeerNetNSHandle != nil:
		veth.PeerNamespace = netlink.NsFd(v.PeerNetNSHandle.ns.Fd())
	case v.PeerNetNS != "":
		ns, err := os.OpenFile(v.PeerNetNS, os.O_RDONLY, 0)
		if err != nil {
			return 0, fmt.Errorf("open network namespace of %s: %w", v.Peer, err)
		}
		defer ns.Close()
		veth.PeerNamespace = netlink.NsFd(ns.Fd())
	}
	if err := h.nl.LinkAdd(veth); err != nil {
		return 0, fmt.Errorf("add veth pair %s, %s: %w", v.Name, v.Peer, err)
	}
	return veth.Index, nil
}

// AddBridge makes a bridge, a switch between its ports, if it is not there.
func (h *Handle) AddBridge(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !exists(err) {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	return nil
}

// AddVXLAN makes a VXLAN device that learns nothing: whom to send to is told
// by SetForward.
func (h *Handle) AddVXLAN(name string, mac net.HardwareAddr, mtu int, v VXLAN) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, mtu, mac
	dev := &netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(v.VNI), Port: int(v.Port), SrcAddr: ipOf(v.Local),
		VtepDevIndex: v.Device, Learning: false,
	}
	if err := h.nl.LinkAdd(dev); err != nil {
		return fmt.Errorf("add VXLAN device %s (VNI %d, port %d): %w", name, v.VNI, v.Port, err)
	}
	return nil
}

// Delete removes a link, and the peer of a veth with it.
func (h *Handle) Delete(name string) error {
	l, err := h.nl.LinkByName(name)
	if err == nil {
		err = h.nl.LinkDel(l)
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// SetUp sets a link up.
func (h *Handle) SetUp(name string) error {
	return h.set("set up", name, h.nl.LinkSetUp)
}

// SetUpIndex is SetUp without the look-up of the name.
func (h *Handle) SetUpIndex(index int) error {
	if err := h.nl.LinkSetUp(at(index)); err != nil {
		return fmt.Errorf("set up link %d: %w", index, err)
	}
	return nil
}

// SetDown sets a link down. The kernel forgets the routes through it.
func (h *Handle) SetDown(name string) error {
	return h.set("set down", name, h.nl.LinkSetDown)
}

// SetMTU changes a link's MTU.
func (h *Handle) SetMTU(name string, mtu int) error {
	return h.set("set MTU of", name, func(l netlink.Link) error { return h.nl.LinkSetMTU(l, mtu) })
}

// SetMaster makes a link a port of a bridge.
func (h *Handle) SetMaster(name, bridge string) error {
	b, err := h.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	return h.set("put on a bridge", name, func(l netlink.Link) error { return h.nl.LinkSetMaster(l, b) })
}

// SetAlias notes up to 255 bytes of text at a link.
func (h *Handle) SetAlias(name, alias string) error {
	return h.set("note at", name, func(l netlink.Link) error { return h.nl.LinkSetAlias(l, alias) })
}

// SetAliasIndex is SetAlias without the look-up of the name.
func (h *Handle) SetAliasIndex(index int, alias string) error {
	if err := h.nl.LinkSetAlias(at(index), alias); err != nil {
		return fmt.Errorf("note at link %d: %w", index, err)
	}
	return nil
}

// Rename gives a link another name. It must be down.
func (h *Handle) Rename(name, to string) error {
	return h.set("rename", name, func(l netlink.Link) error { return h.nl.LinkSetName(l, to) })
}

// Move moves a link into the namespace at path.
func (h *Handle) Move(name, path string) error {
	ns, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open network namespace for %s: %w", name, err)
	}
	defer ns.Close()
	return h.set("move", name, func(l netlink.Link) error { return h.nl.LinkSetNsFd(l, int(ns.Fd())) })
}

// set looks the link up by name and changes it.
func (h *Handle) set(what, name string, change func(netlink.Link) error) error {
	l, err := h.nl.LinkByName(name)
	if err == nil {
		err = change(l)
	}
	if err != nil {
		return fmt.Errorf("%s link %s: %w", what, name, err)
	}
	return nil
}

func from(n netlink.Link) Link {
	a := n.Attrs()
	l := Link{
		Index: a.Index, Name: a.Name, Alias: a.Alias, Kind: n.Type(), MTU: a.MTU,
		MAC: slices.Clone(a.HardwareAddr), Up: a.Flags&net.FlagUp != 0,
		Run: a.RawFlags&unix.IFF_RUNNING != 0, Master: a.MasterIndex,
	}
	if v, ok := n.(*netlink.Vxlan); ok {
		l.VXLAN = &VXLAN{VNI: uint32(v.VxlanId), Port: uint16(v.Port), Local: addrOf(v.SrcAddr), Device: v.VtepDevIndex}
	}
	return l
}
