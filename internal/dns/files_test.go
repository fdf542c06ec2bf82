package dns

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func val(s string) *string { return &s }

func TestForPod(t *testing.T) {
	node := ResolvConf{Nameservers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"corp.test", "test"}, Options: []string{"timeout:1", "rotate"}}
	base := PodConfig{Namespace: "shop", Domain: "cluster.local", Servers: addrs("10.96.0.10")}
	for name, c := range map[string]struct {
		change func(*PodConfig)
		want   string
	}{
		"cluster first": {func(p *PodConfig) { p.Policy = ClusterFirst },
			"nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.test test\noptions ndots:5\n"},
		"policy left out": {func(p *PodConfig) {},
			"nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.test test\noptions ndots:5\n"},
		"host network": {func(p *PodConfig) { p.Policy, p.HostNetwork = ClusterFirst, true },
			"nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch corp.test test\noptions timeout:1 rotate\n"},
		"host network, asked for": {func(p *PodConfig) { p.Policy, p.HostNetwork = ClusterFirstWithHostNet, true },
			"nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.test test\noptions ndots:5\n"},
		"default": {func(p *PodConfig) { p.Policy = Default },
			"nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch corp.test test\noptions timeout:1 rotate\n"},
		"none": {func(p *PodConfig) {
			p.Policy, p.Nameservers, p.Searches, p.Options = None, []string{"198.51.100.1"}, []string{"a.test", "."}, []Option{{"edns0", nil}, {"ndots", val("2")}}
		}, "nameserver 198.51.100.1\nsearch a.test .\noptions edns0 ndots:2\n"},
		"merged": {func(p *PodConfig) {
			p.Nameservers, p.Searches, p.Options = []string{"10.96.0.10", "198.51.100.1"}, []string{"test", "x_y.test"}, []Option{{"ndots", val("2")}, {"edns0", nil}}
		}, "nameserver 10.96.0.10\nnameserver 198.51.100.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.test test x_y.test\noptions ndots:2 edns0\n"},
	} {
		p := base
		c.change(&p)
		got, said := ForPod(p, node)
		if got.String() != c.want || len(said) > 0 {
			t.Errorf("%s:\n%swant\n%s(%v)", name, got, c.want, said)
		}
	}
	if node.Options[0] != "timeout:1" {
		t.Error("the node's own configuration was changed")
	}
}

func TestForPodLimits(t *testing.T) {
	p := PodConfig{Policy: None, Nameservers: []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"}}
	for i := range 40 {
		p.Searches = append(p.Searches, fmt.Sprintf("s%d.test", i))
	}
	c, said := ForPod(p, ResolvConf{})
	if len(c.Nameservers) != 3 || len(c.Searches) != 32 || len(said) != 2 ||
		said[0] != "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1.1.1.1 2.2.2.2 3.3.3.3" ||
		!strings.HasPrefix(said[1], "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: s0.test s1.test") {
		t.Errorf("%v\n%q", c, said)
	}
	long := strings.Repeat("a", 200)
	p.Searches = nil
	for i := range 12 {
		p.Searches = append(p.Searches, fmt.Sprint(i, long))
	}
	c, said = ForPod(p, ResolvConf{})
	if n := len(strings.Join(c.Searches, " ")); n > 2048 || len(c.Searches) != 10 || len(said) != 2 {
		t.Errorf("%d search paths of %d characters", len(c.Searches), n)
	}
}

func TestParseResolvConf(t *testing.T) {
	got, err := ParseResolvConf(strings.NewReader(`# by hand
nameserver 192.0.2.1 # first
nameserver	2001:db8::1
nameserver 192.0.2.1
domain old.test
search corp.test. . x.test
options ndots:2 rotate
options timeout:3
sortlist 192.0.2.0
nameserver
`))
	want := ResolvConf{Nameservers: []string{"192.0.2.1", "2001:db8::1"}, Searches: []string{"corp.test", ".", "x.test"}, Options: []string{"ndots:2", "rotate", "timeout:3"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if r := got.Resolvers(); len(r) != 2 || r[1] != netip.MustParseAddrPort("[2001:db8::1]:53") {
		t.Errorf("resolvers %v", r)
	}
	if again, _ := ParseResolvConf(strings.NewReader(got.String())); !reflect.DeepEqual(again, want) {
		t.Errorf("its own text reads as %+v", again)
	}
	if _, err := ParseResolvConf(strings.NewReader(strings.Repeat("#", maxResolvConf+1))); err == nil {
		t.Error("a huge file was taken")
	}
}

func TestNodeResolvConf(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := func() string {
		t.Helper()
		c, err := NodeResolvConf(root)
		if err != nil || len(c.Nameservers) == 0 {
			t.Fatalf("%+v, %v", c, err)
		}
		return c.Nameservers[0]
	}
	if _, err := NodeResolvConf(root); err == nil {
		t.Error("no file, no error")
	}
	write("etc/resolv.conf", "nameserver 127.0.0.53\n")
	if got := first(); got != "127.0.0.53" {
		t.Errorf("a stub alone: %s", got)
	}
	write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n")
	if got := first(); got != "192.0.2.1" {
		t.Errorf("behind the stub: %s", got)
	}
	write("etc/resolv.conf", "nameserver 192.0.2.2\n")
	if got := first(); got != "192.0.2.2" {
		t.Errorf("no stub: %s", got)
	}
}

func TestHosts(t *testing.T) {
	const head = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
	aliases := []HostAlias{{"192.0.2.1", []string{"a.test", "b.test"}}, {"192.0.2.2", []string{"c.test"}}}
	const added = "\n# Entries added by HostAliases.\n192.0.2.1\ta.test\tb.test\n192.0.2.2\tc.test\n"
	for name, c := range map[string]struct {
		cfg  HostsConfig
		want string
	}{
		"plain":         {HostsConfig{Addresses: addrs("10.244.1.5"), Hostname: "web-1"}, head + "10.244.1.5\tweb-1\n"},
		"with a name":   {HostsConfig{Addresses: addrs("10.244.1.5", "fd01::5"), Hostname: "db-0", Subdomain: "db", Namespace: "shop", Domain: "cluster.local"}, head + "10.244.1.5\tdb-0.db.shop.svc.cluster.local\tdb-0\nfd01::5\tdb-0.db.shop.svc.cluster.local\tdb-0\n"},
		"with aliases":  {HostsConfig{Addresses: addrs("10.244.1.5"), Hostname: "web-1", Aliases: aliases}, head + "10.244.1.5\tweb-1\n" + added},
		"host network":  {HostsConfig{HostNetwork: true, NodeFile: "127.0.0.1 localhost n1", Aliases: aliases}, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost n1\n" + added},
		"host, no file": {HostsConfig{HostNetwork: true}, "# Kubernetes-managed hosts file (host network).\n"},
	} {
		if got := Hosts(c.cfg); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

func TestDashedNames(t *testing.T) {
	for addr, want := range map[string]string{"10.1.2.3": "10-1-2-3", "fd00::1": "fd00--1", "fd00::": "fd00--0", "::1": "--1", "::ffff:10.1.2.3": "10-1-2-3"} {
		a := netip.MustParseAddr(addr).Unmap()
		if got := dashed(a); got != want {
			t.Errorf("dashed(%s) = %s", addr, got)
		}
		if back, ok := undashed(want); !ok || back != a {
			t.Errorf("undashed(%s) = %v", want, back)
		}
	}
	for _, s := range []string{"", "a", "1-2-3", "1-2-3-4-5", "256-1-1-1", "web-0", "1--2-3"} {
		if a, ok := undashed(s); ok && a.Is4() {
			t.Errorf("undashed(%q) = %v", s, a)
		}
	}
}
