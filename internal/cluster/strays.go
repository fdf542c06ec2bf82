package cluster

import (
	"context"
	"time"

	"github.com/wherry-project/wherry/internal/store"
)

// strayAgain is how often the members are compared with the identities when
// those do not change.
const strayAgain = 30 * time.Second

// KeepMembers takes out of the Raft who has no identity any more: a member that
// was asked to remove itself, or whose removal broke off half way. It runs on
// the leader until ctx ends.
func (s *Server) KeepMembers(ctx context.Context) error {
	for ctx.Err() == nil {
		from, err := s.removeStrays(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("a removed member could not be taken out of the Raft; it is tried again", "err", err)
		}
		s.awaitIdentities(ctx, from)
	}
	return nil
}

// removeStrays gives the revision of the identities that it looked at. They are
// of a later moment than the members: who enters has an identity first.
func (s *Server) removeStrays(ctx context.Context) (uint64, error) {
	members := s.cfg.Members.Members()
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return 0, err
	}
	known, err := memberNames(snap)
	if err != nil {
		return snap.Revision(), err
	}
	stays := map[string]bool{}
	for id, m := range known {
		stays[id] = true
		for _, old := range m.Replaces { // they go when the new one enters
			stays[old] = true
		}
	}
	for _, m := range members {
		if stays[m.ID] || m.ID == s.cfg.Self {
			continue
		}
		if err := s.cfg.Members.RemoveMember(ctx, m.ID); err != nil {
			return snap.Revision(), err
		}
		s.cfg.Log.Info("member taken out of the Raft: it has no identity any more", "member", m.ID)
	}
	return snap.Revision(), nil
}

// awaitIdentities waits until an identity changes, or for a time.
func (s *Server) awaitIdentities(ctx context.Context, from uint64) {
	ctx, cancel := context.WithTimeout(ctx, strayAgain)
	defer cancel()
	w, err := s.cfg.Store.Watch(ctx, store.Filter{Resource: identities}, from)
	if err != nil {
		<-ctx.Done()
		return
	}
	defer w.Stop()
	if _, _, err := w.Next(ctx); err != nil {
		<-ctx.Done()
	}
}
