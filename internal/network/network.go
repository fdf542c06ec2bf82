package network

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/nft"
)

// ruleset is what Network needs of nftables. nft.Conn and nft.Fake provide it.
type ruleset interface {
	Commit(ctx context.Context, changes nft.Changes) error // all or nothing
	Intact(ctx context.Context, family nft.Family, table string) (bool, error)
	Close() error
}

// Network is the pod network of one node. Its methods may be called from
// several goroutines; Attach and Detach of different pods do not wait for each
// other, those of one pod are the caller's to order.
type Network struct {
	opts  Options
	links *link.Handle
	rules ruleset

	mu    sync.Mutex // the fields below; not held over netlink
	now   settings   // what new pods get
	addrs pool
	pods  map[string]Pod  // attached
	busy  map[string]bool // links that an Attach is making

	applying sync.Mutex // one Apply or Remove at a time; guards the field below
	nat      *nft.Table // what this process committed last
}

// Open makes a Network ready: it finds the pods that an earlier process
// attached and keeps their addresses reserved. It changes nothing.
func Open(ctx context.Context, opts Options) (*Network, error) {
	links, err := link.Open(opts.NetNS)
	if err != nil {
		return nil, fmt.Errorf("open pod network: %w", err)
	}
	rules, err := nft.Open(opts.NetNS)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pod network: %w", err), links.Close())
	}
	n := &Network{opts: opts, links: links, rules: rules, pods: make(map[string]Pod), busy: make(map[string]bool)}
	if err := n.adopt(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open pod network: %w", err), n.Close())
	}
	return n, nil
}

// Close lets go of the kernel connections. Pods, routes and rules stay: they
// are for the next Open.
func (n *Network) Close() error {
	return errors.Join(n.rules.Close(), n.links.Close())
}

// adopt takes over the pods that are attached.
func (n *Network) adopt(ctx context.Context) error {
	pods, err := n.List(ctx)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range pods {
		if !p.Address.IsValid() {
			continue // half made: Attach starts anew
		}
		if _, err := n.addrs.take(p.ID, p.Address); err != nil {
			return err
		}
		n.pods[p.ID] = p
	}
	return nil
}

// Remove takes everything of Wherry's network off the node, pods included.
func (n *Network) Remove(ctx context.Context) error {
	pods, err := n.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pods {
		errs = append(errs, n.Detach(ctx, p.ID))
	}
	n.applying.Lock()
	defer n.applying.Unlock()
	errs = append(errs, n.reconcile(wanted{}))
	gone := nft.Changes{Family: nft.IPv4, Table: tableName, Remove: true}
	errs = append(errs, n.rules.Commit(ctx, gone))
	n.nat = nil
	return errors.Join(errs...)
}
