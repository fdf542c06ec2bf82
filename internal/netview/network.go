package netview

import (
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/network"
)

// Network is what the pod network has to be; not ok until this node has a pod
// range. Base has what does not come from the nodes.
func (v *View) Network(base network.Config) (network.Config, bool) {
	cfg := base
	self := v.nodes[v.node]
	if self == nil {
		return cfg, false
	}
	cfg.PodCIDRs = prefixes(self)
	cfg.Peers = nil
	for name, n := range v.nodes {
		a, err := netip.ParseAddr(internalIP(n))
		if name == v.node || err != nil || len(prefixes(n)) == 0 {
			continue
		}
		cfg.Peers = append(cfg.Peers, network.Peer{Name: name, Address: a, PodCIDRs: prefixes(n)})
	}
	sort.Slice(cfg.Peers, func(i, j int) bool { return cfg.Peers[i].Name < cfg.Peers[j].Name })
	return cfg, len(cfg.PodCIDRs) > 0
}

func prefixes(n *corev1.Node) []netip.Prefix {
	list := n.Spec.PodCIDRs
	if len(list) == 0 && n.Spec.PodCIDR != "" {
		list = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// ServiceEnv are the variables that tell a pod of the services of its namespace
// (all, with links) and of the API server.
func (v *View) ServiceEnv(namespace string, links bool) []corev1.EnvVar {
	var names []Name
	for n := range v.services {
		if links && n.Namespace == namespace || n == (Name{"default", "kubernetes"}) {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, compare)
	var out []corev1.EnvVar
	for _, n := range names {
		s := v.services[n]
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		out = append(out, serviceVars(s)...)
	}
	return out
}

func serviceVars(s *corev1.Service) []corev1.EnvVar {
	prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	ip := s.Spec.ClusterIP
	firstPort := strconv.Itoa(int(s.Spec.Ports[0].Port))
	out := []corev1.EnvVar{{Name: prefix + "_SERVICE_HOST", Value: ip}, {Name: prefix + "_SERVICE_PORT", Value: firstPort}}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			out = append(out, corev1.EnvVar{Name: prefix + "_SERVICE_PORT_" + strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), Value: strconv.Itoa(int(p.Port))})
		}
	}
	for i, p := range s.Spec.Ports {
		port, proto := strconv.Itoa(int(p.Port)), strings.ToLower(string(p.Protocol))
		url := proto + "://" + ip + ":" + port
		if i == 0 {
			out = append(out, corev1.EnvVar{Name: prefix + "_PORT", Value: url})
		}
		one := prefix + "_PORT_" + port + "_" + strings.ToUpper(proto)
		out = append(out, corev1.EnvVar{Name: one, Value: url}, corev1.EnvVar{Name: one + "_PROTO", Value: proto},
			corev1.EnvVar{Name: one + "_PORT", Value: port}, corev1.EnvVar{Name: one + "_ADDR", Value: ip})
	}
	return out
}
