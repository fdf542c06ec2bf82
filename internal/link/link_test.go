package link

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

func open(t *testing.T) (*Handle, testkit.NetNS) {
	t.Helper()
	ns := testkit.ScratchNetNS(t)
	h, err := Open(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, ns
}

func ok(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, h *Handle, name string) Link {
	t.Helper()
	l, there, err := h.Find(name)
	if err != nil || !there {
		t.Fatalf("Find(%s): %v, %v", name, there, err)
	}
	return l
}

func TestLinks(t *testing.T) {
	h, _ := open(t)
	inner, ns := open(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	index, err := h.AddVeth(Veth{Name: "outer", Peer: "eth0", MAC: mac, PeerMAC: net.HardwareAddr{2, 0, 0, 0, 0, 8}, MTU: 1400, PeerNetNSHandle: inner, Up: true})
	ok(t, err, h.AddBridge("br"), h.AddBridge("br"), h.SetMaster("outer", "br"), h.SetAlias("outer", "a note"))
	l := find(t, h, "outer")
	if l.Index != index || l.MTU != 1400 || l.MAC.String() != mac.String() || !l.Up || l.Run || l.Alias != "a note" || l.Kind != "veth" || l.Master != find(t, h, "br").Index {
		t.Errorf("outer is %+v", l)
	}
	if e := find(t, inner, "eth0"); e.MTU != 1400 || e.MAC[5] != 8 || e.Up {
		t.Errorf("eth0 is %+v", e)
	}
	ok(t, inner.SetUp("eth0"))
	testkit.Eventually(t, 20*time.Second, func() error {
		if l := find(t, h, "outer"); !l.Run {
			return errors.New("outer has no carrier")
		}
		return nil
	})
	ok(t, h.SetDown("outer"), h.SetMTU("outer", 1300), h.Rename("outer", "other"), h.Move("other", ns.Path))
	if _, there, err := h.Find("other"); there || err != nil {
		t.Errorf("moved link is still here (%v)", err)
	}
	if l := find(t, inner, "other"); l.MTU != 1300 || l.Up {
		t.Errorf("moved link is %+v", l)
	}
	ok(t, inner.Delete("other"), inner.Delete("other"))
	if list, err := inner.Links(); err != nil || slices.ContainsFunc(list, func(l Link) bool { return l.Name == "eth0" }) {
		t.Errorf("eth0 outlived its peer (%v)", err)
	}
	if err := h.SetUp("nobody"); err == nil {
		t.Error("SetUp of no link succeeds")
	}
}

func TestRoutes(t *testing.T) {
	h, _ := open(t)
	inner, _ := open(t)
	index, err := h.AddVeth(Veth{Name: "v", Peer: "w", PeerNetNSHandle: inner, Up: true})
	ok(t, err, inner.SetUp("w"))
	net1 := Address{Link: index, Prefix: netip.MustParsePrefix("10.0.0.1/24")}
	held := Address{Link: 1, Prefix: netip.MustParsePrefix("10.96.0.10/32"), HostScope: true, Label: "lo:test"}
	ok(t, h.AddAddress(net1), h.AddAddress(net1), h.AddAddress(held))
	list, err := h.Addresses()
	if err != nil || !slices.Contains(list, held) || !slices.ContainsFunc(list, func(a Address) bool { return a.Prefix == net1.Prefix }) {
		t.Errorf("addresses %v, %v", list, err)
	}
	a := Route{Destination: netip.MustParsePrefix("10.1.0.0/24"), Link: index, Gateway: netip.MustParseAddr("10.0.0.2"), Source: netip.MustParseAddr("10.0.0.1"), Protocol: 119}
	b := Route{Destination: netip.MustParsePrefix("10.2.0.0/24"), Link: index, Gateway: netip.MustParseAddr("10.9.0.2"), OnLink: true, Protocol: 119, MTU: 1400}
	c := Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Link: index, Gateway: netip.MustParseAddr("10.0.0.3"), Protocol: 4}
	ok(t, h.AddRoute(a), h.AddRoute(a), h.AddRoute(b), h.AddRoute(c))
	routes, err := h.Routes(119)
	if err != nil || !slices.Equal(routes, []Route{a, b}) {
		t.Errorf("routes %+v, %v", routes, err)
	}
	if all, err := h.Routes(AnyProtocol); err != nil || !slices.Contains(all, c) || len(all) < 4 {
		t.Errorf("all routes %+v, %v", all, err)
	}
	ok(t, h.DeleteRoute(a), h.DeleteRoute(a), h.DeleteAddress(held), h.DeleteAddress(held))
	if routes, err = h.Routes(119); err != nil || !slices.Equal(routes, []Route{b}) {
		t.Errorf("routes left %+v, %v", routes, err)
	}
}

func TestVXLAN(t *testing.T) {
	h, _ := open(t)
	ok(t, h.AddAddress(Address{Link: 1, Prefix: netip.MustParsePrefix("10.0.0.1/32")}))
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	spec := VXLAN{VNI: 7, Port: 8472, Local: netip.MustParseAddr("10.0.0.1"), Device: 1}
	ok(t, h.AddVXLAN("vx", mac, 1400, spec), h.SetUp("vx"))
	l := find(t, h, "vx")
	if l.VXLAN == nil || *l.VXLAN != spec || l.MAC.String() != mac.String() || l.MTU != 1400 {
		t.Errorf("device is %+v %+v", l, l.VXLAN)
	}
	n := Neighbour{Link: l.Index, Address: netip.MustParseAddr("10.244.2.0"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	f := Forward{Link: l.Index, MAC: n.MAC, Host: netip.MustParseAddr("10.0.0.2")}
	ok(t, h.SetNeighbour(n), h.SetNeighbour(n), h.SetForward(f))
	f.Host = netip.MustParseAddr("10.0.0.3")
	ok(t, h.SetForward(f))
	near, err := h.Neighbours(l.Index)
	if err != nil || len(near) != 1 || near[0].Address != n.Address || near[0].MAC.String() != n.MAC.String() {
		t.Errorf("neighbours %v, %v", near, err)
	}
	fwd, err := h.Forwards(l.Index)
	if err != nil || len(fwd) != 1 || fwd[0].Host != f.Host {
		t.Errorf("forwarding entries %v, %v", fwd, err)
	}
	ok(t, h.DeleteNeighbour(n), h.DeleteNeighbour(n), h.DeleteForward(f), h.DeleteForward(f))
	if near, err := h.Neighbours(l.Index); err != nil || len(near) != 0 {
		t.Errorf("neighbours left %v, %v", near, err)
	}
}

func TestSysctl(t *testing.T) {
	h, _ := open(t)
	own, err := Open("")
	ok(t, err)
	defer own.Close()
	before, err := own.Sysctl("net/ipv4/conf/lo/tag")
	ok(t, err, h.SetSysctls(Sysctl{"net/ipv4/conf/lo/tag", "42"}))
	if v, err := h.Sysctl("net/ipv4/conf/lo/tag"); v != "42" || err != nil {
		t.Errorf("inside %q, %v", v, err)
	}
	if v, err := own.Sysctl("net/ipv4/conf/lo/tag"); v != before || err != nil {
		t.Errorf("outside became %q, %v", v, err)
	}
	if err := h.SetSysctls(Sysctl{"net/ipv4/nobody", "1"}); err == nil {
		t.Error("an unknown setting is set")
	}
}
