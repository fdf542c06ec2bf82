package node

import (
	"net/netip"
	"os"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/dns"
	"github.com/wherry-project/wherry/internal/netview"
	"github.com/wherry-project/wherry/internal/podworker"
)

// clusterFacts tells the pods' workers of the cluster.
type clusterFacts struct{ n *Node }

// ConfigMap implements podworker.Cluster.
func (f clusterFacts) ConfigMap(namespace, name string) (*corev1.ConfigMap, bool) {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	cm, ok := f.n.configMaps[netview.Name{Namespace: namespace, Name: name}]
	return cm, ok
}

// Secret implements podworker.Cluster.
func (f clusterFacts) Secret(namespace, name string) (*corev1.Secret, bool) {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	s, ok := f.n.secrets[netview.Name{Namespace: namespace, Name: name}]
	return s, ok
}

// ServiceEnv implements podworker.Cluster.
func (f clusterFacts) ServiceEnv(pod *corev1.Pod) []corev1.EnvVar {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	return f.n.view.ServiceEnv(pod.Namespace, pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks)
}

// nodeResolvConf is the node's own file; one that cannot be read says nothing.
func (n *Node) nodeResolvConf() dns.ResolvConf {
	f, err := os.Open(n.cfg.ResolvConf)
	if err != nil {
		n.log.Warn("the node's resolv.conf", "err", err)
		return dns.ResolvConf{}
	}
	defer f.Close()
	c, err := dns.ParseResolvConf(f)
	if err != nil {
		n.log.Warn("the node's resolv.conf", "err", err)
	}
	return c
}

// upstreams answer what is not of the cluster.
func (n *Node) upstreams() []netip.AddrPort {
	if len(n.cfg.Upstreams) > 0 {
		return n.cfg.Upstreams
	}
	return n.nodeResolvConf().Resolvers()
}

// ResolvConf implements podworker.Cluster.
func (f clusterFacts) ResolvConf(pod *corev1.Pod) (string, []string) {
	f.n.mu.Lock()
	cluster := f.n.cluster
	f.n.mu.Unlock()
	cfg := dns.PodConfig{Policy: dns.Policy(pod.Spec.DNSPolicy), HostNetwork: pod.Spec.HostNetwork, Namespace: pod.Namespace, Domain: cluster.Domain}
	if a, err := netip.ParseAddr(cluster.DNS); err == nil {
		cfg.Servers = []netip.Addr{a}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		cfg.Nameservers, cfg.Searches = c.Nameservers, c.Searches
		for _, o := range c.Options {
			cfg.Options = append(cfg.Options, dns.Option{Name: o.Name, Value: o.Value})
		}
	}
	conf, warnings := dns.ForPod(cfg, f.n.nodeResolvConf())
	return conf.String(), warnings
}

// Domain implements podworker.Cluster.
func (f clusterFacts) Domain() string {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	return f.n.cluster.Domain
}

// Hosts implements podworker.Cluster.
func (f clusterFacts) Hosts(pod *corev1.Pod, addresses []netip.Addr) string {
	cfg := dns.HostsConfig{
		HostNetwork: pod.Spec.HostNetwork, Addresses: addresses, Hostname: podworker.Hostname(pod),
		Subdomain: pod.Spec.Subdomain, Namespace: pod.Namespace, Domain: f.Domain(),
	}
	if pod.Spec.HostNetwork {
		b, err := os.ReadFile(f.n.cfg.Hosts)
		if err != nil {
			f.n.log.Warn("the node's hosts file", "err", err)
		}
		cfg.NodeFile = string(b)
	}
	for _, a := range pod.Spec.HostAliases {
		cfg.Aliases = append(cfg.Aliases, dns.HostAlias{IP: a.IP, Hostnames: a.Hostnames})
	}
	return dns.Hosts(cfg)
}
