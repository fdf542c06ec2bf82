package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// Pins holds the keys of members and nodes against what the cluster has
// pinned; Check is for [pki.NewVerifier] and for connections to other members.
// It may be asked before it is given a state.
type Pins struct{ reader atomic.Pointer[store.Reader] }

// Use gives the state to read. Until then nothing is known to be pinned.
func (p *Pins) Use(r store.Reader) { p.reader.Store(&r) }

// errRemoved is for a key that was taken out. It never comes back: who joins again
// has another.
var errRemoved = fmt.Errorf("%w: it was removed from the cluster", pki.ErrPinned)

// Removed reports whether an answer of another member says that this one was
// removed. It goes by the text, which is the same in all versions.
func Removed(answer error) bool {
	return errors.Is(answer, apierr.ErrUnauthorized) && strings.Contains(answer.Error(), errRemoved.Error())
}

// pinWait bounds how long a node's call waits for this replica to hear of the
// node: its certificate may be younger than the state here.
const pinWait = 2 * time.Second

// Check returns nil, or an error that wraps [pki.ErrPinned], or why that cannot
// be said now.
//
// A member that this replica has never heard of passes: the CA signs for a
// member only after its key was pinned, so that the state here is behind, and
// it may need this very member's vote to catch up. One that was removed has
// left a mark and does not pass.
func (p *Pins) Check(peer pki.Peer) error {
	known, err := p.check(context.Background(), peer, store.At{Level: store.Any})
	if known || err != nil || peer.Role == pki.Member {
		return err
	}
	// pki's hook has no context: the wait is bounded by itself.
	ctx, cancel := context.WithTimeout(context.Background(), pinWait)
	defer cancel()
	known, err = p.check(ctx, peer, store.At{Level: store.Linearizable})
	if err != nil || known {
		return err
	}
	return fmt.Errorf("%w: the cluster knows no %s %q; join again", pki.ErrPinned, peer.Role, peer.Name)
}

// check reports whether the state knows the peer; an error says that it knows
// otherwise.
func (p *Pins) check(ctx context.Context, peer pki.Peer, at store.At) (bool, error) {
	r := p.reader.Load()
	if r == nil {
		return false, nil
	}
	snap, err := (*r).Snapshot(ctx, at)
	if err != nil {
		return false, fmt.Errorf("the pinned key cannot be looked up now: %w", err)
	}
	id, revision, err := read[identity](snap, identityKey(peer.Role, peer.Name))
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: %w", pki.ErrPinned, err)
	case revision != 0 && id.Key == peer.Key:
		return true, nil
	}
	if _, gone := snap.Get(removedKey(peer.Key)); gone {
		return false, errRemoved
	}
	if revision != 0 {
		return false, fmt.Errorf("%w: another key has this name", pki.ErrPinned)
	}
	return false, nil
}
