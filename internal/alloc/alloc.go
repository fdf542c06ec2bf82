// Package alloc gives out what must be unique in the cluster: service
// addresses, node ports, and the nodes' pod ranges. What is taken is a record
// of its own in the store, written in the same command as the object that has
// it, so that two writers can never be given the same.
package alloc

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

// The resources under which taken values are kept. They are not served.
const (
	addresses = "addresses.internal.wherry"
	ports     = "nodeports.internal.wherry"
	ranges    = "podranges.internal.wherry"
)

// Config holds the ranges. They are fixed for a cluster's life.
type Config struct {
	// Services are the addresses of services (IPv4).
	Services netip.Prefix
	// Pods is the range of all pods, cut into ranges of NodeBits for nodes.
	Pods     netip.Prefix
	NodeBits int
	// FirstPort and LastPort bound node ports, inclusive.
	FirstPort, LastPort int32
	// DNS is the address of the cluster's DNS, kept for kube-system/kube-dns.
	DNS netip.Addr
}

// Validate tells what is wrong with the ranges.
func (c Config) Validate() error {
	switch {
	case !c.Services.IsValid() || !c.Services.Addr().Is4() || c.Services.Bits() > 28:
		return fmt.Errorf("service range %s: want an IPv4 range of /28 or larger", c.Services)
	case !c.Pods.IsValid() || !c.Pods.Addr().Is4():
		return fmt.Errorf("pod range %s: want an IPv4 range", c.Pods)
	case c.NodeBits < c.Pods.Bits() || c.NodeBits > 30:
		return fmt.Errorf("a node's pod range of /%d does not fit into %s", c.NodeBits, c.Pods)
	case c.FirstPort < 1 || c.LastPort > 65535 || c.FirstPort > c.LastPort:
		return fmt.Errorf("node ports %d-%d: want a range within 1-65535", c.FirstPort, c.LastPort)
	case !c.Services.Contains(c.DNS):
		return fmt.Errorf("DNS address %s is not in the service range %s", c.DNS, c.Services)
	}
	return nil
}

// Allocator gives out addresses, ports and ranges.
type Allocator struct{ cfg Config }

// New makes an allocator of a valid Config.
func New(cfg Config) *Allocator { return &Allocator{cfg} }

// ServiceRange holds the addresses of services.
func (a *Allocator) ServiceRange() netip.Prefix { return a.cfg.Services }

// First is the service address of default/kubernetes.
func (a *Allocator) First() netip.Addr { return nth(a.cfg.Services, 1) }

// Service completes svc's addresses and node ports, and returns the changes
// that take what is new and free what old had and svc no longer has.
func (a *Allocator) Service(s *store.Snapshot, svc, old *corev1.Service) ([]store.Change, field.ErrorList) {
	var had, want []store.Change
	if old != nil {
		had = a.Release(old)
	}
	owner := "services/" + svc.Namespace + "/" + svc.Name
	has := map[api.Key]bool{}
	for _, c := range had {
		has[c.Key] = true
	}
	if errs := a.address(s, svc, owner, has, &want); len(errs) > 0 {
		return nil, errs
	}
	if errs := a.nodePorts(s, svc, owner, has, &want); len(errs) > 0 {
		return nil, errs
	}
	return difference(had, want), nil
}

func (a *Allocator) address(s *store.Snapshot, svc *corev1.Service, owner string, has map[api.Key]bool, want *[]store.Change) field.ErrorList {
	path := field.NewPath("spec", "clusterIPs")
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "", nil
		svc.Spec.IPFamilies, svc.Spec.IPFamilyPolicy = nil, nil
		return nil
	}
	if svc.Spec.ClusterIP == "" && len(svc.Spec.ClusterIPs) > 0 {
		svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		svc.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
		return nil
	}
	if svc.Spec.ClusterIP == "" {
		free, ok := a.freeAddress(s, has)
		if !ok {
			return field.ErrorList{field.InternalError(path, fmt.Errorf("failed to allocate IP: range %s is full", a.cfg.Services))}
		}
		svc.Spec.ClusterIP = free.String()
	} else {
		ip, err := netip.ParseAddr(svc.Spec.ClusterIP)
		if err != nil {
			return field.ErrorList{field.Invalid(path, svc.Spec.ClusterIPs, "must be a valid IP address")}
		}
		if !a.cfg.Services.Contains(ip) {
			return field.ErrorList{field.Invalid(path, []string{ip.String()}, fmt.Sprintf("failed to allocate IP %s: the provided IP (%s) is not in the valid range. The range of valid IPs is %s", ip, ip, a.cfg.Services))}
		}
		key := api.Key{Resource: addresses, Name: ip.String()}
		if r, taken := s.Get(key); taken && !has[key] && string(r.Bytes) != owner {
			return field.ErrorList{field.Invalid(path, []string{ip.String()}, fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated", ip))}
		}
	}
	svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	single := corev1.IPFamilyPolicySingleStack
	if svc.Spec.IPFamilyPolicy == nil {
		svc.Spec.IPFamilyPolicy = &single
	}
	if len(svc.Spec.IPFamilies) == 0 {
		svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	*want = append(*want, take(addresses, svc.Spec.ClusterIP, owner))
	return nil
}

// freeAddress prefers the upper band: the lower one is for those who choose.
func (a *Allocator) freeAddress(s *store.Snapshot, has map[api.Key]bool) (netip.Addr, bool) {
	size := uint32(1) << (32 - a.cfg.Services.Bits())
	low := min(max(16, size/16), 256)
	for _, band := range [][2]uint32{{low, size - 1}, {1, low}} {
		n := band[1] - band[0]
		if n == 0 || band[1] <= band[0] {
			continue
		}
		start := rand.Uint32N(n)
		for i := range n {
			ip := nth(a.cfg.Services, band[0]+(start+i)%n)
			key := api.Key{Resource: addresses, Name: ip.String()}
			if _, taken := s.Get(key); !taken && !has[key] && ip != a.cfg.DNS && ip != a.First() {
				return ip, true
			}
		}
	}
	return netip.Addr{}, false
}

func (a *Allocator) nodePorts(s *store.Snapshot, svc *corev1.Service, owner string, has map[api.Key]bool, want *[]store.Change) field.ErrorList {
	var errs field.ErrorList
	if svc.Spec.Type != corev1.ServiceTypeNodePort && svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		for i := range svc.Spec.Ports {
			svc.Spec.Ports[i].NodePort = 0
		}
		return nil
	}
	mine := map[string]bool{}
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			mine[portName(p.Protocol, p.NodePort)] = true
		}
	}
	byNumber := map[int32]int32{} // same number for TCP and UDP of one port
	skip := svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.AllocateLoadBalancerNodePorts != nil && !*svc.Spec.AllocateLoadBalancerNodePorts
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
		switch {
		case p.NodePort != 0:
			key := api.Key{Resource: ports, Name: portName(p.Protocol, p.NodePort)}
			r, taken := s.Get(key)
			if p.NodePort < a.cfg.FirstPort || p.NodePort > a.cfg.LastPort {
				errs = append(errs, field.Invalid(path, p.NodePort, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", a.cfg.FirstPort, a.cfg.LastPort)))
				continue
			}
			if taken && !has[key] && string(r.Bytes) != owner {
				errs = append(errs, field.Invalid(path, p.NodePort, "provided port is already allocated"))
				continue
			}
		case skip:
			continue
		default:
			n, ok := a.freePort(s, p.Protocol, mine, byNumber[p.Port])
			if !ok {
				return append(errs, field.InternalError(path, fmt.Errorf("failed to allocate a nodePort: range is full")))
			}
			p.NodePort = n
		}
		byNumber[p.Port] = p.NodePort
		mine[portName(p.Protocol, p.NodePort)] = true
		*want = append(*want, take(ports, portName(p.Protocol, p.NodePort), owner))
	}
	return errs
}

func (a *Allocator) freePort(s *store.Snapshot, proto corev1.Protocol, mine map[string]bool, like int32) (int32, bool) {
	free := func(n int32) bool {
		name := portName(proto, n)
		_, taken := s.Get(api.Key{Resource: ports, Name: name})
		return !taken && !mine[name]
	}
	if like != 0 && free(like) {
		return like, true
	}
	size := a.cfg.LastPort - a.cfg.FirstPort + 1
	low := min(max(16, size/32), 128, size)
	for _, band := range [][2]int32{{low, size}, {0, low}} {
		n := band[1] - band[0]
		if n <= 0 {
			continue
		}
		start := rand.Int32N(n)
		for i := range n {
			if p := a.cfg.FirstPort + band[0] + (start+i)%n; free(p) {
				return p, true
			}
		}
	}
	return 0, false
}

// Node gives a node its pod range if it has none.
func (a *Allocator) Node(s *store.Snapshot, n *corev1.Node) ([]store.Change, field.ErrorList) {
	owner := "nodes/" + n.Name
	path := field.NewPath("spec", "podCIDR")
	if n.Spec.PodCIDR != "" {
		p, err := netip.ParsePrefix(n.Spec.PodCIDR)
		if err != nil || p.Bits() != a.cfg.NodeBits || !a.cfg.Pods.Contains(p.Addr()) || p.Masked() != p {
			return nil, field.ErrorList{field.Invalid(path, n.Spec.PodCIDR, fmt.Sprintf("must be a /%d range within %s", a.cfg.NodeBits, a.cfg.Pods))}
		}
		if _, taken := s.Get(api.Key{Resource: ranges, Name: rangeName(n.Spec.PodCIDR)}); taken {
			return nil, field.ErrorList{field.Invalid(path, n.Spec.PodCIDR, "is already given to another node")}
		}
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
		return []store.Change{take(ranges, rangeName(n.Spec.PodCIDR), owner)}, nil
	}
	step := uint32(1) << (32 - a.cfg.NodeBits)
	for i := range uint32(1) << (a.cfg.NodeBits - a.cfg.Pods.Bits()) {
		p := netip.PrefixFrom(nth(a.cfg.Pods, i*step), a.cfg.NodeBits)
		if _, taken := s.Get(api.Key{Resource: ranges, Name: rangeName(p.String())}); !taken {
			n.Spec.PodCIDR, n.Spec.PodCIDRs = p.String(), []string{p.String()}
			return []store.Change{take(ranges, rangeName(p.String()), owner)}, nil
		}
	}
	return nil, field.ErrorList{field.InternalError(path, fmt.Errorf("no range of /%d is left in %s", a.cfg.NodeBits, a.cfg.Pods))}
}

// Release gives the changes that free all that a deleted object had.
func (a *Allocator) Release(obj api.Object) []store.Change {
	var out []store.Change
	switch o := obj.(type) {
	case *corev1.Service:
		if ip := o.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
			out = append(out, free(addresses, ip))
		}
		for _, p := range o.Spec.Ports {
			if p.NodePort != 0 {
				out = append(out, free(ports, portName(p.Protocol, p.NodePort)))
			}
		}
	case *corev1.Node:
		if o.Spec.PodCIDR != "" {
			out = append(out, free(ranges, rangeName(o.Spec.PodCIDR)))
		}
	}
	return out
}

// difference drops what is both had and wanted.
func difference(had, want []store.Change) []store.Change {
	keep := map[api.Key]bool{}
	var out []store.Change
	for _, w := range want {
		keep[w.Key] = true
	}
	mine := map[api.Key]bool{}
	for _, h := range had {
		mine[h.Key] = true
		if !keep[h.Key] {
			out = append(out, h)
		}
	}
	for _, w := range want {
		if !mine[w.Key] {
			out = append(out, w)
		}
	}
	return out
}

func take(resource, name, owner string) store.Change {
	key := api.Key{Resource: resource, Name: name}
	return store.Change{Op: store.Put, If: store.Cond{Absent: true}, Key: key, Record: &api.Record{Key: key, Bytes: []byte(owner)}}
}

func free(resource, name string) store.Change {
	return store.Change{Op: store.Delete, Key: api.Key{Resource: resource, Name: name}}
}

func portName(p corev1.Protocol, n int32) string { return fmt.Sprintf("%s-%d", p, n) }

func rangeName(cidr string) string {
	out := []byte(cidr)
	for i, b := range out {
		if b == '/' {
			out[i] = '-'
		}
	}
	return string(out)
}

// nth is the n-th address of an IPv4 range.
func nth(p netip.Prefix, n uint32) netip.Addr {
	b := p.Masked().Addr().As4()
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(out)
}
