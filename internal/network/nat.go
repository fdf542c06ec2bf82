package network

import (
	"net/netip"
	"slices"

	"github.com/wherry-project/wherry/internal/nft"
)

// render is the table of the network rules:
//
//   - what a pod sends must come from that pod's address;
//   - VXLAN packets are taken from nodes of the cluster only;
//   - pods that call something outside the cluster hide behind the node's
//     address. A node behind VXLAN counts as outside for this: what lies
//     between may not know pod addresses;
//   - what the node itself sends through VXLAN bears its address there, so
//     that the answer takes the same way.
func render(cfg Config, w wanted) *nft.Table {
	t := &nft.Table{Family: nft.IPv4, Name: tableName}
	t.Chains = append(t.Chains, nft.Chain{
		Name:  "from-pods",
		Hook:  &nft.Hook{Type: "filter", At: nft.Prerouting, Priority: nft.PriorityRaw},
		Rules: []nft.Rule{{nft.LinkLike(nft.InputLink, podLinkPrefix), nft.SourceElsewhere(), nft.Do(nft.Verdict{Action: nft.Drop})}},
	})
	if w.vxlan != nil {
		t.Sets = append(t.Sets, addressSet("remote-nodes", w.remote))
		t.Chains = append(t.Chains, nft.Chain{
			Name: "vxlan",
			Hook: &nft.Hook{Type: "filter", At: nft.Input, Priority: nft.PriorityFilter},
			Rules: []nft.Rule{{
				nft.Is(nft.L4Proto, nft.Proto(protoUDP)), nft.Is(nft.DestinationPort, nft.Port(cfg.VXLANPort)),
				nft.NotIn("remote-nodes", nft.Fields(nft.SourceAddr)...), nft.Do(nft.Verdict{Action: nft.Drop}),
			}},
		})
	}
	t.Sets = append(t.Sets, addressSet("direct-nodes", w.direct))
	post := nft.Chain{Name: "postrouting", Hook: &nft.Hook{Type: "nat", At: nft.Postrouting, Priority: nft.PrioritySNAT}}
	if w.vxlan != nil {
		rule := nft.Rule{nft.Is(nft.OutputLink, nft.IfName(vxlanName))}
		for _, p := range podRanges(cfg) {
			rule = append(rule, nft.Outside(nft.SourceAddr, p))
		}
		post.Rules = append(post.Rules, append(rule, nft.Masquerade()))
	}
	if cfg.Masquerade {
		for _, p := range cfg.PodCIDRs {
			post.Rules = append(post.Rules, nft.Rule{nft.Within(nft.SourceAddr, p), nft.Do(nft.Verdict{Action: nft.GoTo, Chain: "leaving"})})
		}
		t.Chains = append(t.Chains, leaving(cfg))
	}
	t.Chains = append(t.Chains, post)
	return t
}

const protoUDP = 17

// leaving masquerades what is not for the cluster.
func leaving(cfg Config) nft.Chain {
	c := nft.Chain{Name: "leaving"}
	stay := nft.Do(nft.Verdict{Action: nft.Return})
	inside := append(podRanges(cfg), cfg.ServiceCIDRs...)
	for _, p := range append(inside, netip.MustParsePrefix("224.0.0.0/4")) {
		c.Rules = append(c.Rules, nft.Rule{nft.Within(nft.DestinationAddr, p), stay})
	}
	return nft.Chain{Name: c.Name, Rules: append(c.Rules,
		nft.Rule{nft.In("direct-nodes", nft.Fields(nft.DestinationAddr)...), stay},
		nft.Rule{nft.Masquerade()},
	)}
}

// podRanges are the ranges of all pods that are known.
func podRanges(cfg Config) []netip.Prefix {
	list := slices.Concat(cfg.ClusterCIDRs, cfg.PodCIDRs)
	for _, p := range cfg.Peers {
		list = append(list, p.PodCIDRs...)
	}
	return merge(list)
}

// merge drops prefixes that lie within others, and sorts.
func merge(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	var out []netip.Prefix
	for _, p := range list {
		if !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Overlaps(p) }) {
			out = append(out, p)
		}
	}
	return out
}

func addressSet(name string, addrs []netip.Addr) nft.Set {
	s := nft.Set{Name: name, Key: []nft.Type{nft.TypeAddr}}
	sorted := slices.Clone(addrs)
	slices.SortFunc(sorted, netip.Addr.Compare)
	for _, a := range slices.Compact(sorted) {
		s.Elements = append(s.Elements, nft.Element{Key: nft.Addr(a)})
	}
	return s
}
