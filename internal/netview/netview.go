// Package netview is what a node knows of the cluster's names and addresses:
// services, endpoint slices, nodes and namespaces, and its own pods. From them
// it derives, as pure functions, what the service rules, the DNS records and
// the pod network have to be.
package netview

import (
	"net/netip"
	"slices"
	"sort"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/wherry-project/wherry/internal/dns"
	"github.com/wherry-project/wherry/internal/svcproxy"
)

// Name is a namespace and a name in it.
type Name struct{ Namespace, Name string }

// View is the node's picture. It is used by one goroutine.
type View struct {
	node       string
	namespaces map[string]bool
	services   map[Name]*corev1.Service
	slices     map[Name]map[string]*discoveryv1.EndpointSlice // by service, by slice
	owners     map[Name]string                                // the service of each slice
	nodes      map[string]*corev1.Node
	pods       map[Name]*corev1.Pod

	// order has the names of the services, sorted; nil when one came or went.
	order []Name
	// rendered keeps what each service became, until it or its slices change.
	rendered map[Name]svcproxy.Service
	records  *dns.Records
	stale    map[Name]bool   // services whose records have to be made anew
	spaces   map[string]bool // namespaces that came or went
	clean    bool            // records show everything but stale and spaces
}

// New makes an empty view of a node.
func New(node string) *View {
	v := &View{node: node}
	v.Reset()
	return v
}

// Reset forgets everything: a full set follows.
func (v *View) Reset() {
	v.namespaces, v.services = map[string]bool{}, map[Name]*corev1.Service{}
	v.owners, v.order = map[Name]string{}, nil
	v.slices, v.nodes = map[Name]map[string]*discoveryv1.EndpointSlice{}, map[string]*corev1.Node{}
	v.pods, v.rendered = map[Name]*corev1.Pod{}, map[Name]svcproxy.Service{}
	v.stale, v.spaces, v.clean = map[Name]bool{}, map[string]bool{}, false
}

// PutService adds or replaces a service.
func (v *View) PutService(s *corev1.Service) {
	n := Name{s.Namespace, s.Name}
	if v.services[n] == nil {
		v.order = nil
	}
	v.services[n] = s
	v.touch(n)
}

// DeleteService removes a service; its slices go by themselves.
func (v *View) DeleteService(namespace, name string) {
	n := Name{namespace, name}
	delete(v.services, n)
	v.order = nil
	v.touch(n)
}

func (v *View) touch(n Name) {
	delete(v.rendered, n)
	v.stale[n] = true
}

// PutSlice adds or replaces an endpoint slice.
func (v *View) PutSlice(s *discoveryv1.EndpointSlice) {
	owner := s.Labels[discoveryv1.LabelServiceName]
	if v.owners[Name{s.Namespace, s.Name}] != owner {
		v.DeleteSlice(s.Namespace, s.Name)
	}
	if owner == "" {
		return
	}
	n := Name{s.Namespace, owner}
	if v.slices[n] == nil {
		v.slices[n] = map[string]*discoveryv1.EndpointSlice{}
	}
	v.slices[n][s.Name] = s
	v.owners[Name{s.Namespace, s.Name}] = owner
	v.touch(n)
}

// DeleteSlice removes an endpoint slice.
func (v *View) DeleteSlice(namespace, name string) {
	owner, ok := v.owners[Name{namespace, name}]
	if !ok {
		return
	}
	delete(v.owners, Name{namespace, name})
	n := Name{namespace, owner}
	if delete(v.slices[n], name); len(v.slices[n]) == 0 {
		delete(v.slices, n)
	}
	v.touch(n)
}

// PutNode adds or replaces a node and reports whether that concerns the
// network: other nodes' status changes do not.
func (v *View) PutNode(n *corev1.Node) bool {
	old := v.nodes[n.Name]
	v.nodes[n.Name] = n
	return old == nil || internalIP(old) != internalIP(n) || !slices.Equal(prefixes(old), prefixes(n))
}

// DeleteNode removes a node.
func (v *View) DeleteNode(name string) { delete(v.nodes, name) }

// Self is the node's own object, nil if it is not known.
func (v *View) Self() *corev1.Node { return v.nodes[v.node] }

// PutNamespace adds a namespace.
func (v *View) PutNamespace(name string) {
	if !v.namespaces[name] {
		v.namespaces[name] = true
		v.spaces[name] = true
	}
}

// DeleteNamespace removes a namespace.
func (v *View) DeleteNamespace(name string) {
	delete(v.namespaces, name)
	v.spaces[name] = true
}

// PutPod adds or replaces one of the node's own pods, with its address here,
// and reports whether that concerns host ports.
func (v *View) PutPod(p *corev1.Pod) bool {
	n := Name{p.Namespace, p.Name}
	old := v.pods[n]
	v.pods[n] = p
	return hasHostPorts(p) || old != nil && hasHostPorts(old)
}

// DeletePod removes one of the node's own pods, and reports the same.
func (v *View) DeletePod(namespace, name string) bool {
	n := Name{namespace, name}
	old := v.pods[n]
	delete(v.pods, n)
	return old != nil && hasHostPorts(old)
}

func internalIP(n *corev1.Node) string {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}

// sortedSlices gives a service's slices in a steady order.
func (v *View) sortedSlices(n Name) []*discoveryv1.EndpointSlice {
	list := make([]*discoveryv1.EndpointSlice, 0, len(v.slices[n]))
	for _, s := range v.slices[n] {
		list = append(list, s)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// addresses parses those that are addresses.
func addresses(list []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func hasHostPorts(p *corev1.Pod) bool {
	for _, c := range longRunning(p) {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				return true
			}
		}
	}
	return false
}

// longRunning are the containers that may listen: also sidecars.
func longRunning(p *corev1.Pod) []corev1.Container {
	var out []corev1.Container
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	return append(out, p.Spec.Containers...)
}
