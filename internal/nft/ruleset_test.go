package nft

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

// ruleset is what Conn and Fake have in common.
type ruleset interface {
	Commit(ctx context.Context, changes Changes) error
	Intact(ctx context.Context, family Family, table string) (bool, error)
	DropElements(ctx context.Context, family Family, table string, set *Set, drop func(Element) bool) error
}

// TestRulesets takes the kernel and the Fake through the same steps.
func TestRulesets(t *testing.T) {
	t.Run("fake", func(t *testing.T) { testRuleset(t, &Fake{}) })
	t.Run("kernel", func(t *testing.T) {
		c, err := Open(testkit.ScratchNetNS(t).Path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		testRuleset(t, c)
	})
}

func example() *Table {
	front := []Type{TypeAddr, TypeProto, TypePort}
	return &Table{
		Family: IPv4, Name: "wherry-test",
		Sets: []Set{
			{Name: "fronts", Key: front, Verdicts: true, Elements: []Element{
				{Key: key("10.0.0.1", 80), Verdict: Verdict{Action: GoTo, Chain: "pick"}},
				{Key: key("10.0.0.2", 80), Verdict: Verdict{Action: Drop}},
			}},
			{Name: "ends", Key: append(slices.Clone(front), TypeMark), Value: []Type{TypeAddr, TypePort}, Elements: []Element{
				{Key: key("10.0.0.1", 80) + Mark(0), Value: Endpoint(netip.MustParseAddrPort("10.1.0.1:8080"))},
			}},
			{Name: "links", Key: []Type{TypeIfName}, Elements: []Element{{Key: IfName("eth0")}}},
			{Name: "ports", Key: []Type{TypePort}, Elements: []Element{{Key: Port(53)}}},
			{Name: "kept", Key: append([]Type{TypeAddr}, front...), Value: []Type{TypeAddr, TypePort}, Dynamic: true, Size: 100},
		},
		Chains: []Chain{
			{Name: "pre", Hook: &Hook{Type: "nat", At: Prerouting, Priority: PriorityDNAT}, Rules: []Rule{
				{VerdictMap("fronts", Fields(DestinationAddr, L4Proto, DestinationPort)...)},
				{In("links", Fields(InputLink)...), NotIn("ports", Fields(SourcePort)...), Do(Verdict{Action: Return})},
			}},
			{Name: "pick", Rules: []Rule{
				{Remember("kept", Fields(SourceAddr, DestinationAddr, L4Proto, DestinationPort), time.Minute,
					"ends", append(Fields(DestinationAddr, L4Proto, DestinationPort), Random(1)))},
				{TranslateTo("kept", Fields(SourceAddr, DestinationAddr, L4Proto, DestinationPort)...)},
			}},
			{Name: "post", Hook: &Hook{Type: "nat", At: Postrouting, Priority: PrioritySNAT}, Rules: []Rule{
				{HasMark(0x10), Masquerade()}, {Translated(), LinkUnlike(OutputLink, "eth"), Masquerade()},
			}},
			{Name: "in", Hook: &Hook{Type: "filter", At: Prerouting, Priority: PriorityFilter}, Rules: []Rule{
				{Is(L4Proto, Proto(17)), IsNot(DestinationPort, Port(9)), Within(SourceAddr, netip.MustParsePrefix("10.0.0.0/8")), AddMark(0x10)},
				{LinkLike(InputLink, "whp"), SourceElsewhere(), Do(Verdict{Action: Drop})},
				{Outside(SourceAddr, netip.MustParsePrefix("10.0.0.0/32")), ToLocal(), Is(OutputLink, IfName("lo")), RejectTCP()},
				{Is(PacketMark, Mark(7)), RejectICMP()},
			}},
		},
	}
}

func key(a string, port uint16) Data { return Addr(netip.MustParseAddr(a)) + Proto(6) + Port(port) }

func testRuleset(t *testing.T, r ruleset) {
	ctx := t.Context()
	commit := func(c Changes) error { return r.Commit(ctx, c) }
	must := func(c Changes) {
		t.Helper()
		if err := commit(c); err != nil {
			t.Fatal(err)
		}
	}
	intact := func(want bool) {
		t.Helper()
		if got, err := r.Intact(ctx, IPv4, "wherry-test"); got != want || err != nil {
			t.Fatalf("Intact = %v, %v", got, err)
		}
	}
	one := example()
	keys := func(set int) (out []Data) {
		t.Helper()
		err := r.DropElements(ctx, IPv4, "wherry-test", &one.Sets[set], func(e Element) bool {
			out = append(out, e.Key)
			return false
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		return out
	}
	intact(false)
	must(Diff(nil, one))
	must(Diff(nil, one)) // takes over what is there
	intact(true)
	if got, want := keys(0), []Data{key("10.0.0.1", 80), key("10.0.0.2", 80)}; !slices.Equal(got, want) {
		t.Errorf("elements %q, want %q", got, want)
	}

	// All or nothing: a good and a bad change leave nothing.
	good := Elements{&one.Sets[0], []Element{{Key: key("10.0.0.3", 80), Verdict: Verdict{Action: Accept}}}}
	bad := map[string]Changes{
		"missing element": {DelElements: []Elements{{&one.Sets[0], []Element{{Key: key("10.9.9.9", 1)}}}}},
		"missing chain":   {SetRules: []Chain{{Name: "nobody", Rules: one.Chains[0].Rules}}},
		"chain in use":    {DelChains: []string{"pick"}},
		"set in use":      {DelSets: []string{"fronts"}},
		"unknown target":  {AddElements: []Elements{{&one.Sets[0], []Element{{Key: key("10.0.0.4", 80), Verdict: Verdict{Action: GoTo, Chain: "nobody"}}}}}},
		"other value":     {AddElements: []Elements{{&one.Sets[1], []Element{{Key: one.Sets[1].Elements[0].Key, Value: Endpoint(netip.MustParseAddrPort("10.1.0.9:1"))}}}}},
		"short key":       {AddElements: []Elements{{&one.Sets[0], []Element{{Key: "x"}}}}},
	}
	for name, c := range bad {
		c.Family, c.Table = IPv4, "wherry-test"
		c.AddElements = append([]Elements{good}, c.AddElements...)
		if err := commit(c); err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := keys(0); len(got) != 2 {
			t.Errorf("%s: a part was committed: %q", name, got)
		}
	}

	// From one table to another, and back.
	two := example()
	two.Sets[0].Elements = []Element{{Key: key("10.0.0.2", 80), Verdict: Verdict{Action: Jump, Chain: "new"}}}
	two.Sets = slices.Delete(two.Sets, 3, 4)
	two.Chains = slices.Delete(two.Chains, 1, 2)
	two.Chains[0].Rules = two.Chains[0].Rules[:1]
	two.Chains = append(two.Chains, Chain{Name: "new", Rules: []Rule{{Do(Verdict{Action: Accept})}}})
	two.Sets = append(two.Sets, Set{Name: "more", Key: []Type{TypeMark}, Elements: []Element{{Key: Mark(1)}}})
	must(Diff(one, two))
	if got := keys(0); !slices.Equal(got, []Data{key("10.0.0.2", 80)}) {
		t.Errorf("elements after the change: %q", got)
	}
	must(Diff(two, one))
	if got := keys(0); len(got) != 2 {
		t.Errorf("elements after the way back: %q", got)
	}
	if c := Diff(one, example()); !c.Empty() {
		t.Errorf("equal tables differ by %+v", c)
	}

	err := r.DropElements(ctx, IPv4, "wherry-test", &one.Sets[0], func(e Element) bool { return e.Key == key("10.0.0.1", 80) })
	if got := keys(0); err != nil || !slices.Equal(got, []Data{key("10.0.0.2", 80)}) {
		t.Errorf("DropElements left %q (%v)", got, err)
	}

	// More than fits one message of the kernel's.
	many := Elements{Set: &one.Sets[0]}
	for i := range 5000 {
		many.List = append(many.List, Element{Key: key("10.2.0.1", uint16(i+1)), Verdict: Verdict{Action: GoTo, Chain: "pick"}})
	}
	must(Changes{Family: IPv4, Table: "wherry-test", AddElements: []Elements{many}})
	if got := keys(0); len(got) != 5001 {
		t.Errorf("%d elements, want 5001", len(got))
	}
	must(Diff(one, nil))
	must(Diff(one, nil))
	intact(false)

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.Commit(ended, Diff(nil, one)); err == nil {
		t.Error("commits after its context ended")
	}
}

func TestText(t *testing.T) {
	want := `table ip wherry-test {
	map fronts {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = {
			10.0.0.1 . tcp . 80 : goto pick
			10.0.0.2 . tcp . 80 : drop
		}
	}
	map ends {
		type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service
		elements = {
			10.0.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
		}
	}
	set links {
		type ifname
		elements = {
			"eth0"
		}
	}
	set ports {
		type inet_service
		elements = {
			53
		}
	}
	map kept {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		size 100
		flags dynamic, timeout
	}
	chain pre {
		type nat hook prerouting priority -100; policy accept;
		ip daddr . meta l4proto . th dport vmap @fronts
		iifname @links th sport != @ports return
	}
	chain pick {
		update @kept { ip saddr . ip daddr . meta l4proto . th dport timeout 1m0s : ip daddr . meta l4proto . th dport . numgen random mod 1 map @ends }
		dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @kept
	}
	chain post {
		type nat hook postrouting priority 100; policy accept;
		meta mark & 0x10 != 0 masquerade fully-random
		ct status dnat oifname != "eth*" masquerade fully-random
	}
	chain in {
		type filter hook prerouting priority 0; policy accept;
		meta l4proto udp th dport != 9 ip saddr 10.0.0.0/8 meta mark set meta mark | 0x10
		iifname "whp*" fib saddr . iif oif 0 drop
		ip saddr != 10.0.0.0/32 fib daddr type local oifname "lo" meta l4proto tcp reject with tcp reset
		meta mark 7 reject with icmp port-unreachable
	}
}
`
	if got := example().String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
