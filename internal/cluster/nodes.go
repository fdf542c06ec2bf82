package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// followAgain is how long a watch of the pinned keys that could not begin rests.
const followAgain = time.Second

// RemoveNode implements wherryv1.ClusterServer. The key goes first, so that the
// node cannot register again; doing it again goes on where it stopped.
func (s *Server) RemoveNode(ctx context.Context, r *wherryv1.RemoveNodeRequest) (*wherryv1.RemoveNodeResponse, error) {
	u, err := s.master(ctx, "remove nodes")
	if err != nil {
		return nil, err
	}
	name := r.GetName()
	known, err := s.unpinNode(ctx, name)
	if err != nil {
		return nil, err
	}
	err = s.cfg.As(u).Delete(ctx, api.Key{Resource: "nodes", Name: name}, metav1.DeleteOptions{})
	if err != nil && !(known && errors.Is(err, apierr.ErrNotFound)) {
		if known {
			err = fmt.Errorf("node %q is let in no more, but its Node is still there; remove it again: %w", name, err)
		}
		return nil, err
	}
	s.cfg.Log.Info("node removed", "node", name)
	return &wherryv1.RemoveNodeResponse{}, nil
}

// unpinNode takes a node's key out and marks it as removed; it reports whether
// there was one.
func (s *Server) unpinNode(ctx context.Context, name string) (bool, error) {
	for range joinTries {
		snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
		if err != nil {
			return false, err
		}
		key := identityKey(pki.Node, name)
		id, revision, err := read[identity](snap, key)
		if err != nil || revision == 0 {
			return false, err
		}
		mark, err := put(removedKey(id.Key), removed{name}, store.Cond{})
		if err != nil {
			return false, err
		}
		_, err = s.cfg.Store.Commit(ctx, store.Command{Changes: []store.Change{
			{Op: store.Delete, Key: key, If: store.Cond{Revision: revision}}, mark,
		}})
		var lost *store.CompareError
		if !errors.As(err, &lost) {
			return true, err
		}
	}
	return false, apierr.ServerTimeout("nodes", "remove", 0)
}

// FollowIdentities calls changed after every change of a pinned key that has
// arrived here, until ctx ends.
func (s *Server) FollowIdentities(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		if err := s.followIdentities(ctx, changed); err != nil && ctx.Err() == nil {
			s.cfg.Log.Debug("watch of the pinned keys begins anew", "err", err)
		}
	}
	return nil
}

// followIdentities ends with its watch.
func (s *Server) followIdentities(ctx context.Context, changed func()) error {
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return s.pause(ctx, err)
	}
	w, err := s.cfg.Store.Watch(ctx, store.Filter{Resource: identities}, snap.Revision())
	if err != nil {
		return s.pause(ctx, err)
	}
	defer w.Stop()
	for {
		changed() // also for what was missed before
		if _, _, err := w.Next(ctx); err != nil {
			return err
		}
	}
}

// pause waits a moment, so that a state that cannot be read is not asked for
// without end.
func (s *Server) pause(ctx context.Context, err error) error {
	t := time.NewTimer(followAgain)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return err
}
