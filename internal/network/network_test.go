package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/netns"
	"github.com/wherry-project/wherry/internal/nft"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestTraffic sends real packets between pods of two nodes, the nodes and a
// host outside, on a shared segment and through VXLAN.
func TestTraffic(t *testing.T) {
	for _, encap := range []Encapsulation{EncapNever, EncapAlways} {
		t.Run([]string{"auto", "vxlan", "direct"}[encap], func(t *testing.T) {
			l := newLab(t)
			ns1, ns2, out := l.host("h1", "10.0.0.1/24"), l.host("h2", "10.0.0.2/24"), l.host("out", "10.0.0.9/24")
			n1, n2 := l.node(ns1), l.node(ns2)
			c1, c2 := config(1, 2), config(2, 1)
			c1.Encapsulation, c2.Encapsulation = encap, encap
			l.apply(n1, c1)
			l.apply(n2, c2)
			a, b, c := l.attach(n1, "a"), l.attach(n1, "b"), l.attach(n2, "c")
			for _, p := range []Pod{a, b, c} {
				l.serve(p.NetNS, ":80")
			}
			for _, ns := range []string{ns1, ns2, out} {
				l.serve(ns, ":80")
			}
			at := func(p Pod) string { return p.Address.String() + ":80" }
			l.wantSeen(a.NetNS, at(b), a.Address.String()) // one node
			l.wantSeen(a.NetNS, at(a), a.Address.String())
			l.wantSeen(a.NetNS, at(c), a.Address.String()) // across nodes, source kept
			l.wantSeen(c.NetNS, at(a), c.Address.String())
			l.wantSeen(a.NetNS, "10.0.0.9:80", "10.0.0.1") // outside: masquerade
			l.wantSeen(a.NetNS, "10.0.0.1:80", a.Address.String())
			l.wantSeen(ns1, at(a), "10.0.0.1") // the node and its pods
			if encap == EncapAlways {
				l.wantSeen(ns1, at(c), "10.244.1.0")
				l.wantSeen(a.NetNS, "10.0.0.2:80", "10.0.0.1")
			} else {
				l.wantSeen(ns1, at(c), "10.0.0.1")
				l.wantSeen(a.NetNS, "10.0.0.2:80", a.Address.String())
			}
			l.wantSeen(a.NetNS, "10.96.0.10:80", a.Address.String()) // what lo holds
		})
	}
}

func (l *lab) apply(n *Network, cfg Config) {
	l.t.Helper()
	if err := n.Apply(l.t.Context(), cfg); err != nil {
		l.t.Fatal(err)
	}
}

// TestAutoChooses puts a peer behind a router: VXLAN carries to it, a route to
// the neighbour.
func TestAutoChooses(t *testing.T) {
	l := newLab(t)
	ns1, ns2 := l.host("h1", "10.0.0.1/24"), l.host("h2", "10.0.0.2/24")
	ns3 := l.host("h3", "10.0.9.3/24")
	router := l.host("r", "10.0.0.254/24")
	l.in(router, func(h *link.Handle) error {
		eth, _, err := h.Find("eth0")
		return errors.Join(err, h.AddAddress(link.Address{Link: eth.Index, Prefix: prefix("10.0.9.254/24")}),
			h.SetSysctls(link.Sysctl{Name: "net/ipv4/ip_forward", Value: "1"}))
	})
	for ns, gw := range map[string]string{ns1: "10.0.0.254", ns2: "10.0.0.254", ns3: "10.0.9.254"} {
		l.in(ns, func(h *link.Handle) error {
			eth, _, err := h.Find("eth0")
			return errors.Join(err, h.AddRoute(link.Route{Destination: prefix("0.0.0.0/0"), Link: eth.Index, Gateway: addr(gw)}))
		})
	}
	n1, n2, n3 := l.node(ns1), l.node(ns2), l.node(ns3)
	far := Peer{Name: "n3", Address: addr("10.0.9.3"), PodCIDRs: []netip.Prefix{prefix("10.244.3.0/24")}}
	c1, c2, c3 := config(1, 2), config(2, 1), config(3, 1, 2)
	c1.Peers, c2.Peers, c3.Address = append(c1.Peers, far), append(c2.Peers, far), far.Address
	l.apply(n1, c1)
	l.apply(n2, c2)
	l.apply(n3, c3)
	a, b, c := l.attach(n1, "a"), l.attach(n2, "b"), l.attach(n3, "c")
	l.serve(b.NetNS, ":80")
	l.serve(c.NetNS, ":80")
	l.wantSeen(a.NetNS, b.Address.String()+":80", a.Address.String())
	l.wantSeen(a.NetNS, c.Address.String()+":80", a.Address.String())
	l.wantSeen(ns1, c.Address.String()+":80", "10.244.1.0")
	via := l.routes(ns1)
	if !strings.Contains(via, "10.244.2.0/24 via 10.0.0.2 eth0") || !strings.Contains(via, "10.244.3.0/24 via 10.244.3.0 wherry-vxlan") {
		t.Errorf("routes:\n%s", via)
	}

	// The far node joins the segment: its VXLAN goes.
	c1.Peers[1].Address = addr("10.0.0.3")
	l.apply(n1, c1)
	if via := l.routes(ns1); !strings.Contains(via, "10.244.3.0/24 via 10.0.0.3 eth0") || strings.Contains(via, vxlanName) {
		t.Errorf("routes after the move:\n%s", via)
	}
	l.in(ns1, func(h *link.Handle) error {
		if _, ok, err := h.Find(vxlanName); ok || err != nil {
			t.Errorf("VXLAN device is still there (%v)", err)
		}
		return nil
	})
}

func (l *lab) routes(ns string) string {
	var lines []string
	l.in(ns, func(h *link.Handle) error {
		links, err := h.Links()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, x := range links {
			names[x.Index] = x.Name
		}
		routes, err := h.Routes(protocol)
		for _, r := range routes {
			lines = append(lines, fmt.Sprintf("%v via %v %s", r.Destination, r.Gateway, names[r.Link]))
		}
		return err
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// snapshot is all that the node's kernel holds of links, routes and addresses.
func (l *lab) snapshot(ns string) string {
	var s string
	l.in(ns, func(h *link.Handle) error {
		f := facts{}
		var err error
		f.links, err = h.Links()
		f.addresses, _ = h.Addresses()
		f.routes, _ = h.Routes(link.AnyProtocol)
		for _, x := range f.links {
			s += fmt.Sprintf("%d %s %s %d %v\n", x.Index, x.Name, x.Alias, x.MTU, x.Up)
			near, _ := h.Neighbours(x.Index)
			s += fmt.Sprintln(near)
		}
		s += fmt.Sprintln(f.addresses) + fmt.Sprintln(f.routes)
		return err
	})
	return s
}

// TestApplyTwice finds the kernel as the first Apply left it, down to the
// indices of links, and repairs what others broke.
func TestApplyTwice(t *testing.T) {
	l := newLab(t)
	ns := l.host("h1", "10.0.0.1/24")
	n := l.node(ns)
	cfg := config(1, 2, 3)
	cfg.Encapsulation = EncapAlways
	l.apply(n, cfg)
	l.attach(n, "a")
	first := l.snapshot(ns)
	rules := &counting{ruleset: n.rules}
	n.rules = rules
	l.apply(n, cfg)
	if second := l.snapshot(ns); second != first {
		t.Errorf("second Apply changed\n%s\ninto\n%s", first, second)
	}
	if rules.commits != 0 {
		t.Errorf("second Apply committed %d times", rules.commits)
	}
	l.in(ns, func(h *link.Handle) error { return h.Delete(vxlanName) })
	if err := n.rules.Commit(t.Context(), nft.Changes{Family: nft.IPv4, Table: tableName, Remove: true}); err != nil {
		t.Fatal(err)
	}
	rules.commits = 0
	l.apply(n, cfg)
	if via := l.routes(ns); !strings.Contains(via, "10.244.3.0/24 via 10.244.3.0 wherry-vxlan") {
		t.Errorf("not repaired:\n%s", via)
	}
	if rules.commits != 1 {
		t.Errorf("lost table: %d commits, want 1", rules.commits)
	}
}

type counting struct {
	ruleset
	commits int
}

func (c *counting) Commit(ctx context.Context, changes nft.Changes) error {
	if !changes.Empty() {
		c.commits++
	}
	return c.ruleset.Commit(ctx, changes)
}

// TestTakesOver ends one Network without goodbye; the next finds its pods,
// their addresses and half made ones.
func TestTakesOver(t *testing.T) {
	l := newLab(t)
	ns := l.host("h1", "10.0.0.1/24")
	dir := filepath.Join(t.TempDir(), "netns")
	open := func() *Network {
		n, err := Open(t.Context(), Options{NetNS: ns, RunDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := open()
	l.apply(n, config(1, 2, 3))
	a := l.attach(n, "a")
	if _, err := netns.Make(filepath.Join(dir, "half")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(filepath.Join(dir, "half")) })
	if _, err := n.links.AddVeth(link.Veth{Name: linkName("half"), Peer: "eth0", PeerNetNS: filepath.Join(dir, "half")}); err != nil {
		t.Fatal(err)
	}
	n.Close()

	n = open()
	defer n.Close()
	pods, err := n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []Pod{a, {ID: "half", NetNS: filepath.Join(dir, "half"), Link: linkName("half")}}; !slices.Equal(pods, want) {
		t.Errorf("List = %+v, want %+v", pods, want)
	}
	if _, err := n.Attach(t.Context(), PodConfig{ID: "b"}); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("Attach before Apply: %v", err)
	}
	l.apply(n, config(1, 2))
	if via := l.routes(ns); strings.Contains(via, "10.244.3.0") || !strings.Contains(via, a.Address.String()+"/32") {
		t.Errorf("routes after taking over:\n%s", via)
	}
	index := func() (i int) {
		l.in(ns, func(h *link.Handle) error {
			x, _, err := h.Find(a.Link)
			i = x.Index
			return err
		})
		return i
	}
	before := index()
	if again := l.attach(n, "a"); again != a || index() != before {
		t.Errorf("pod a became %+v, link %d, was %+v, link %d", again, index(), a, before)
	}
	b, half := l.attach(n, "b"), l.attach(n, "half")
	if b.Address == a.Address || half.Address == a.Address {
		t.Errorf("address of a, %v, given out again: b %v, half %v", a.Address, b.Address, half.Address)
	}
	l.serve(a.NetNS, ":80")
	l.wantSeen(half.NetNS, a.Address.String()+":80", half.Address.String())

	if err := n.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.in(ns, func(h *link.Handle) error {
		links, err := h.Links()
		for _, x := range links {
			if x.Name != "lo" && x.Name != "eth0" {
				t.Errorf("link %s is left", x.Name)
			}
		}
		return err
	})
	if via := l.routes(ns); via != "" {
		t.Errorf("routes left:\n%s", via)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("pins left: %v", left)
	}
}

// TestFirstPacket sends one packet to each pod at once after Attach; none is
// lost while the kernel still gets the link ready.
func TestFirstPacket(t *testing.T) {
	l := newLab(t)
	ns := l.host("h1", "10.0.0.1/24")
	n := l.node(ns)
	l.apply(n, config(1))
	for i := range 30 {
		p := l.attach(n, fmt.Sprint("p", i))
		var server, client net.PacketConn
		err := netns.Do(p.NetNS, func() (err error) {
			server, err = net.ListenPacket("udp4", ":80")
			return err
		})
		if err == nil {
			err = netns.Do(ns, func() (err error) {
				client, err = net.ListenPacket("udp4", ":0")
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		client.WriteTo([]byte("?"), &net.UDPAddr{IP: p.Address.AsSlice(), Port: 80})
		server.SetReadDeadline(time.Now().Add(20 * time.Second)) // a packet that was lost does not come again
		if _, _, err := server.ReadFrom(make([]byte, 9)); err != nil {
			t.Errorf("pod %d: %v", i, err)
		}
		client.Close()
		server.Close()
	}
}

func TestDetach(t *testing.T) {
	l := newLab(t)
	ns := l.host("h1", "10.0.0.1/24")
	n := l.node(ns)
	l.apply(n, config(1))
	a := l.attach(n, "a")
	if _, err := n.Attach(t.Context(), PodConfig{ID: "b", Address: addr("10.99.1.7")}); !errors.Is(err, apierr.ErrConflict) {
		t.Errorf("an address out of range: %v", err)
	}
	if _, err := n.Attach(t.Context(), PodConfig{ID: "b", Address: a.Address}); !errors.Is(err, apierr.ErrConflict) {
		t.Errorf("Attach with a taken address: %v", err)
	}
	for range 2 {
		if err := n.Detach(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	if pods, err := n.List(t.Context()); err != nil || len(pods) != 0 {
		t.Errorf("List = %v, %v", pods, err)
	}
	if b := l.attach(n, "b"); b.Address == a.Address {
		t.Errorf("address %v given out again at once", b.Address)
	}
	own := testkit.ScratchNetNS(t)
	p, err := n.Attach(t.Context(), PodConfig{ID: "own", NetNS: own.Path, Address: addr("10.244.1.77")})
	if err != nil || p.Address != addr("10.244.1.77") || p.NetNS != own.Path {
		t.Errorf("Attach to a given namespace: %+v, %v", p, err)
	}
	if err := n.Detach(t.Context(), "own"); err != nil {
		t.Error(err)
	}
	if ok, err := netns.Pinned(own.Path); !ok || err != nil {
		t.Errorf("Detach took away the caller's namespace (%v)", err)
	}
	if err := n.Detach(t.Context(), "../x"); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("Detach of a path: %v", err)
	}
}

// TestLeavesOthersAlone has routes, addresses and tables of others in place
// through an Apply and a Remove.
func TestLeavesOthersAlone(t *testing.T) {
	l := newLab(t)
	ns := l.host("h1", "10.0.0.1/24")
	other, err := nft.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	theirs := nft.Table{Family: nft.IPv4, Name: "theirs", Chains: []nft.Chain{{Name: "c"}}}
	if err := other.Commit(t.Context(), nft.Diff(nil, &theirs)); err != nil {
		t.Fatal(err)
	}
	l.in(ns, func(h *link.Handle) error {
		eth, _, err := h.Find("eth0")
		return errors.Join(err,
			h.AddAddress(link.Address{Link: lo, Prefix: prefix("10.9.9.9/32")}),
			h.AddRoute(link.Route{Destination: prefix("10.50.0.0/16"), Link: eth.Index, Gateway: addr("10.0.0.7"), Protocol: 4}))
	})
	before := l.snapshot(ns)
	n := l.node(ns)
	l.apply(n, config(1, 2))
	if err := n.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := l.snapshot(ns); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if ok, err := other.Intact(t.Context(), nft.IPv4, "theirs"); !ok || err != nil {
		t.Errorf("their table is gone (%v)", err)
	}
	l.in(ns, func(h *link.Handle) error {
		eth, _, err := h.Find("eth0")
		return errors.Join(err, h.AddRoute(link.Route{Destination: prefix("10.244.2.0/24"), Link: eth.Index, Gateway: addr("10.0.0.7"), Protocol: 4}))
	})
	if err := n.Apply(t.Context(), config(1, 2)); err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Errorf("a route of others in the way: %v", err)
	}
}

// TestSpoof has a pod send under an address that is not its own: what it sends
// arrives nowhere, though nothing would have to find the way back.
func TestSpoof(t *testing.T) {
	l := newLab(t)
	ns := l.host("h1", "10.0.0.1/24")
	n := l.node(ns)
	l.apply(n, config(1))
	a, b := l.attach(n, "a"), l.attach(n, "b")
	var server net.PacketConn
	err := netns.Do(b.NetNS, func() (err error) {
		server, err = net.ListenPacket("udp4", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	send := func(from, text string) {
		t.Helper()
		err := netns.Do(a.NetNS, func() error {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: b.Address.AsSlice(), Port: 80})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte(text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	l.in(a.NetNS, func(h *link.Handle) error {
		eth, _, err := h.Find("eth0")
		return errors.Join(err, h.AddAddress(link.Address{Link: eth.Index, Prefix: prefix("10.244.1.200/32")}))
	})
	send("10.244.1.200", "spoofed")
	send(a.Address.String(), "honest")
	server.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 20)
	size, from, err := server.ReadFrom(buf)
	if err != nil || string(buf[:size]) != "honest" {
		t.Errorf("first packet %q from %v, %v; want the honest one", buf[:size], from, err)
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"two ranges": func(c *Config) { c.PodCIDRs = append(c.PodCIDRs, prefix("10.245.0.0/24")) },
		"IPv6 range": func(c *Config) { c.PodCIDRs = []netip.Prefix{prefix("fd00::/64")} },
		"tiny range": func(c *Config) { c.PodCIDRs = []netip.Prefix{prefix("10.244.1.0/31")} },
		"host bits":  func(c *Config) { c.ClusterCIDRs = []netip.Prefix{prefix("10.244.1.1/16")} },
		"no address": func(c *Config) { c.Address = netip.Addr{} },
		"IPv6 peer":  func(c *Config) { c.Peers[0].Address = addr("fd00::1") },
		"range twice": func(c *Config) {
			c.Peers = append(c.Peers, Peer{Name: "x", Address: addr("10.0.0.8"), PodCIDRs: c.Peers[0].PodCIDRs})
		},
		"bad services": func(c *Config) { c.ServiceCIDRs = []netip.Prefix{{}} },
		"bad held":     func(c *Config) { c.LocalAddresses = []netip.Addr{{}} },
	} {
		cfg := config(1, 2)
		change(&cfg)
		if err := cfg.Validate(); !errors.Is(err, apierr.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := config(1, 2).Validate(); err != nil {
		t.Error(err)
	}
}
