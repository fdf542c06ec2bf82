package node

import (
	"cmp"
	"context"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/dns"
	"github.com/wherry-project/wherry/internal/netview"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/svcproxy"
)

// keepNetwork makes the pod network what the view says, and tries again while
// that fails.
func (n *Node) keepNetwork(ctx context.Context) {
	again := time.NewTicker(repairEvery)
	defer again.Stop()
	for n.changed(ctx, n.netChanged, again.C) {
		n.mu.Lock()
		cfg, ok := n.view.Network(n.networkBase())
		n.mu.Unlock()
		if !ok {
			continue
		}
		if err := n.parts.Network.Apply(ctx, cfg); err != nil {
			n.log.Error("pod network", "err", err)
			n.again(ctx, n.netChanged)
			continue
		}
		n.startDNS(ctx)
		n.mu.Lock()
		first := !n.ready
		n.ready = true
		var start []*corev1.Pod
		if first {
			for _, p := range n.pods {
				start = append(start, p)
			}
		}
		for _, p := range start {
			n.workLocked(p)
		}
		n.mu.Unlock()
		if first {
			n.log.Info("pod network stands", "range", cfg.PodCIDRs, "peers", len(cfg.Peers))
			signal(n.nodeChanged)
		}
	}
}

// changed waits for a signal, or for the time to look again; not ok when ctx
// ended.
func (n *Node) changed(ctx context.Context, c <-chan struct{}, due <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c:
	case <-due:
	}
	return true
}

// again signals after a pause.
func (n *Node) again(ctx context.Context, c chan struct{}) {
	n.group.Go(func() {
		t := time.NewTimer(time.Second)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
			signal(c)
		}
	})
}

func (n *Node) networkBase() network.Config {
	cfg := network.Config{Address: n.cfg.Address, Masquerade: true}
	cfg.ClusterCIDRs = prefix(n.cluster.PodCIDR)
	cfg.ServiceCIDRs = prefix(n.cluster.ServiceCIDR)
	if a, err := netip.ParseAddr(n.cluster.DNS); err == nil {
		cfg.LocalAddresses = []netip.Addr{a}
	}
	return cfg
}

func prefix(text string) []netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return nil
	}
	return []netip.Prefix{p}
}

// keepProxy makes the service rules what the view says.
func (n *Node) keepProxy(ctx context.Context) {
	again := time.NewTicker(repairEvery)
	defer again.Stop()
	told := map[svcproxy.Problem]bool{}
	for n.changed(ctx, n.proxyChanged, again.C) {
		n.mu.Lock()
		local := svcproxy.Config{ServiceCIDRs: prefix(n.cluster.ServiceCIDR), NodeAddresses: []netip.Addr{n.cfg.Address}}
		if a, err := netip.ParseAddr(n.cluster.DNS); err == nil {
			local.Untranslated = []netip.Addr{a}
		}
		if self, ok := n.view.Network(network.Config{}); ok {
			local.LocalPodCIDRs = self.PodCIDRs
		}
		cfg := n.view.Proxy(local)
		known := n.joined
		n.mu.Unlock()
		if !known {
			continue
		}
		if err := n.parts.Proxy.Apply(ctx, cfg); err != nil {
			n.log.Error("service rules", "err", err)
			n.again(ctx, n.proxyChanged)
			continue
		}
		told = n.tellProblems(told)
	}
}

// tellProblems makes Events of what the service rules cannot do, once for each,
// as soon as its service is known. told says of each that was logged whether its
// Event was made.
func (n *Node) tellProblems(told map[svcproxy.Problem]bool) map[svcproxy.Problem]bool {
	now := map[svcproxy.Problem]bool{}
	for _, p := range n.parts.Proxy.Problems() {
		done, logged := told[p]
		if now[p] = done; done {
			continue
		}
		if !logged {
			n.log.Warn("service rules leave something out", "service", p.Service, "what", p.What)
		}
		ns, name, _ := strings.Cut(p.Service, "/")
		n.mu.Lock()
		s := n.services[netview.Name{Namespace: ns, Name: name}]
		n.mu.Unlock()
		if s != nil {
			n.events.Event(s, corev1.EventTypeWarning, "ServiceRulesIncomplete", p.What)
			now[p] = true
		}
	}
	return now
}

// startDNS opens the node's DNS once its address is there.
func (n *Node) startDNS(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, err := netip.ParseAddr(n.cluster.DNS)
	if n.dns != nil || err != nil {
		return
	}
	s, err := dns.Open(dns.Config{Domain: n.cluster.Domain, Listen: []netip.AddrPort{netip.AddrPortFrom(a, cmp.Or(n.cfg.DNSPort, 53))}})
	if err != nil {
		n.log.Error("DNS", "err", err)
		n.again(ctx, n.netChanged)
		return
	}
	if own := s.SetUpstreams(n.upstreams()); len(own) > 0 {
		n.log.Warn("resolvers left out: they are this DNS itself", "resolvers", own)
	}
	s.SetRecords(n.view.Records())
	n.dns = s
	n.group.Go(func() {
		if err := s.Run(ctx); err != nil {
			n.log.Error("DNS stopped", "err", err)
			n.mu.Lock()
			n.dns = nil
			n.mu.Unlock()
			n.again(ctx, n.netChanged)
		}
	})
}
