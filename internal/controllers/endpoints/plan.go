package endpoints

import (
	"fmt"
	"sort"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wherry-project/wherry/internal/podstate"
)

// perSlice is how many endpoints one slice holds.
const perSlice = 100

// group is what shares slices: endpoints with the same ports.
type group struct {
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint // sorted by address
}

// actions are what makes the slices right.
type actions struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// grouped are the endpoints of a Service's pods by the ports that they have:
// a named target port may be another number in each pod, or missing.
func grouped(svc *corev1.Service, pods []*corev1.Pod, zones map[string]string) []group {
	byPorts := map[string]*group{}
	for _, p := range pods {
		if p.Status.PodIP == "" || podstate.Done(p) {
			continue
		}
		ports := portsOf(svc, p)
		key := fmt.Sprint(portKeys(ports))
		g := byPorts[key]
		if g == nil {
			g = &group{ports: ports}
			byPorts[key] = g
		}
		g.endpoints = append(g.endpoints, endpoint(svc, p, zones[p.Spec.NodeName]))
	}
	var keys []string
	for k := range byPorts {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var out []group
	for _, k := range keys {
		g := byPorts[k]
		sort.Slice(g.endpoints, func(i, j int) bool { return identity(&g.endpoints[i]) < identity(&g.endpoints[j]) })
		out = append(out, *g)
	}
	return out
}

func portKeys(ports []discoveryv1.EndpointPort) []string {
	var out []string
	for _, p := range ports {
		out = append(out, fmt.Sprintf("%s/%s/%d", *p.Name, *p.Protocol, *p.Port))
	}
	return out
}

// portsOf are a Service's ports as a pod has them; a port that the pod does not
// have is left out.
func portsOf(svc *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		number, ok := target(sp, p)
		if !ok {
			continue
		}
		name, proto := sp.Name, sp.Protocol
		out = append(out, discoveryv1.EndpointPort{Name: &name, Protocol: &proto, Port: &number, AppProtocol: sp.AppProtocol})
	}
	return out
}

// target is the number of a Service's port in a pod.
func target(sp *corev1.ServicePort, p *corev1.Pod) (int32, bool) {
	switch {
	case sp.TargetPort.Type == intstr.String:
		for _, c := range p.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
					return cp.ContainerPort, true
				}
			}
		}
		for _, c := range p.Spec.InitContainers {
			if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				continue
			}
			for _, cp := range c.Ports {
				if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
					return cp.ContainerPort, true
				}
			}
		}
		return 0, false
	case sp.TargetPort.IntVal != 0:
		return sp.TargetPort.IntVal, true
	}
	return sp.Port, true
}

// endpoint shows a pod.
func endpoint(svc *corev1.Service, p *corev1.Pod, zone string) discoveryv1.Endpoint {
	serving, ending := podstate.Ready(p), p.DeletionTimestamp != nil
	ready := svc.Spec.PublishNotReadyAddresses || serving && !ending
	node := p.Spec.NodeName
	e := discoveryv1.Endpoint{
		Addresses:  []string{p.Status.PodIP},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &ending},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if node != "" {
		e.NodeName = &node
	}
	if zone != "" {
		e.Zone = &zone
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == svc.Name {
		name := p.Spec.Hostname
		e.Hostname = &name
	}
	return e
}

// plan distributes the endpoints over slices: each stays where it is, new ones
// fill what has room, and slices that became empty go. A Service without any
// endpoint keeps one empty slice, which says just that.
func plan(svc *corev1.Service, groups []group, have []*discoveryv1.EndpointSlice) actions {
	var a actions
	if len(groups) == 0 && len(svc.Spec.Selector) > 0 {
		groups = []group{{}}
	}
	used := map[string]bool{}
	for _, g := range groups {
		var mine []*discoveryv1.EndpointSlice
		for _, s := range have {
			if !used[s.Name] && s.DeletionTimestamp == nil && samePorts(s.Ports, g.ports) {
				used[s.Name] = true
				mine = append(mine, s)
			}
		}
		a.distribute(svc, g, mine)
	}
	for _, s := range have {
		if !used[s.Name] {
			a.remove = append(a.remove, s)
		}
	}
	return a
}

func samePorts(a, b []discoveryv1.EndpointPort) bool {
	return len(a) == 0 && len(b) == 0 || equality.Semantic.DeepEqual(a, b)
}

// distribute gives a group's endpoints to its slices.
func (a *actions) distribute(svc *corev1.Service, g group, mine []*discoveryv1.EndpointSlice) {
	want := map[string]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		want[identity(&e)] = e
	}
	kept := make([][]discoveryv1.Endpoint, len(mine))
	for i, s := range mine {
		for _, e := range s.Endpoints {
			if w, ok := want[identity(&e)]; ok {
				kept[i] = append(kept[i], w)
				delete(want, identity(&e))
			}
		}
	}
	var rest []discoveryv1.Endpoint
	for _, e := range g.endpoints {
		if _, ok := want[identity(&e)]; ok {
			rest = append(rest, e)
		}
	}
	for i := range mine {
		n := min(len(rest), perSlice-len(kept[i]))
		kept[i] = append(kept[i], rest[:max(n, 0)]...)
		rest = rest[max(n, 0):]
	}
	for len(rest) > 0 {
		n := min(len(rest), perSlice)
		a.create = append(a.create, fresh(g.ports, rest[:n]))
		rest = rest[n:]
	}
	if len(mine)+len(a.create) == 0 {
		a.create = append(a.create, fresh(g.ports, nil))
	}
	wanted := labelsOf(svc)
	empty := len(g.endpoints) == 0
	for i, s := range mine {
		switch {
		case len(kept[i]) == 0 && (!empty || i > 0):
			a.remove = append(a.remove, s)
		case !sameEndpoints(kept[i], s.Endpoints) || !equality.Semantic.DeepEqual(wanted, s.Labels):
			next := s.DeepCopy()
			next.Endpoints, next.Labels = kept[i], wanted
			a.update = append(a.update, next)
		}
	}
}

// identity tells endpoints apart: pods on the host's network share an address.
func identity(e *discoveryv1.Endpoint) string {
	if e.TargetRef == nil || len(e.Addresses) == 0 {
		return "" // not made here
	}
	return e.Addresses[0] + " " + string(e.TargetRef.UID)
}

func fresh(ports []discoveryv1.EndpointPort, list []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: ports, Endpoints: list}
}
