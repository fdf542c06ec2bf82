package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/netns"
)

// gateway is the next hop of every pod. It is nobody's address: a permanent
// neighbour says that it is the node's end of the link.
var gateway = netip.AddrFrom4([4]byte{169, 254, 1, 1})

const (
	podLink     = "eth0"
	aliasFormat = "wherry/1"
	maxID       = 100
)

// Attach gives a pod its namespace, link and address. A pod that is attached
// already is returned as it is; one half attached is made anew.
// The kind of the error is ErrUnavailable before the first Apply and when the
// range has no free address, ErrConflict when cfg.Address belongs to another.
func (n *Network) Attach(ctx context.Context, cfg PodConfig) (Pod, error) {
	if err := validID(cfg.ID); err != nil {
		return Pod{}, err
	}
	if err := ctx.Err(); err != nil {
		return Pod{}, err
	}
	p, set, there, err := n.begin(cfg)
	if err != nil {
		return Pod{}, fmt.Errorf("attach pod %s: %w", cfg.ID, err)
	}
	if there {
		if ok, err := n.stillThere(p); err != nil || ok {
			n.end(p, true)
			return p, err
		}
	}
	if err := n.build(ctx, p, set); err != nil {
		defer n.end(p, false)
		// A namespace that held a running pod stays: only its link was lost.
		undo := n.links.Delete(p.Link)
		if !there {
			undo = n.tearDown(p.ID, p.Link)
		}
		return Pod{}, fmt.Errorf("attach pod %s: %w", cfg.ID, errors.Join(err, undo))
	}
	n.end(p, true)
	return p, nil
}

// begin takes an address and marks the link as being made. there reports
// whether the pod is attached already.
func (n *Network) begin(cfg PodConfig) (p Pod, set settings, there bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p, there = n.pods[cfg.ID]; there && cfg.Address.IsValid() && cfg.Address != p.Address {
		return p, set, there, apierr.New(apierr.ErrConflict, "it has address %v, not %v", p.Address, cfg.Address)
	}
	if !n.now.ready {
		return p, set, there, apierr.Unavailable("the node's network is not configured yet")
	}
	if !there {
		p = Pod{ID: cfg.ID, NetNS: cfg.NetNS, Link: linkName(cfg.ID)}
		if p.Address, err = n.addrs.take(cfg.ID, cfg.Address); err != nil {
			return p, set, there, err
		}
	}
	if p.NetNS == "" {
		if p.NetNS = cfg.NetNS; p.NetNS == "" {
			p.NetNS = n.pinPath(cfg.ID)
		}
	}
	n.busy[p.Link] = true
	return p, n.now, there, nil
}

// end notes how an Attach went; the address of one that failed is free again.
func (n *Network) end(p Pod, attached bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, p.Link)
	if attached {
		n.pods[p.ID] = p
		return
	}
	delete(n.pods, p.ID)
	n.addrs.free(p.ID)
}

func (n *Network) isBusy(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.busy[name] {
		return true
	}
	for _, p := range n.pods { // attached since the links were listed
		if p.Link == name {
			return true
		}
	}
	return false
}

// stillThere reports whether the link of an attached pod is there, finished,
// and its namespace too.
func (n *Network) stillThere(p Pod) (bool, error) {
	l, ok, err := n.links.Find(p.Link)
	if err != nil || !ok {
		return false, err
	}
	if a, ok := parseAlias(l.Alias); !ok || a.ID != p.ID || a.Address != p.Address {
		return false, nil
	}
	return netns.Pinned(p.NetNS)
}

// build makes the pod's namespace and link. The alias of the link comes last
// and says that nothing is missing.
func (n *Network) build(ctx context.Context, p Pod, set settings) error {
	inner, err := n.openInner(p)
	if err != nil {
		return err
	}
	defer inner.Close()
	mac := podMAC(p.Address)
	veth := link.Veth{
		Name: p.Link, Peer: podLink, MAC: gatewayMAC(), PeerMAC: mac, MTU: set.mtu, PeerNetNSHandle: inner, Up: true,
	}
	index, err := n.links.AddVeth(veth)
	if errors.Is(err, fs.ErrExist) { // left half made by an earlier process
		if err := n.links.Delete(p.Link); err != nil {
			return err
		}
		index, err = n.links.AddVeth(veth)
	}
	if err != nil {
		return err
	}
	if err := configure(inner, p.Address); err != nil {
		return err
	}
	if err := n.awaitCarrier(ctx, index); err != nil {
		return err
	}
	if err := n.links.SetSysctls(noRedirects(p.Link)); err != nil {
		return err
	}
	if err := n.links.SetNeighbour(link.Neighbour{Link: index, Address: p.Address, MAC: mac}); err != nil {
		return err
	}
	route := link.Route{Destination: host(p.Address), Link: index, Source: set.source, Protocol: protocol}
	if err := n.links.AddRoute(route); err != nil {
		return err
	}
	return n.links.SetAliasIndex(index, aliasOf(p))
}

// openInner makes the namespace if it is ours to make and opens it.
func (n *Network) openInner(p Pod) (inner *link.Handle, err error) {
	if p.NetNS == n.pinPath(p.ID) {
		made, err := netns.MakeWith(p.NetNS, func() (err error) {
			inner, err = link.Open("")
			return err
		})
		if made {
			return inner, nil
		}
		if inner != nil {
			inner.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	return link.Open(p.NetNS)
}

// awaitCarrier waits until the node's end of a pod link can send: the first
// packet to a pod must not be lost. Asking is enough on Linux 6.8 and later.
func (n *Network) awaitCarrier(ctx context.Context, index int) error {
	const tries, pause = 500, time.Millisecond
	for range tries {
		if ok, err := n.links.Running(index); err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return fmt.Errorf("link %d has no carrier after %v", index, tries*pause)
}

// noRedirects keeps the node from telling a pod that reaches itself through a
// service to take a shorter way: there is none, and what such messages use up
// of the limit of ICMP messages per pod is missing when a connection is
// refused.
func noRedirects(name string) link.Sysctl {
	return link.Sysctl{Name: "net/ipv4/conf/" + name + "/send_redirects", Value: "0"}
}

// configure sets up a pod's links from within.
func configure(inner *link.Handle, addr netip.Addr) error {
	if err := inner.SetUpIndex(lo); err != nil {
		return err
	}
	l, ok, err := inner.Find(podLink)
	if err != nil {
		return err
	} else if !ok {
		return fmt.Errorf("link %s is missing in the pod's namespace", podLink)
	}
	if err := inner.AddAddress(link.Address{Link: l.Index, Prefix: host(addr)}); err != nil {
		return err
	}
	if err := inner.SetUpIndex(l.Index); err != nil {
		return err
	}
	if err := inner.SetNeighbour(link.Neighbour{Link: l.Index, Address: gateway, MAC: gatewayMAC()}); err != nil {
		return err
	}
	any4 := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	return inner.AddRoute(link.Route{Destination: any4, Link: l.Index, Gateway: gateway, OnLink: true})
}

// Detach takes a pod's link, route and address away, and its namespace if
// Attach made it. A pod that is not attached is no error.
func (n *Network) Detach(ctx context.Context, id string) error {
	if err := validID(id); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.tearDown(id, linkName(id)); err != nil {
		return fmt.Errorf("detach pod %s: %w", id, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, id)
	n.addrs.free(id)
	return nil
}

// tearDown undoes what there is of a build. Deleting a link takes the kernel
// some 25 ms during which no other link can be made; so a namespace of ours
// only loses its pin, and the kernel then clears it away with the link in its
// own time, many at once. The route goes first: from then on nobody reaches
// the pod, and its address may be given to another. Without its alias the link
// is nobody's: if something still holds the namespace, Apply deletes it.
func (n *Network) tearDown(id, name string) error {
	pin := n.pinPath(id)
	ours, err := netns.Pinned(pin)
	if err == nil && ours {
		err = n.disown(name)
	} else if err == nil {
		err = n.links.Delete(name)
	}
	return errors.Join(err, netns.Delete(pin))
}

// disown takes a pod's route and alias from its link.
func (n *Network) disown(name string) error {
	l, ok, err := n.links.Find(name)
	if err != nil || !ok {
		return err
	}
	if p, ok := parseAlias(l.Alias); ok {
		route := link.Route{Destination: host(p.Address), Link: l.Index, Protocol: protocol}
		if err := n.links.DeleteRoute(route); err != nil {
			return err
		}
	}
	return n.links.SetAliasIndex(l.Index, "")
}

// List returns the pods that the kernel knows, sorted by ID, also those that
// an earlier process attached.
func (n *Network) List(ctx context.Context) ([]Pod, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, err := n.links.Links()
	if err != nil {
		return nil, err
	}
	pins, err := n.pins()
	if err != nil {
		return nil, err
	}
	var pods []Pod
	for _, l := range links {
		if !strings.HasPrefix(l.Name, podLinkPrefix) {
			continue
		}
		if p, ok := parseAlias(l.Alias); ok && p.Link == l.Name {
			if pins[p.ID] {
				p.NetNS = n.pinPath(p.ID)
				delete(pins, p.ID)
			}
			pods = append(pods, n.remembered(p))
		}
	}
	for id := range pins {
		pods = append(pods, Pod{ID: id, NetNS: n.pinPath(id), Link: linkName(id)})
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.ID, b.ID) })
	return pods, nil
}

// remembered adds the namespace that a caller gave to this process.
func (n *Network) remembered(p Pod) Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.NetNS == "" {
		p.NetNS = n.pods[p.ID].NetNS
	}
	return p
}

// pins are the IDs of the pods whose namespaces are pinned in the run folder.
func (n *Network) pins() (map[string]bool, error) {
	entries, err := os.ReadDir(n.opts.RunDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list pinned namespaces: %w", err)
	}
	ids := make(map[string]bool, len(entries))
	for _, e := range entries {
		ids[e.Name()] = true
	}
	return ids, nil
}

func (n *Network) pinPath(id string) string { return filepath.Join(n.opts.RunDir, id) }

func validID(id string) error {
	if id == "" || len(id) > maxID || id != filepath.Base(id) || id[0] == '.' || strings.ContainsAny(id, " \n\x00") {
		return apierr.BadRequest("pod id %q: want a file name of 1 to %d bytes without spaces", id, maxID)
	}
	return nil
}

// linkName is the node's end of a pod's link: a hash, since names of links
// have 15 bytes.
func linkName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return podLinkPrefix + hex.EncodeToString(sum[:6])
}

func aliasOf(p Pod) string { return strings.Join([]string{aliasFormat, p.ID, p.Address.String()}, " ") }

// parseAlias reads what aliasOf wrote; ok is false for anything else.
func parseAlias(alias string) (p Pod, ok bool) {
	f := strings.Split(alias, " ")
	if len(f) != 3 || f[0] != aliasFormat {
		return Pod{}, false
	}
	a, err := netip.ParseAddr(f[2])
	if err != nil {
		return Pod{}, false
	}
	return Pod{ID: f[1], Address: a, Link: linkName(f[1])}, true
}
