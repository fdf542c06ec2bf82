package svcproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/wherry-project/wherry/internal/nft"
)

const (
	tableName = "wherry-services"
	// hideMark marks packets whose source must be hidden behind the node, so
	// that the answer comes back this way; it is of no use outside this table.
	hideMark = 0x4000
)

// The sets that are always there.
const (
	setServices     = "services"      // address, protocol, port → chain
	setNodePorts    = "node-ports"    // protocol, port → chain
	setHostPorts    = "host-ports"    // protocol, port → endpoint
	setHostPortsAt  = "host-ports-at" // address, protocol, port → endpoint
	setNodes        = "node-addresses"
	setUntranslated = "untranslated"
	setHairpin      = "hairpin"  // a local endpoint, twice
	setAffinity     = "affinity" // client, address, protocol, port → endpoint
	chainRefuse     = "refuse"
)

func fixedSet(name string) nft.Set {
	front := []nft.Type{nft.TypeAddr, nft.TypeProto, nft.TypePort}
	endpoint := []nft.Type{nft.TypeAddr, nft.TypePort}
	switch name {
	case setServices:
		return nft.Set{Name: name, Key: front, Verdicts: true}
	case setNodePorts:
		return nft.Set{Name: name, Key: front[1:], Verdicts: true}
	case setHostPorts:
		return nft.Set{Name: name, Key: front[1:], Value: endpoint}
	case setHostPortsAt:
		return nft.Set{Name: name, Key: front, Value: endpoint}
	case setHairpin:
		return nft.Set{Name: name, Key: []nft.Type{nft.TypeAddr, nft.TypeAddr}}
	case setAffinity:
		return nft.Set{
			Name: name, Key: append([]nft.Type{nft.TypeAddr}, front...), Value: endpoint, Dynamic: true,
		}
	}
	return nft.Set{Name: name, Key: []nft.Type{nft.TypeAddr}}
}

// frame is the table without any service.
func frame(cfg *Config) *nft.Table {
	t := &nft.Table{Family: nft.IPv4, Name: tableName}
	for _, name := range []string{
		setServices, setNodePorts, setHostPorts, setHostPortsAt, setNodes, setUntranslated, setHairpin, setAffinity,
	} {
		s := fixedSet(name)
		switch name {
		case setNodes:
			s.Elements = addresses(cfg.NodeAddresses)
		case setUntranslated:
			s.Elements = addresses(cfg.Untranslated)
		}
		t.Sets = append(t.Sets, s)
	}
	jump := nft.Rule{nft.Do(nft.Verdict{Action: nft.Jump, Chain: "services"})}
	t.Chains = []nft.Chain{
		{Name: "prerouting", Hook: &nft.Hook{Type: "nat", At: nft.Prerouting, Priority: nft.PriorityDNAT}, Rules: []nft.Rule{jump}},
		{Name: "output", Hook: &nft.Hook{Type: "nat", At: nft.Output, Priority: nft.PriorityDNAT}, Rules: []nft.Rule{jump}},
		{Name: "postrouting", Hook: &nft.Hook{Type: "nat", At: nft.Postrouting, Priority: nft.PrioritySNAT}, Rules: []nft.Rule{
			{nft.HasMark(hideMark), nft.Masquerade()},
			{nft.Translated(), nft.In(setHairpin, nft.Fields(nft.SourceAddr, nft.DestinationAddr)...), nft.Masquerade()},
		}},
		{Name: "stray-prerouting", Hook: &nft.Hook{Type: "filter", At: nft.Prerouting, Priority: nft.PriorityFilter}, Rules: strays(cfg)},
		{Name: "stray-output", Hook: &nft.Hook{Type: "filter", At: nft.Output, Priority: nft.PriorityFilter}, Rules: strays(cfg)},
		{Name: chainRefuse, Rules: []nft.Rule{{nft.RejectTCP()}, {nft.RejectICMP()}}},
		{Name: "services", Rules: entry(cfg)},
	}
	return t
}

// entry is the way of the first packet of every connection.
func entry(cfg *Config) []nft.Rule {
	front := nft.Fields(nft.DestinationAddr, nft.L4Proto, nft.DestinationPort)
	node := nft.Fields(nft.DestinationAddr)
	rules := []nft.Rule{
		{nft.In(setUntranslated, node...), nft.Do(nft.Verdict{Action: nft.Return})},
		{nft.VerdictMap(setServices, front...)},
		{nft.TranslateTo(setHostPortsAt, front...)},
		{nft.Outside(nft.DestinationAddr, netip.MustParsePrefix("127.0.0.0/8")), nft.ToLocal(), nft.TranslateTo(setHostPorts, front[1:]...)},
		{nft.In(setNodes, node...), nft.VerdictMap(setNodePorts, front[1:]...)},
	}
	for _, p := range cfg.ServiceCIDRs {
		rules = append(rules, nft.Rule{nft.Within(nft.DestinationAddr, p), nft.Do(nft.Verdict{Action: nft.GoTo, Chain: chainRefuse})})
	}
	return rules
}

// strays drops packets to service addresses that belong to no connection that
// was translated: nobody has such an address.
func strays(cfg *Config) []nft.Rule {
	var rules []nft.Rule
	for _, p := range cfg.ServiceCIDRs {
		rules = append(rules, nft.Rule{
			nft.Within(nft.DestinationAddr, p), nft.NotIn(setUntranslated, nft.Fields(nft.DestinationAddr)...),
			nft.Do(nft.Verdict{Action: nft.Drop}),
		})
	}
	return rules
}

func addresses(list []netip.Addr) []nft.Element {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, netip.Addr.Compare)
	var out []nft.Element
	for _, a := range slices.Compact(sorted) {
		out = append(out, nft.Element{Key: nft.Addr(a)})
	}
	return out
}

// choice is a way to choose one of n endpoints. All services that need the
// same way share its chain, and all with the same n and kind of front a map.
type choice struct {
	n      int
	node   bool          // for node ports, whose key has no address
	sticky time.Duration // session affinity
	hide   bool          // hide the source first
}

func (c choice) mapName() string {
	if c.node {
		return fmt.Sprintf("node-endpoints-%d", c.n)
	}
	return fmt.Sprintf("endpoints-%d", c.n)
}

func (c choice) mapSet() nft.Set {
	key := []nft.Type{nft.TypeAddr, nft.TypeProto, nft.TypePort, nft.TypeMark}
	if c.node {
		key = key[1:]
	}
	return nft.Set{Name: c.mapName(), Key: key, Value: []nft.Type{nft.TypeAddr, nft.TypePort}}
}

func (c choice) chainName() string {
	name := "pick"
	if c.sticky > 0 {
		name = "keep"
	}
	if c.node {
		name = "node-" + name
	}
	if c.hide {
		name = "hide-" + name
	}
	name = fmt.Sprintf("%s-%d", name, c.n)
	if c.sticky > 0 {
		name += fmt.Sprintf("-%ds", int(c.sticky.Seconds()))
	}
	return name
}

func (c choice) chain() nft.Chain {
	fields := []nft.Field{nft.DestinationAddr, nft.L4Proto, nft.DestinationPort}
	if c.node {
		fields = fields[1:]
	}
	key := append(nft.Fields(fields...), nft.Random(c.n))
	ch := nft.Chain{Name: c.chainName()}
	if c.hide {
		ch.Rules = append(ch.Rules, nft.Rule{nft.AddMark(hideMark)})
	}
	if c.sticky > 0 {
		client := nft.Fields(nft.SourceAddr, nft.DestinationAddr, nft.L4Proto, nft.DestinationPort)
		ch.Rules = append(ch.Rules,
			nft.Rule{nft.Remember(setAffinity, client, c.sticky, c.mapName(), key)},
			nft.Rule{nft.TranslateTo(setAffinity, client...)},
		)
	}
	// For a sticky one this is reached when no more clients can be remembered.
	ch.Rules = append(ch.Rules, nft.Rule{nft.TranslateTo(c.mapName(), key...)})
	return ch
}
