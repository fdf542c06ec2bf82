package svcproxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/netns"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/nft"
	"github.com/wherry-project/wherry/internal/testkit"
)

// rack is two nodes and a host outside on one switch, all in namespaces of the
// test, with the pods of real networks.
type rack struct {
	t       *testing.T
	fabric  string
	outside string
	nodes   [2]string
	nets    [2]*network.Network
	proxies [2]*Proxy
}

func newRack(t *testing.T, encap network.Encapsulation) *rack {
	t.Helper()
	r := &rack{t: t, fabric: testkit.ScratchNetNS(t).Path}
	r.in(r.fabric, func(h *link.Handle) error { return errors.Join(h.AddBridge("switch"), h.SetUp("switch")) })
	r.outside = r.host("out", "10.0.0.9/24")
	for i := range r.nodes {
		r.nodes[i] = r.host(fmt.Sprint("h", i), fmt.Sprintf("10.0.0.%d/24", i+1))
	}
	for i := range r.nodes {
		r.join(i, encap)
	}
	return r
}

func (r *rack) join(i int, encap network.Encapsulation) {
	t := r.t
	n, err := network.Open(t.Context(), network.Options{NetNS: r.nodes[i], RunDir: filepath.Join(t.TempDir(), "netns")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	peer := 2 - i
	err = n.Apply(t.Context(), network.Config{
		PodCIDRs:     []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", i+1))},
		ClusterCIDRs: []netip.Prefix{prefix("10.244.0.0/16")}, ServiceCIDRs: []netip.Prefix{prefix("10.96.0.0/16")},
		LocalAddresses: []netip.Addr{addr("10.96.0.10")}, Address: addr(fmt.Sprintf("10.0.0.%d", i+1)),
		Masquerade: true, Encapsulation: encap,
		Peers: []network.Peer{{
			Name: "peer", Address: addr(fmt.Sprintf("10.0.0.%d", peer)),
			PodCIDRs: []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", peer))},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.nets[i] = n
	r.proxies[i] = r.open(i)
}

func (r *rack) open(i int) *Proxy {
	r.t.Helper()
	p, err := Open(r.t.Context(), Options{NetNS: r.nodes[i]})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Close() })
	return p
}

func (r *rack) in(ns string, fn func(*link.Handle) error) {
	r.t.Helper()
	h, err := link.Open(ns)
	if err != nil {
		r.t.Fatal(err)
	}
	defer h.Close()
	if err := fn(h); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rack) host(name, address string) string {
	r.t.Helper()
	ns := testkit.ScratchNetNS(r.t).Path
	r.in(r.fabric, func(h *link.Handle) error {
		_, err := h.AddVeth(link.Veth{Name: name, Peer: "eth0", PeerNetNS: ns, Up: true})
		return errors.Join(err, h.SetMaster(name, "switch"))
	})
	r.in(ns, func(h *link.Handle) error {
		eth, _, err := h.Find("eth0")
		return errors.Join(err, h.SetUp("eth0"), h.AddAddress(link.Address{Link: eth.Index, Prefix: prefix(address)}))
	})
	return ns
}

// pod attaches a pod that answers on port 80, TCP and UDP, with its name and
// the client's address.
func (r *rack) pod(node int, name string) network.Pod {
	r.t.Helper()
	p, err := r.nets[node].Attach(r.t.Context(), network.PodConfig{ID: name})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { netns.Delete(p.NetNS) })
	r.serve(p.NetNS, "", name)
	return p
}

// serve answers at an address, empty for any. UDP answers come from where the
// route says, so one that is not the link's must be named.
func (r *rack) serve(ns, address, name string) {
	r.t.Helper()
	var ln net.Listener
	var pc net.PacketConn
	err := netns.Do(ns, func() (err error) {
		if ln, err = net.Listen("tcp4", address+":80"); err == nil {
			pc, err = net.ListenPacket("udp4", address+":80")
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	answer := func(a net.Addr) string { return fmt.Sprintf("%s %s\n", name, strings.Split(a.String(), ":")[0]) }
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, answer(c.RemoteAddr()))
			c.Close()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo([]byte(answer(from)), from)
		}
	}()
	r.t.Cleanup(func() { ln.Close(); pc.Close(); <-done; <-done })
}

// patience is for a busy machine.
const patience = 20 * time.Second

// dial connects from within a namespace.
func dial(ns, proto, to string) (c net.Conn, err error) { return dialWithin(ns, proto, to, patience) }

func dialWithin(ns, proto, to string, limit time.Duration) (c net.Conn, err error) {
	err = netns.Do(ns, func() (err error) {
		c, err = net.DialTimeout(proto, to, limit)
		return err
	})
	return c, err
}

// talk sends a line and returns the answer.
func talk(c net.Conn) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if c.RemoteAddr().Network() == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func ask(ns, proto, to string) (string, error) {
	c, err := dial(ns, proto, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return talk(c)
}

// answers asks until each of want was heard, and fails at anything else.
func (r *rack) answers(ns, proto, to string, want ...string) {
	r.t.Helper()
	heard := make(map[string]bool)
	for range 200 {
		got, err := ask(ns, proto, to)
		if err != nil || !slices.Contains(want, got) {
			r.t.Errorf("%s %s: %q, %v; want %q", proto, to, got, err, want)
			return
		}
		if heard[got] = true; len(heard) == len(want) {
			return
		}
	}
	r.t.Errorf("%s %s: heard only %v of %q", proto, to, heard, want)
}

func (r *rack) refused(ns, proto, to string) {
	r.t.Helper()
	got, err := ask(ns, proto, to)
	// On the node itself the kernel tells a UDP sender at once, by EPERM.
	sent := proto == "udp4" && errors.Is(err, syscall.EPERM)
	if !sent && !errors.Is(err, syscall.ECONNREFUSED) {
		r.t.Errorf("%s %s: %q, %v; want it refused", proto, to, got, err)
	}
}

func (r *rack) apply(node int, services []Service, ports ...HostPort) {
	r.t.Helper()
	if err := r.proxies[node].Apply(r.t.Context(), r.config(node, services, ports...)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rack) config(node int, services []Service, ports ...HostPort) Config {
	cfg := base()
	cfg.LocalPodCIDRs = []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", node+1))}
	cfg.NodeAddresses = []netip.Addr{addr(fmt.Sprintf("10.0.0.%d", node+1))}
	cfg.Services, cfg.HostPorts = services, ports
	return cfg
}

func at(p network.Pod) netip.AddrPort { return netip.AddrPortFrom(p.Address, 80) }

// TestTraffic reaches services from pods, from the node itself and from
// outside, on a shared segment and through VXLAN.
func TestTraffic(t *testing.T) {
	for _, encap := range []network.Encapsulation{network.EncapNever, network.EncapAlways} {
		t.Run(fmt.Sprint("encapsulation ", encap), func(t *testing.T) {
			r := newRack(t, encap)
			a, b := r.pod(0, "a"), r.pod(1, "b")
			port := Port{Protocol: TCP, Port: 80, NodePort: 30080, Endpoints: []netip.AddrPort{at(a), at(b)}}
			udp := Port{Protocol: UDP, Port: 80, Endpoints: []netip.AddrPort{at(b)}}
			local := port
			local.NodePort = 30081
			services := []Service{
				service("demo/both", "10.96.1.1", port, udp),
				service("demo/empty", "10.96.1.2", Port{Protocol: TCP, Port: 80, NodePort: 30090}, Port{Protocol: UDP, Port: 80}),
				service("demo/local", "10.96.1.3", local),
				service("kube-system/kube-dns", "10.96.0.10", udp),
			}
			services[2].InternalLocal, services[2].ExternalLocal = true, true
			r.apply(0, services, HostPort{Protocol: TCP, Port: 8080, Endpoint: at(a)})
			r.apply(1, services)
			an, bn, node := a.Address.String(), b.Address.String(), "10.0.0.1"
			// From a pod: its own address is kept, but when it meets itself.
			r.answers(a.NetNS, "tcp4", "10.96.1.1:80", "a "+node, "b "+an)
			r.answers(b.NetNS, "tcp4", "10.96.1.1:80", "a "+bn, "b 10.0.0.2")
			r.answers(a.NetNS, "udp4", "10.96.1.1:80", "b "+an)
			// From the node.
			remote := node
			if encap == network.EncapAlways {
				remote = "10.244.1.0"
			}
			r.answers(r.nodes[0], "tcp4", "10.96.1.1:80", "a "+node, "b "+remote)
			r.answers(r.nodes[0], "tcp4", "10.0.0.1:30080", "a "+node, "b "+remote)
			// From outside by node port; the policy Local keeps the source.
			r.answers(r.outside, "tcp4", "10.0.0.1:30080", "a "+node, "b "+remote)
			r.answers(r.outside, "tcp4", "10.0.0.1:30081", "a 10.0.0.9")
			r.answers(r.outside, "tcp4", "10.0.0.1:8080", "a 10.0.0.9")
			r.answers(a.NetNS, "tcp4", "10.96.1.3:80", "a "+node)
			r.answers(b.NetNS, "tcp4", "10.96.1.3:80", "b 10.0.0.2")
			r.answers(b.NetNS, "tcp4", "10.0.0.1:30080", "a "+node, "b "+remote)
			// Without endpoints, and at ports and addresses of no service.
			for _, ns := range []string{a.NetNS, r.nodes[0]} {
				for _, to := range []string{"10.96.1.2:80", "10.96.1.1:81", "10.96.9.9:80", "10.0.0.1:30090"} {
					r.refused(ns, "tcp4", to)
				}
				r.refused(ns, "udp4", "10.96.1.2:80")
			}
			r.refused(r.outside, "tcp4", "10.0.0.1:30090")
			// The cluster DNS is the node's own, whatever the service says.
			r.serve(r.nodes[0], "10.96.0.10", "dns")
			r.answers(a.NetNS, "udp4", "10.96.0.10:80", "dns "+an)
		})
	}
}

// TestChanges removes and adds endpoints and services under traffic; a UDP
// client that keeps its socket moves along.
func TestChanges(t *testing.T) {
	r := newRack(t, network.EncapAuto)
	a, b, c := r.pod(0, "a"), r.pod(1, "b"), r.pod(0, "c")
	udp := func(eps ...netip.AddrPort) []Service {
		return []Service{service("demo/udp", "10.96.1.1", Port{Protocol: UDP, Port: 80, Endpoints: eps})}
	}
	r.apply(0, udp(at(a)))
	conn, err := dial(c.NetNS, "udp4", "10.96.1.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	from := " " + c.Address.String()
	expect := func(want string) {
		t.Helper()
		if got, err := talk(conn); got != want+from || err != nil {
			t.Fatalf("same socket: %q, %v; want %q", got, err, want+from)
		}
	}
	expect("a")
	r.apply(0, udp(at(a), at(b)))
	expect("a")
	r.apply(0, udp(at(b)))
	expect("b")
	r.apply(0, nil)
	if got, err := talk(conn); err == nil {
		t.Fatalf("removed service answers %q", got)
	}
	r.apply(0, udp(at(a)))
	testkit.Eventually(t, patience, func() error {
		got, err := talk(conn) // the first write may still report the refusal
		if err == nil && got != "a"+from {
			return fmt.Errorf("answer %q", got)
		}
		return err
	})
}

// TestTakesOver has a second Proxy follow one that was killed: what is wanted
// stays, the rest goes, also UDP connections to endpoints that went meanwhile.
func TestTakesOver(t *testing.T) {
	r := newRack(t, network.EncapAuto)
	a, b := r.pod(0, "a"), r.pod(1, "b")
	tcp := func(name, ip string, eps ...netip.AddrPort) Service {
		return service(name, ip, Port{Protocol: TCP, Port: 80, Endpoints: eps}, Port{Protocol: UDP, Port: 80, Endpoints: eps})
	}
	r.apply(0, []Service{tcp("demo/a", "10.96.1.1", at(a)), tcp("demo/b", "10.96.1.2", at(b))})
	conn, err := dial(r.nodes[0], "udp4", "10.96.1.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := talk(conn); got != "a 10.0.0.1" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	r.proxies[0].Close()
	r.proxies[0] = r.open(0)
	r.apply(0, []Service{tcp("demo/a", "10.96.1.1", at(b))})
	r.answers(r.nodes[0], "tcp4", "10.96.1.1:80", "b 10.0.0.1")
	r.refused(r.nodes[0], "tcp4", "10.96.1.2:80")
	if got, err := talk(conn); got != "b 10.0.0.1" || err != nil {
		t.Errorf("UDP client: %q, %v; want b", got, err)
	}
	// Another tool flushes everything: the next Apply mends it.
	other, err := nft.Open(r.nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Commit(t.Context(), nft.Changes{Family: nft.IPv4, Table: tableName, Remove: true}); err != nil {
		t.Fatal(err)
	}
	if c, err := dialWithin(r.nodes[0], "tcp4", "10.96.1.1:80", time.Second); err == nil {
		c.Close()
		t.Fatal("the service answers without rules")
	}
	r.apply(0, []Service{tcp("demo/a", "10.96.1.1", at(b))})
	r.answers(r.nodes[0], "tcp4", "10.96.1.1:80", "b 10.0.0.1")
	if err := r.proxies[0].Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := other.Intact(t.Context(), nft.IPv4, tableName); ok || err != nil {
		t.Errorf("Remove leaves the table (%v)", err)
	}
}

// TestAffinity keeps a client at its endpoint until that has gone.
func TestAffinity(t *testing.T) {
	r := newRack(t, network.EncapAuto)
	client := r.pod(0, "client")
	pods := map[string]network.Pod{"a": r.pod(0, "a"), "b": r.pod(1, "b"), "c": r.pod(1, "c")}
	sticky := func(names ...string) []Service {
		port := Port{Protocol: TCP, Port: 80, NodePort: 30080}
		for _, n := range names {
			port.Endpoints = append(port.Endpoints, at(pods[n]))
		}
		s := service("demo/sticky", "10.96.1.1", port)
		s.Affinity = 10 * time.Minute // longer than the test, on any machine
		return []Service{s}
	}
	who := func(ns, to string) string {
		t.Helper()
		got, err := ask(ns, "tcp4", to)
		if err != nil {
			t.Fatal(err)
		}
		return got[:1]
	}
	same := func(ns, to string) string {
		t.Helper()
		first := who(ns, to)
		for range 20 {
			if got := who(ns, to); got != first {
				t.Fatalf("%s answered after %s", got, first)
			}
		}
		return first
	}
	r.apply(0, sticky("a", "b", "c"))
	kept := same(client.NetNS, "10.96.1.1:80")
	keptOutside := same(r.outside, "10.0.0.1:30080")
	var others []string
	for n := range pods {
		if n != kept {
			others = append(others, n)
		}
	}
	r.apply(0, sticky(kept, others[0])) // fewer, but the kept one stays
	if got := same(client.NetNS, "10.96.1.1:80"); got != kept {
		t.Errorf("moved from %s to %s", kept, got)
	}
	r.apply(0, sticky(others...)) // the kept one has gone
	if got := same(client.NetNS, "10.96.1.1:80"); got == kept {
		t.Errorf("still at %s", kept)
	}
	r.apply(0, sticky("a", "b", "c"))
	if keptOutside != kept && keptOutside == others[0] {
		if got := same(r.outside, "10.0.0.1:30080"); got != keptOutside {
			t.Errorf("outside client moved from %s to %s", keptOutside, got)
		}
	}
	r.apply(0, sticky())
	r.refused(client.NetNS, "tcp4", "10.96.1.1:80")
}

// TestExampleTables commits every golden example to the kernel, and one after
// the other over each other.
func TestExampleTables(t *testing.T) {
	ns := testkit.ScratchNetNS(t)
	p, err := Open(t.Context(), Options{NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 2 {
		for name, cfg := range examples() {
			if err := p.Apply(t.Context(), cfg); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// BenchmarkLoad loads 10,000 services of three endpoints.
func BenchmarkLoad(b *testing.B) {
	p, cfg := bench(b)
	for b.Loop() {
		b.StopTimer()
		if err := p.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := p.Apply(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChange replaces an endpoint of one of 10,000 services.
func BenchmarkChange(b *testing.B) {
	benchChange(b, func(p *Port) { p.Endpoints = append(slices.Clone(p.Endpoints[:2]), endpoint("10.244.9.9:80")) })
}

// BenchmarkFewer takes one away, so that a way to choose between two is needed
// and then not.
func BenchmarkFewer(b *testing.B) {
	benchChange(b, func(p *Port) { p.Endpoints = p.Endpoints[:2] })
}

func benchChange(b *testing.B, change func(*Port)) {
	p, cfg := bench(b)
	next := cfg
	next.Services = slices.Clone(cfg.Services)
	port := next.Services[5000].Ports[0]
	change(&port)
	next.Services[5000].Ports = []Port{port}
	i := 0
	for b.Loop() {
		i++
		if err := p.Apply(b.Context(), []Config{cfg, next}[i%2]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSame applies what is there.
func BenchmarkSame(b *testing.B) {
	p, cfg := bench(b)
	for b.Loop() {
		if err := p.Apply(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
	}
}

func bench(b *testing.B) (*Proxy, Config) {
	ns := testkit.ScratchNetNS(b)
	p, err := Open(b.Context(), Options{NetNS: ns.Path})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	cfg := many(10000)
	if err := p.Apply(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	return p, cfg
}
