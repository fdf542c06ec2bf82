package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/nft"
)

// Apply makes the kernel's state that of cfg: routes, VXLAN, masquerade, held
// addresses, forwarding. It looks at the kernel each time, so applying the
// same cfg again repairs what others took away, and otherwise changes nothing.
func (n *Network) Apply(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	n.applying.Lock()
	defer n.applying.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := n.look()
	if err != nil {
		return err
	}
	w, err := plan(cfg, f)
	if err != nil {
		return err
	}
	// The rules come first: no packet of a pod may leave before them.
	if err := n.applyNAT(ctx, render(cfg, w)); err != nil {
		return err
	}
	// A link sends redirects if it or "all" says so: other links keep theirs.
	err = n.links.SetSysctls(link.Sysctl{Name: "net/ipv4/ip_forward", Value: "1"}, noRedirects("all"))
	if err != nil {
		return fmt.Errorf("switch forwarding on: %w", err)
	}
	if err := n.reconcile(w); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = w.settings
	if len(cfg.PodCIDRs) > 0 {
		n.addrs.setRange(cfg.PodCIDRs[0])
	}
	return nil
}

func (n *Network) look() (f facts, err error) {
	if f.links, err = n.links.Links(); err != nil {
		return f, err
	}
	if f.addresses, err = n.links.Addresses(); err != nil {
		return f, err
	}
	f.routes, err = n.links.Routes(link.AnyProtocol)
	return f, err
}

func (n *Network) applyNAT(ctx context.Context, want *nft.Table) error {
	if n.nat != nil {
		ok, err := n.rules.Intact(ctx, want.Family, want.Name)
		if err != nil {
			return fmt.Errorf("check network rules: %w", err)
		}
		if !ok {
			n.nat = nil // somebody took it; make it anew
		}
	}
	if err := n.rules.Commit(ctx, nft.Diff(n.nat, want)); err != nil {
		n.nat = nil // whatever is there, the next Apply replaces it
		return fmt.Errorf("commit network rules: %w", err)
	}
	n.nat = want
	return nil
}

// reconcile makes links, addresses, neighbours and routes those of w: what is
// new before what uses it, what is gone after.
func (n *Network) reconcile(w wanted) error {
	f, err := n.look()
	if err != nil {
		return err
	}
	index, err := n.applyVXLAN(f, w.vxlan)
	if err != nil {
		return err
	}
	w.bind(index)
	if err := n.applyAddresses(f, w, index); err != nil {
		return err
	}
	if w.vxlan != nil {
		if err := n.applyNeighbours(w, index); err != nil {
			return err
		}
	}
	if err := n.applyRoutes(w); err != nil {
		return err
	}
	return n.removeOrphans(f)
}

// bind puts the index of the VXLAN device where it belongs.
func (w *wanted) bind(index int) {
	for i := range w.addresses {
		if w.addresses[i].Link == viaVXLAN {
			w.addresses[i].Link = index
		}
	}
	for i := range w.routes {
		if w.routes[i].Link == viaVXLAN {
			w.routes[i].Link = index
		}
	}
	for i := range w.neighs {
		w.neighs[i].Link = index
	}
	for i := range w.forwards {
		w.forwards[i].Link = index
	}
}

// applyVXLAN makes the VXLAN device, makes it anew if it is another, or
// removes it. It returns its index.
func (n *Network) applyVXLAN(f facts, want *device) (int, error) {
	have, ok := f.byName(vxlanName)
	if ok && (want == nil || have.VXLAN == nil || *have.VXLAN != want.spec || !bytes.Equal(have.MAC, want.mac)) {
		if err := n.links.Delete(vxlanName); err != nil {
			return 0, err
		}
		ok = false
	}
	if want == nil {
		return 0, nil
	}
	if !ok {
		if err := n.links.AddVXLAN(vxlanName, want.mac, want.mtu, want.spec); err != nil {
			return 0, err
		}
		var err error
		if have, ok, err = n.links.Find(vxlanName); err != nil || !ok {
			return 0, errors.Join(fmt.Errorf("VXLAN device %s is gone again", vxlanName), err)
		}
	}
	if have.MTU != want.mtu {
		if err := n.links.SetMTU(vxlanName, want.mtu); err != nil {
			return 0, err
		}
	}
	if !have.Up {
		if err := n.links.SetUpIndex(have.Index); err != nil {
			return 0, err
		}
	}
	return have.Index, nil
}

func (n *Network) applyAddresses(f facts, w wanted, vxlan int) error {
	want := make(map[link.Address]bool, len(w.addresses))
	for _, a := range w.addresses {
		a.Label = ""
		want[a] = true
	}
	for _, a := range f.addresses {
		key := a
		key.Label = ""
		if want[key] {
			delete(want, key)
			continue
		}
		if a.Label == loLabel || vxlan != 0 && a.Link == vxlan {
			if err := n.links.DeleteAddress(a); err != nil {
				return err
			}
		}
	}
	for _, a := range w.addresses {
		key := a
		key.Label = ""
		if want[key] {
			if err := n.links.AddAddress(a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Network) applyNeighbours(w wanted, index int) error {
	have, err := n.links.Neighbours(index)
	if err != nil {
		return err
	}
	err = converge(have, w.neighs, neighbourKey, n.links.SetNeighbour, n.links.DeleteNeighbour)
	if err != nil {
		return err
	}
	fdb, err := n.links.Forwards(index)
	if err != nil {
		return err
	}
	return converge(fdb, w.forwards, forwardKey, n.links.SetForward, n.links.DeleteForward)
}

// converge adds what is wanted and not there, and deletes what is there and not
// wanted. Setting replaces an entry of the same key, so additions go first and
// only what nobody replaced is deleted.
func converge[T any](have, want []T, key func(T) (id, all string), set, del func(T) error) error {
	there := make(map[string]string, len(have))
	for _, h := range have {
		id, all := key(h)
		there[id] = all
	}
	keep := make(map[string]bool, len(want))
	for _, x := range want {
		id, all := key(x)
		keep[id] = true
		if there[id] != all {
			if err := set(x); err != nil {
				return err
			}
		}
	}
	for _, h := range have {
		if id, _ := key(h); !keep[id] {
			if err := del(h); err != nil {
				return err
			}
		}
	}
	return nil
}

func neighbourKey(n link.Neighbour) (id, all string) {
	return n.Address.String(), n.Address.String() + n.MAC.String()
}

// forwardKey: a node that changed its address has another MAC too, so one
// entry per MAC is enough to know.
func forwardKey(f link.Forward) (id, all string) {
	return f.MAC.String(), f.MAC.String() + f.Host.String()
}

func routeKey(r link.Route) (id, all string) {
	return r.Destination.String(), fmt.Sprint(r)
}

// applyRoutes sets the routes to other nodes and services, and moves the
// pods' routes to the node's source address. Routes of others are refused, not
// replaced.
func (n *Network) applyRoutes(w wanted) error {
	f, err := n.look() // after the VXLAN device may have come or gone
	if err != nil {
		return err
	}
	pods := f.podLinks()
	var have []link.Route
	foreign := make(map[string]link.Route)
	want := w.routes
	for _, r := range f.routes {
		id, _ := routeKey(r)
		switch {
		case r.Protocol != protocol:
			if r.Metric == 0 {
				foreign[id] = r
			}
		case pods[r.Link]:
			if r.Source != w.settings.source && w.settings.ready {
				r.Source = w.settings.source
				if err := n.links.AddRoute(r); err != nil {
					return err
				}
			}
		default:
			have = append(have, r)
		}
	}
	for _, r := range want {
		id, _ := routeKey(r)
		if o, ok := foreign[id]; ok {
			return fmt.Errorf("a route to %s that Wherry did not make is in the way (link %d, protocol %d): delete it, "+
				"or choose other pod and service ranges", id, o.Link, o.Protocol)
		}
	}
	return converge(have, want, routeKey, n.links.AddRoute, n.links.DeleteRoute)
}

// removeOrphans deletes pod links that an Attach left half made when its
// process was killed.
func (n *Network) removeOrphans(f facts) error {
	for _, l := range f.links {
		if _, ok := parseAlias(l.Alias); ok || !f.podLinks()[l.Index] || n.isBusy(l.Name) {
			continue
		}
		if err := n.links.Delete(l.Name); err != nil {
			return err
		}
	}
	return nil
}
