package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

var _ api.Backends = (*Server)(nil)

// nodedPort is where noded serves by itself.
const nodedPort = 10250

// Backend implements api.Backends.
func (s *Server) Backend(ctx context.Context, resource, namespace, name, port string) (api.Backend, error) {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return api.Backend{}, err
	}
	switch resource {
	case "pods":
		return podBackend(snap, namespace, name, port)
	case "services":
		return s.serviceBackend(snap, namespace, name, port)
	case "nodes":
		return nodeBackend(snap, name, port)
	}
	return api.Backend{}, apierr.BadRequest("%s have no proxy; pods, services and nodes do", resource)
}

// DialBackend implements api.Backends.
func (s *Server) DialBackend(ctx context.Context, b api.Backend) (net.Conn, error) {
	open := &wherryv1.DialOpen{Address: b.Address}
	if b.Noded {
		open = &wherryv1.DialOpen{Noded: true}
	}
	return s.dial(ctx, b.Node, open)
}

// podBackend is a port of a pod's address; if none is named, the first that
// its containers have.
func podBackend(snap *store.Snapshot, namespace, name, port string) (api.Backend, error) {
	p, err := store.Get[*corev1.Pod](snap, api.Key{Resource: "pods", Namespace: namespace, Name: name})
	if err != nil {
		return api.Backend{}, err
	}
	if port == "" {
		for i := range p.Spec.Containers {
			if ports := p.Spec.Containers[i].Ports; len(ports) > 0 {
				port = strconv.Itoa(int(ports[0].ContainerPort))
				break
			}
		}
	}
	if p.Spec.NodeName == "" || p.Status.PodIP == "" {
		return api.Backend{}, apierr.Unavailable("pod %q has no address yet", name)
	}
	return reachable(p.Spec.NodeName, p.Status.PodIP, port)
}

// nodeBackend is noded itself, or another port of the node's address.
func nodeBackend(snap *store.Snapshot, name, port string) (api.Backend, error) {
	n, err := store.Get[*corev1.Node](snap, api.Key{Resource: "nodes", Name: name})
	if err != nil {
		return api.Backend{}, err
	}
	host := ""
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			host = a.Address
			break
		}
	}
	if own := strconv.Itoa(nodedPort); port == "" || port == own {
		if host == "" {
			host = name
		}
		return api.Backend{Node: name, Address: net.JoinHostPort(host, own), Noded: true}, nil
	}
	if host == "" {
		return api.Backend{}, apierr.Unavailable("node %q has no address yet", name)
	}
	return reachable(name, host, port)
}

// serviceBackend is one of the ready endpoints of a service, one whose node has
// a session here if there is any.
func (s *Server) serviceBackend(snap *store.Snapshot, namespace, name, port string) (api.Backend, error) {
	svc, err := store.Get[*corev1.Service](snap, api.Key{Resource: "services", Namespace: namespace, Name: name})
	if err != nil {
		return api.Backend{}, err
	}
	portName, err := portOf(svc, port)
	if err != nil {
		return api.Backend{}, err
	}
	all, err := endpointsOf(snap, svc, portName)
	if err != nil {
		return api.Backend{}, err
	}
	if len(all) == 0 {
		return api.Backend{}, apierr.Unavailable("no endpoints available for service %q", name)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	chosen := all[0]
	for _, b := range all {
		if s.connected(b.Node) {
			chosen = b
			break
		}
	}
	if chosen.Node == "" { // no pod of ours: any node may know the way
		nodes := s.Nodes()
		if len(nodes) == 0 {
			return api.Backend{}, apierr.Unavailable("no node has a session with this control plane member, so it cannot reach service %q", name)
		}
		chosen.Node = nodes[rand.IntN(len(nodes))]
	}
	return chosen, allowed(chosen.Address)
}

// connected reports whether a node has a session here; the node of an endpoint
// that names none is found later.
func (s *Server) connected(node string) bool {
	if node == "" {
		return true
	}
	_, err := s.session(node)
	return err == nil
}

// portOf is the name of a service's port that is asked for by name or number.
func portOf(svc *corev1.Service, port string) (string, error) {
	if port == "" && len(svc.Spec.Ports) == 1 {
		return svc.Spec.Ports[0].Name, nil
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return port, nil
	}
	for _, p := range svc.Spec.Ports {
		if int64(p.Port) == n {
			return p.Name, nil
		}
	}
	return "", apierr.Unavailable("no service port %d found for service %q", n, svc.Name)
}

// endpointsOf lists the ready endpoints of a port.
func endpointsOf(snap *store.Snapshot, svc *corev1.Service, port string) ([]api.Backend, error) {
	var out []api.Backend
	for r := range snap.Scan("endpointslices.discovery.k8s.io", svc.Namespace, api.Key{}) {
		if r.Index.Labels[discoveryv1.LabelServiceName] != svc.Name {
			continue
		}
		slice, err := store.Get[*discoveryv1.EndpointSlice](snap, r.Key)
		if err != nil {
			return nil, err
		}
		for _, p := range slice.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != port || p.Name == nil && port != "" {
				continue
			}
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready || len(e.Addresses) == 0 {
					continue
				}
				b := api.Backend{Address: net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port)))}
				if e.NodeName != nil {
					b.Node = *e.NodeName
				}
				out = append(out, b)
			}
		}
	}
	return out, nil
}

// reachable makes a backend of an address and a port.
func reachable(node, host, port string) (api.Backend, error) {
	if port == "" {
		port = "80"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return api.Backend{}, apierr.BadRequest("port %q: must be a number from 1 to 65535", port)
	}
	b := api.Backend{Node: node, Address: net.JoinHostPort(host, port)}
	return b, allowed(b.Address)
}

// allowed refuses addresses that mean something else on each machine: through
// them one would get at what listens on the node alone.
func allowed(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return apierr.BadRequest("address not allowed: %w", err)
	}
	ip := ap.Addr().Unmap()
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return apierr.BadRequest("address not allowed")
	}
	return nil
}

// describe names a connection's node and address for errors.
func describe(node string, d *wherryv1.DialOpen) string {
	if d.GetNoded() {
		return fmt.Sprintf("%s/noded", node)
	}
	return fmt.Sprintf("%s/%s", node, d.GetAddress())
}
