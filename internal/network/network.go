package network

import (
	"context"
	"errors"
	"sync"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/nft"
)

// Network is the pod network of one node. Its methods may be called from
// several goroutines; Attach and Detach of different pods do not wait for each
// other, those of one pod are the caller's to order.
type Network struct {
	opts   Options
	links  *link.Handle
	tables *nft.Conn

	mu      sync.Mutex // cfg and addrs; not held over netlink
	cfg     Config
	applied bool
	addrs   pool

	applying sync.Mutex // one Apply at a time
	lastNAT  *nft.Table
}

var errNotBuilt = errors.New("not built yet")

// Open makes a Network ready: it finds the pods that an earlier process
// attached and keeps their addresses reserved. It changes nothing.
func Open(ctx context.Context, opts Options) (*Network, error) { return nil, errNotBuilt }

// Close lets go of the kernel connections. Pods, routes and rules stay: they
// are for the next Open.
func (n *Network) Close() error { return errNotBuilt }

// Apply makes the kernel's state that of cfg: routes, VXLAN, masquerade, held
// addresses, forwarding. It looks at the kernel each time, so applying the
// same cfg again repairs what others took away, and otherwise changes nothing.
func (n *Network) Apply(ctx context.Context, cfg Config) error { return errNotBuilt }

// Remove takes everything of Wherry's network off the node, pods included.
func (n *Network) Remove(ctx context.Context) error { return errNotBuilt }

// Attach gives a pod its namespace, link and address. A pod that is attached
// already is returned as it is; one half attached is made anew.
// The kind of the error is ErrUnavailable before the first Apply and when the
// range has no free address, ErrConflict when cfg.Address belongs to another.
func (n *Network) Attach(ctx context.Context, cfg PodConfig) (Pod, error) { return Pod{}, errNotBuilt }

// Detach takes a pod's link, route and address away, and its namespace if
// Attach made it. A pod that is not attached is no error.
func (n *Network) Detach(ctx context.Context, id string) error { return errNotBuilt }

// List returns the pods that the kernel knows, sorted by ID, also those that
// an earlier process attached.
func (n *Network) List(ctx context.Context) ([]Pod, error) { return nil, errNotBuilt }
