package network

import (
	"net/netip"
	"testing"

	"github.com/wherry-project/wherry/internal/link"
)

// here is a node with one link, a default route and a gateway.
func here() facts {
	return facts{
		links:     []link.Link{{Index: 1, Name: "lo"}, {Index: 2, Name: "eth0", MTU: 1500}},
		addresses: []link.Address{{Link: 2, Prefix: prefix("10.0.0.1/24")}},
		routes: []link.Route{
			{Destination: prefix("0.0.0.0/0"), Link: 2, Gateway: addr("10.0.0.254")},
			{Destination: prefix("10.0.0.0/24"), Link: 2},
			{Destination: prefix("10.0.0.128/25"), Link: 2, Gateway: addr("10.0.0.254")},
		},
	}
}

func TestRender(t *testing.T) {
	cfg := config(1, 2, 200) // 10.0.0.200 is behind a gateway
	cfg = cfg.withDefaults()
	w, err := plan(cfg, here())
	if err != nil {
		t.Fatal(err)
	}
	want := `table ip wherry-network {
	set remote-nodes {
		type ipv4_addr
		elements = {
			10.0.0.200
		}
	}
	set direct-nodes {
		type ipv4_addr
		elements = {
			10.0.0.2
		}
	}
	chain from-pods {
		type filter hook prerouting priority -300; policy accept;
		iifname "whp*" fib saddr . iif oif 0 drop
	}
	chain vxlan {
		type filter hook input priority 0; policy accept;
		meta l4proto udp th dport 8472 ip saddr != @remote-nodes drop
	}
	chain leaving {
		ip daddr 10.244.0.0/16 return
		ip daddr 10.96.0.0/16 return
		ip daddr 224.0.0.0/4 return
		ip daddr @direct-nodes return
		masquerade fully-random
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		oifname "wherry-vxlan" ip saddr != 10.244.0.0/16 masquerade fully-random
		ip saddr 10.244.1.0/24 goto leaving
	}
}
`
	if got := render(cfg, w).String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	cfg.Masquerade, cfg.Peers = false, nil
	if w, err = plan(cfg, here()); err != nil {
		t.Fatal(err)
	}
	want = `table ip wherry-network {
	set direct-nodes {
		type ipv4_addr
	}
	chain from-pods {
		type filter hook prerouting priority -300; policy accept;
		iifname "whp*" fib saddr . iif oif 0 drop
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
	}
}
`
	if got := render(cfg, w).String(); got != want {
		t.Errorf("alone: got\n%s\nwant\n%s", got, want)
	}
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // of the error; empty is none
		mtu    int
	}{
		"auto":            {func(c *Config) {}, "", 1450},
		"never":           {func(c *Config) { c.Encapsulation = EncapNever; c.Peers = c.Peers[:1] }, "", 1500},
		"given MTU":       {func(c *Config) { c.MTU = 1280 }, "", 1280},
		"off the segment": {func(c *Config) { c.Encapsulation = EncapNever }, "node n200 at 10.0.0.200 is not on a segment of this node, and encapsulation is off: put them on one segment or allow VXLAN", 0},
		"not ours":        {func(c *Config) { c.Address = addr("10.0.0.3") }, "address 10.0.0.3 of this node is on none of its links; give a link that address or advertise another", 0},
		"no range yet":    {func(c *Config) { c.PodCIDRs = nil }, "", 1450},
	} {
		cfg := config(1, 2, 200)
		c.change(&cfg)
		w, err := plan(cfg.withDefaults(), here())
		if got := text(err); got != c.want {
			t.Errorf("%s: error %q, want %q", name, got, c.want)
		} else if w.settings.mtu != c.mtu {
			t.Errorf("%s: MTU %d, want %d", name, w.settings.mtu, c.mtu)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestPool(t *testing.T) {
	var p pool
	if _, err := p.take("early", netip.Addr{}); err == nil {
		t.Error("an address without a range")
	}
	p.setRange(prefix("10.1.0.0/29"))
	var got []netip.Addr
	for _, id := range []string{"a", "b", "c"} {
		a, err := p.take(id, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}
	if got[0] != addr("10.1.0.1") || got[2] != addr("10.1.0.3") {
		t.Errorf("first addresses %v", got)
	}
	p.free("a")
	if a, err := p.take("d", netip.Addr{}); a != addr("10.1.0.4") || err != nil {
		t.Errorf("freed address comes again at once: %v, %v", a, err)
	}
	if a, err := p.take("b", netip.Addr{}); a != addr("10.1.0.2") || err != nil {
		t.Errorf("b got another address: %v, %v", a, err)
	}
	if _, err := p.take("e", addr("10.1.0.3")); err == nil {
		t.Error("an address given twice")
	}
	for _, id := range []string{"f", "g", "h"} {
		if _, err := p.take(id, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := p.take("i", netip.Addr{}); err == nil {
		t.Errorf("seventh of six addresses: %v", a)
	}
	p.free("b")
	p.setRange(prefix("10.2.0.0/29"))
	if a, err := p.take("i", netip.Addr{}); a != addr("10.2.0.1") || err != nil {
		t.Errorf("after the range changed: %v, %v", a, err)
	}
}
