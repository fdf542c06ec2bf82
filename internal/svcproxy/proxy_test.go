package svcproxy

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/nft"
)

var update = flag.Bool("update", false, "write the golden files anew")

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func endpoint(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func endpoints(list ...string) (out []netip.AddrPort) {
	for _, s := range list {
		out = append(out, endpoint(s))
	}
	return out
}

// base is a Config without services.
func base() Config {
	return Config{
		ServiceCIDRs:  []netip.Prefix{prefix("10.96.0.0/16")},
		LocalPodCIDRs: []netip.Prefix{prefix("10.244.1.0/24")},
		NodeAddresses: []netip.Addr{addr("10.0.0.1")},
		Untranslated:  []netip.Addr{addr("10.96.0.10")},
	}
}

func service(name, ip string, ports ...Port) Service {
	return Service{Name: name, ClusterIPs: []netip.Addr{addr(ip)}, Ports: ports}
}

// noConnections tracks none.
type noConnections struct{ looked int }

func (c *noConnections) ForgetConnections(func(link.Connection) bool) (int, error) {
	c.looked++
	return 0, nil
}

// examples are services of every sort, by the name of their golden file.
func examples() map[string]Config {
	none := base()

	plain := base()
	plain.Services = []Service{
		service("demo/empty", "10.96.1.2", Port{Protocol: TCP, Port: 80}),
		service("demo/hello", "10.96.1.1",
			Port{Protocol: TCP, Port: 80, Endpoints: endpoints("10.244.1.2:8080", "10.244.2.2:8080")},
			Port{Protocol: UDP, Port: 53, Endpoints: endpoints("10.244.1.2:5353")}),
		service("kube-system/kube-dns", "10.96.0.10", Port{Protocol: UDP, Port: 53, Endpoints: endpoints("10.244.1.9:53")}),
		{Name: "demo/headless", Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: endpoints("10.244.1.2:80")}}},
	}

	outside := base()
	outside.Services = []Service{
		{
			Name: "demo/local", ClusterIPs: []netip.Addr{addr("10.96.1.1")}, ExternalIPs: []netip.Addr{addr("192.0.2.1")},
			ExternalLocal: true,
			Ports:         []Port{{Protocol: TCP, Port: 80, NodePort: 30080, Endpoints: endpoints("10.244.1.2:80", "10.244.2.2:80")}},
		},
		{
			Name: "demo/nodeport", ClusterIPs: []netip.Addr{addr("10.96.1.2")}, InternalLocal: true,
			Ports: []Port{
				{Protocol: TCP, Port: 80, NodePort: 30081, Endpoints: endpoints("10.244.2.2:80")},
				{Protocol: TCP, Port: 81, NodePort: 30082},
			},
		},
	}
	outside.HostPorts = []HostPort{
		{Name: "demo/pod", Protocol: TCP, Port: 8080, Endpoint: endpoint("10.244.1.5:80")},
		{Name: "demo/pod", Protocol: UDP, Address: addr("10.0.0.1"), Port: 53, Endpoint: endpoint("10.244.1.5:53")},
	}

	sticky := base()
	sticky.Services = []Service{service("demo/sticky", "10.96.1.1",
		Port{Protocol: TCP, Port: 80, NodePort: 30080, Endpoints: endpoints("10.244.1.2:80", "10.244.2.2:80")})}
	sticky.Services[0].Affinity = 3 * time.Hour
	return map[string]Config{"none": none, "plain": plain, "outside": outside, "sticky": sticky}
}

// TestGolden compares the table, as nft would list it, with testdata.
func TestGolden(t *testing.T) {
	for name, cfg := range examples() {
		t.Run(name, func(t *testing.T) {
			var fake nft.Fake
			p := newProxy(&fake, &noConnections{})
			if err := p.Apply(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			got := fake.Text(nft.IPv4, tableName)
			path := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestWalk takes random steps and compares the table, each time, with that of
// a Proxy which begins with the same Config.
func TestWalk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var fake nft.Fake
	p := newProxy(&fake, &noConnections{})
	cfg := base()
	for step := range 600 {
		cfg = mutate(rnd, cfg)
		if err := p.Apply(t.Context(), cfg); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		before := fake.Commits
		again := cfg
		again.Services = slices.Clone(cfg.Services)
		if err := p.Apply(t.Context(), again); err != nil {
			t.Fatalf("step %d again: %v", step, err)
		}
		if fake.Commits != before {
			t.Fatalf("step %d: applying the same again commits", step)
		}
		var other nft.Fake
		if err := newProxy(&other, &noConnections{}).Apply(t.Context(), cfg); err != nil {
			t.Fatalf("step %d, anew: %v", step, err)
		}
		if got, want := fake.Text(nft.IPv4, tableName), other.Text(nft.IPv4, tableName); got != want {
			t.Fatalf("step %d: got\n%s\nanew it is\n%s", step, got, want)
		}
	}
}

// mutate changes a few services and host ports, in memory of their own.
func mutate(r *rand.Rand, old Config) Config {
	cfg := old
	cfg.Services = slices.Clone(old.Services)
	for range 1 + r.IntN(3) {
		i := r.IntN(12)
		s := Service{
			Name: fmt.Sprintf("ns/s%02d", i), ClusterIPs: []netip.Addr{addr(fmt.Sprintf("10.96.1.%d", i))},
			InternalLocal: r.IntN(4) == 0, ExternalLocal: r.IntN(4) == 0,
		}
		if r.IntN(4) == 0 {
			s.Affinity = time.Duration(1+r.IntN(2)) * time.Hour
		}
		if r.IntN(3) == 0 {
			s.ExternalIPs = []netip.Addr{addr(fmt.Sprintf("192.0.2.%d", i))}
		}
		for k := range r.IntN(3) {
			port := Port{Protocol: []Protocol{TCP, UDP}[k], Port: 80}
			if r.IntN(2) == 0 {
				port.NodePort = uint16(30000 + i)
			}
			for e := range r.IntN(5) {
				port.Endpoints = append(port.Endpoints, endpoint(fmt.Sprintf("10.244.%d.%d:80", 1+r.IntN(2), e)))
			}
			s.Ports = append(s.Ports, port)
		}
		cfg.Services = slices.DeleteFunc(cfg.Services, func(x Service) bool { return x.Name == s.Name })
		if r.IntN(4) > 0 {
			cfg.Services = append(cfg.Services, s)
		}
	}
	if r.IntN(5) == 0 {
		cfg.HostPorts = nil
		for i := range r.IntN(3) {
			cfg.HostPorts = append(cfg.HostPorts, HostPort{Protocol: TCP, Port: uint16(8000 + i), Endpoint: endpoint(fmt.Sprintf("10.244.1.%d:80", r.IntN(5)))})
		}
	}
	if r.IntN(40) == 0 {
		cfg.NodeAddresses = []netip.Addr{addr(fmt.Sprintf("10.0.0.%d", 1+r.IntN(3)))}
	}
	return cfg
}

// TestConflict gives one address to two services: the first keeps it, the
// second gets it when the first has gone, and says so meanwhile.
func TestConflict(t *testing.T) {
	var fake nft.Fake
	p := newProxy(&fake, &noConnections{})
	a := service("demo/a", "10.96.1.1", Port{Protocol: TCP, Port: 80, Endpoints: endpoints("10.244.1.1:1")})
	b := service("demo/b", "10.96.1.1", Port{Protocol: TCP, Port: 80, Endpoints: endpoints("10.244.1.2:2")})
	cfg := base()
	apply := func(list ...Service) string {
		t.Helper()
		cfg.Services = list
		if err := p.Apply(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		return fake.Text(nft.IPv4, tableName)
	}
	apply(b)
	if text := apply(a, b); strings.Contains(text, "10.244.1.1 . 1") || !strings.Contains(text, "10.244.1.2 . 2") {
		t.Errorf("b lost its address:\n%s", text)
	}
	if got := p.Problems(); len(got) != 1 || got[0].Service != "demo/a" || !strings.Contains(got[0].What, "belongs to service demo/b") {
		t.Errorf("problems: %v", got)
	}
	if text := apply(a); !strings.Contains(text, "10.244.1.1 . 1") || strings.Contains(text, "10.244.1.2 . 2") {
		t.Errorf("a did not get the address:\n%s", text)
	}
	if got := p.Problems(); len(got) != 0 {
		t.Errorf("problems left: %v", got)
	}
	cfg.Services = []Service{a, a}
	if err := p.Apply(t.Context(), cfg); err == nil {
		t.Error("a service given twice is accepted")
	}
	six := service("demo/six", "fd00::1", Port{Protocol: TCP, Port: 80, Endpoints: endpoints("[fd00::2]:80")})
	apply(six)
	if got := p.Problems(); len(got) != 2 {
		t.Errorf("problems of IPv6: %v", got)
	}
}

// TestFailedCommit keeps the former rules and recovers with the next Apply;
// so does a table that somebody took away.
func TestFailedCommit(t *testing.T) {
	var fake nft.Fake
	p := newProxy(&fake, &noConnections{})
	cfg := examples()["plain"]
	if err := p.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	before := fake.Text(nft.IPv4, tableName)
	fake.Fail = errors.New("no")
	if err := p.Apply(t.Context(), base()); !strings.Contains(fmt.Sprint(err), "no") {
		t.Fatalf("failed commit: %v", err)
	}
	if after := fake.Text(nft.IPv4, tableName); after != before {
		t.Errorf("failed commit changed\n%s\ninto\n%s", before, after)
	}
	for _, spoil := range []func(){func() {}, func() { fake.Lose(nft.IPv4, tableName) }} {
		spoil()
		if err := p.Apply(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if after := fake.Text(nft.IPv4, tableName); after != before {
			t.Errorf("recovered to\n%s\nwant\n%s", after, before)
		}
	}
	if err := p.Remove(t.Context()); err != nil || fake.Text(nft.IPv4, tableName) != "" {
		t.Errorf("Remove: %v, left %q", err, fake.Text(nft.IPv4, tableName))
	}
}

// TestStale says which connections and remembered clients are dropped.
func TestStale(t *testing.T) {
	var fake nft.Fake
	conns := &noConnections{}
	p := newProxy(&fake, conns)
	cfg := base()
	svc := func(ready ...string) Service {
		s := service("demo/dns", "10.96.1.1", Port{Protocol: UDP, Port: 53, NodePort: 30053, Endpoints: endpoints(ready...)})
		s.Affinity = time.Hour
		return s
	}
	conn := func(to, server string) link.Connection {
		return link.Connection{Protocol: 17, Destination: endpoint(to), Server: endpoint(server)}
	}
	step := func(list ...Service) stale {
		t.Helper()
		if p.state == nil {
			p.state = newState(cfg)
		}
		next := cfg
		next.Services = list
		_, left := p.state.advance(next)
		return left
	}
	if s := step(svc("10.244.1.1:53", "10.244.2.1:53")); !s.drops(conn("10.96.1.1:53", "10.96.1.1:53")) || s.drops(conn("10.96.1.1:53", "10.244.2.1:53")) {
		t.Errorf("a new service: %+v", s)
	}
	s := step(svc("10.244.1.1:53"))
	for _, c := range []struct {
		to, server string
		want       bool
	}{
		{"10.96.1.1:53", "10.244.2.1:53", true},
		{"10.0.0.1:30053", "10.244.2.1:53", true},
		{"10.96.1.1:53", "10.244.1.1:53", false},
		{"10.96.1.2:53", "10.244.2.1:53", false},
		{"10.96.1.1:53", "10.96.1.1:53", false},
	} {
		if got := s.drops(conn(c.to, c.server)); got != c.want {
			t.Errorf("drops %s answered by %s: %v", c.to, c.server, got)
		}
	}
	kept := func(ep string) nft.Element {
		return nft.Element{
			Key:   nft.Addr(addr("10.244.1.7")) + front{addr("10.96.1.1"), UDP, 53}.key(),
			Value: nft.Endpoint(endpoint(ep)),
		}
	}
	if !s.forgets(kept("10.244.2.1:53")) || s.forgets(kept("10.244.1.1:53")) {
		t.Error("wrong clients forgotten")
	}
	p.state.cfg.Services = []Service{svc("10.244.1.1:53")}
	strays := p.state.strays()
	for to, want := range map[string]bool{"10.96.1.1:53": true, "10.96.7.7:53": true, "10.96.0.10:53": false, "8.8.8.8:53": false, "10.0.0.1:30053": true, "10.0.0.1:500": false} {
		if got := strays(conn(to, "10.244.2.1:53")); got != want {
			t.Errorf("stray %s: %v", to, got)
		}
	}
}

// many is n services of three endpoints each.
func many(n int) Config {
	cfg := base()
	for i := range n {
		ip := netip.AddrFrom4([4]byte{10, 96, byte(i>>8 + 1), byte(i)})
		cfg.Services = append(cfg.Services, Service{
			Name: fmt.Sprintf("ns/s%05d", i), ClusterIPs: []netip.Addr{ip},
			Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: []netip.AddrPort{
				netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), 80),
				netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), 81),
				netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), 82),
			}}},
		})
	}
	return cfg
}
