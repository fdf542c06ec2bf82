package svcproxy

import (
	"context"
	"errors"

	"github.com/wherry-project/wherry/internal/nft"
)

// ruleset is what Proxy needs of nftables. nft.Conn and nft.Fake provide it.
type ruleset interface {
	Commit(ctx context.Context, changes nft.Changes) error // all or nothing
	Intact(ctx context.Context, family nft.Family, table string) (bool, error)
}

// Proxy holds the service rules of one node. One Apply runs at a time.
type Proxy struct {
	rules ruleset
}

// Options say where the rules live.
type Options struct {
	// NetNS is the path of the node's network namespace; empty is the
	// caller's own.
	NetNS string
}

var errNotBuilt = errors.New("not built yet")

// Open makes a Proxy. It changes nothing: the first Apply replaces what an
// earlier process left, in one transaction.
func Open(ctx context.Context, opts Options) (*Proxy, error) { return nil, errNotBuilt }

// Close lets go of the kernel connections. The rules stay.
func (p *Proxy) Close() error { return errNotBuilt }

// Apply makes the kernel's service rules those of cfg. Applying the same cfg
// again does nothing unless somebody took the table away. On error the former
// rules still hold.
func (p *Proxy) Apply(ctx context.Context, cfg Config) error { return errNotBuilt }

// Remove takes the service rules away.
func (p *Proxy) Remove(ctx context.Context) error { return errNotBuilt }
