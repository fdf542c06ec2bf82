package dns

import (
	"net/netip"
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// Records is all that the cluster's names mean at one moment. It never changes;
// Edit makes another. The nil Records is empty.
//
// Names are kept in lower case. The trees are persistent: versions share what
// they have in common.
type Records struct {
	namespaces *iradix.Tree[struct{}]
	services   *iradix.Tree[*service] // "namespace/name"
	pods       *iradix.Tree[Pod]      // "namespace/name"
	reverse    *iradix.Tree[string]   // address, 0, "s" and service or "e", service and host; value: name below svc
	podIPs     *iradix.Tree[struct{}] // "namespace/", address, 0, name
}

// service is a service made ready for answering.
type service struct {
	Service
	key   string // namespace/name
	below string // name.namespace.svc, without the domain
	hosts []host // endpoints that are published, by name
}

// host is a name below a service with all endpoints that have it.
type host struct {
	name      string
	endpoints []Endpoint
}

func emptyRecords() *Records {
	return &Records{
		namespaces: iradix.New[struct{}](), services: iradix.New[*service](), pods: iradix.New[Pod](),
		reverse: iradix.New[string](), podIPs: iradix.New[struct{}](),
	}
}

// NewRecords returns the records of a whole cluster.
func NewRecords(namespaces []string, services []Service, pods []Pod) *Records {
	e := emptyRecords().Edit()
	for _, n := range namespaces {
		e.PutNamespace(n)
	}
	for _, s := range services {
		e.PutService(s)
	}
	for _, p := range pods {
		e.PutPod(p)
	}
	return e.Records()
}

// Edit starts a change of r that shares with r what stays.
func (r *Records) Edit() *Edit {
	if r == nil {
		r = emptyRecords()
	}
	return &Edit{
		namespaces: r.namespaces.Txn(), services: r.services.Txn(), pods: r.pods.Txn(),
		reverse: r.reverse.Txn(), podIPs: r.podIPs.Txn(),
	}
}

// Edit collects changes to Records. It is used by one goroutine.
type Edit struct {
	namespaces *iradix.Txn[struct{}]
	services   *iradix.Txn[*service]
	pods       *iradix.Txn[Pod]
	reverse    *iradix.Txn[string]
	podIPs     *iradix.Txn[struct{}]
}

// PutNamespace adds a namespace.
func (e *Edit) PutNamespace(name string) {
	e.namespaces.Insert([]byte(strings.ToLower(name)), struct{}{})
}

// DeleteNamespace removes a namespace, not the services in it.
func (e *Edit) DeleteNamespace(name string) { e.namespaces.Delete([]byte(strings.ToLower(name))) }

// PutService adds or replaces a service with its endpoints.
func (e *Edit) PutService(s Service) {
	e.DeleteService(s.Namespace, s.Name)
	c := compile(s)
	e.services.Insert([]byte(c.key), c)
	c.eachReverse(func(key []byte, name string) { e.reverse.Insert(key, name) })
}

// DeleteService removes a service.
func (e *Edit) DeleteService(namespace, name string) {
	old, ok := e.services.Delete(objectKey(namespace, name))
	if ok {
		old.eachReverse(func(key []byte, _ string) { e.reverse.Delete(key) })
	}
}

// PutPod adds or replaces a pod's addresses.
func (e *Edit) PutPod(p Pod) {
	e.DeletePod(p.Namespace, p.Name)
	p.Addresses = slices.Clone(p.Addresses)
	e.pods.Insert(objectKey(p.Namespace, p.Name), p)
	for _, a := range p.Addresses {
		e.podIPs.Insert(append(podKey(p.Namespace, a), strings.ToLower(p.Name)...), struct{}{})
	}
}

// DeletePod removes a pod's addresses.
func (e *Edit) DeletePod(namespace, name string) {
	p, ok := e.pods.Delete(objectKey(namespace, name))
	if !ok {
		return
	}
	for _, a := range p.Addresses {
		e.podIPs.Delete(append(podKey(namespace, a), strings.ToLower(name)...))
	}
}

// Records returns the changed records. The Edit may go on.
func (e *Edit) Records() *Records {
	return &Records{
		namespaces: e.namespaces.CommitOnly(), services: e.services.CommitOnly(), pods: e.pods.CommitOnly(),
		reverse: e.reverse.CommitOnly(), podIPs: e.podIPs.CommitOnly(),
	}
}

// compile lower-cases names, drops what is not published and groups endpoints
// by name.
func compile(s Service) *service {
	s.Namespace, s.Name = strings.ToLower(s.Namespace), strings.ToLower(s.Name)
	s.ClusterIPs = slices.Clone(s.ClusterIPs)
	s.Ports = lowerPorts(s.Ports)
	c := &service{Service: s, key: string(objectKey(s.Namespace, s.Name)), below: s.Name + "." + s.Namespace + ".svc"}
	c.Endpoints = nil
	if s.ExternalName != "" {
		c.ClusterIPs, c.Headless = nil, false
		return c
	}
	at := map[string]int{}
	for _, ep := range s.Endpoints {
		if !ep.Ready && !s.PublishNotReady || !ep.Address.IsValid() {
			continue
		}
		ep.Address = ep.Address.Unmap()
		ep.Hostname = strings.ToLower(ep.Hostname)
		ep.Ports = lowerPorts(ep.Ports)
		name := ep.Hostname
		if name == "" {
			name = dashed(ep.Address)
		}
		i, ok := at[name]
		if !ok {
			i = len(c.hosts)
			at[name] = i
			c.hosts = append(c.hosts, host{name: name})
		}
		c.hosts[i].add(ep)
	}
	return c
}

// add merges an endpoint: slices may name one address twice, with other ports.
func (h *host) add(ep Endpoint) {
	for i, have := range h.endpoints {
		if have.Address == ep.Address {
			for _, p := range ep.Ports {
				if !slices.Contains(have.Ports, p) {
					h.endpoints[i].Ports = append(h.endpoints[i].Ports, p)
				}
			}
			return
		}
	}
	h.endpoints = append(h.endpoints, ep)
}

// host returns the host of that name, or nil.
func (s *service) host(name string) *host {
	for i := range s.hosts {
		if s.hosts[i].name == name {
			return &s.hosts[i]
		}
	}
	return nil
}

// eachReverse calls f for all addresses that lead back to the service.
func (s *service) eachReverse(f func(key []byte, name string)) {
	for _, a := range s.ClusterIPs {
		f(append(append(addressKey(a), 's'), s.key...), s.below)
	}
	if !s.Headless {
		return
	}
	for _, h := range s.hosts {
		for _, ep := range h.endpoints {
			key := append(append(addressKey(ep.Address), 'e'), s.key...)
			f(append(append(key, '/'), h.name...), h.name+"."+s.below)
		}
	}
}

// hasNamespace reports whether a namespace exists, by itself or by a service.
func (r *Records) hasNamespace(name string) bool {
	if _, ok := r.namespaces.Get([]byte(name)); ok {
		return true
	}
	return hasPrefix(r.services, []byte(name+"/"))
}

func (r *Records) service(namespace, name string) *service {
	s, _ := r.services.Get(objectKey(namespace, name))
	return s
}

// names returns what an address is called, below the domain: by the services
// that have it or, if none has, by the endpoints that are it.
func (r *Records) names(a netip.Addr) []string {
	for _, kind := range "se" {
		var out []string
		it := r.reverse.Root().Iterator()
		it.SeekPrefix(append(addressKey(a), byte(kind)))
		for _, name, ok := it.Next(); ok; _, name, ok = it.Next() {
			out = append(out, name)
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// hasPod reports whether a pod of the namespace has the address.
func (r *Records) hasPod(namespace string, a netip.Addr) bool {
	return hasPrefix(r.podIPs, podKey(namespace, a))
}

func hasPrefix[T any](t *iradix.Tree[T], prefix []byte) bool {
	it := t.Root().Iterator()
	it.SeekPrefix(prefix)
	_, _, ok := it.Next()
	return ok
}

func objectKey(namespace, name string) []byte {
	return []byte(strings.ToLower(namespace) + "/" + strings.ToLower(name))
}

// addressKey is the same for an IPv4 address in either form, and no prefix of
// another.
func addressKey(a netip.Addr) []byte { b := a.As16(); return b[:] }

func podKey(namespace string, a netip.Addr) []byte {
	return append([]byte(strings.ToLower(namespace)+"/"), addressKey(a)...)
}

func lowerPorts(in []Port) []Port {
	out := slices.Clone(in)
	for i, p := range out {
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		out[i].Name, out[i].Protocol = strings.ToLower(p.Name), strings.ToLower(p.Protocol)
	}
	return out
}

// dashed returns an address as one label.
func dashed(a netip.Addr) string {
	if a.Is4() {
		return strings.ReplaceAll(a.String(), ".", "-")
	}
	s := strings.ReplaceAll(a.WithZone("").String(), ":", "-")
	if strings.HasSuffix(s, "-") {
		s += "0" // a label does not end with a dash
	}
	return s
}

// undashed returns the address that a label spells.
func undashed(s string) (netip.Addr, bool) {
	if strings.Count(s, "-") == 3 && !strings.Contains(s, "--") {
		if a, err := netip.ParseAddr(strings.ReplaceAll(s, "-", ".")); err == nil {
			return a, true
		}
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(s, "-", ":"))
	return a, err == nil && a.Is6()
}
