package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// How the leader keeps the state sealed.
const (
	resealRecords = 64
	resealBytes   = 512 << 10
	resealAgain   = time.Hour
	resealRetry   = 5 * time.Second
	resealWithin  = time.Minute
)

// KeepSealed makes the data key of a cluster that has none, and seals anew what
// is not sealed with the newest one: what is from before sealing, and what an
// older key holds after a rotation. It runs on the leader until ctx ends.
func (s *Server) KeepSealed(ctx context.Context) error {
	for ctx.Err() == nil {
		next := resealAgain
		from, err := s.sealAll(ctx)
		if err != nil {
			s.cfg.Log.Warn("state not sealed anew; it is tried again", "err", err, "retry", resealRetry)
			next = resealRetry
		}
		if err := s.awaitKeys(ctx, from, next); err != nil {
			s.cfg.Log.Debug("watch of the data keys ended", "err", err)
		}
	}
	return nil
}

// awaitKeys waits until the data keys change, or for a time.
func (s *Server) awaitKeys(ctx context.Context, from uint64, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	key := dataKeysKey()
	w, err := s.cfg.Store.Watch(ctx, store.Filter{Resource: key.Resource, Name: key.Name}, from)
	if err != nil {
		<-ctx.Done()
		return err
	}
	defer w.Stop()
	if _, _, err := w.Next(ctx); err != nil && ctx.Err() == nil {
		<-ctx.Done()
		return err
	}
	return nil
}

// sealAll does it once, and gives the revision that it has seen.
func (s *Server) sealAll(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, resealWithin)
	defer cancel()
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return 0, err
	}
	keys, _, revision, err := s.cfg.Keyring.keysAt(snap)
	if err != nil {
		return snap.Revision(), err
	}
	if revision == 0 {
		return snap.Revision(), s.firstKey(ctx, snap)
	}
	newest := keys[len(keys)-1].ID()
	total := 0
	for {
		batch, more := stale(snap, newest)
		if len(batch) == 0 {
			break
		}
		n, err := s.reseal(ctx, batch)
		if total += n; err != nil {
			return snap.Revision(), err
		}
		if snap, err = s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable}); err != nil {
			return 0, err
		}
		if !more {
			break
		}
	}
	if total > 0 {
		s.cfg.Log.Info("sealed with the newest key", "records", total, "key", newest)
	}
	if len(keys) > 1 {
		return snap.Revision(), s.dropOld(ctx, snap)
	}
	return snap.Revision(), nil
}

// firstKey begins to seal in a cluster that has not done so.
func (s *Server) firstKey(ctx context.Context, snap *store.Snapshot) error {
	all, err := holders(snap)
	if err != nil {
		return err
	}
	k := s.cfg.Keyring
	all[k.hash] = k.own.PublicKey()
	key, err := seal.NewKey(1)
	if err != nil {
		return err
	}
	change, err := putKeys([]seal.Key{key}, all, nil, store.Cond{Absent: true})
	if err != nil {
		return err
	}
	_, err = s.cfg.Store.Commit(ctx, store.Command{Changes: []store.Change{change}})
	var lost *store.CompareError
	if errors.As(err, &lost) {
		return nil
	}
	return err
}

// stale gives records that are not sealed with the newest key, as they are to
// be written again, and whether there are more.
func stale(snap *store.Snapshot, newest uint32) (out []*api.Record, more bool) {
	raw := snap.Raw()
	var resources []string
	for r := range raw.Resources() {
		if seal.Covers(r) {
			resources = append(resources, r)
		}
	}
	size := 0
	for _, resource := range resources {
		for r := range raw.Scan(resource, "", api.Key{}) {
			if id, err := seal.KeyOf(r.Bytes); seal.Is(r.Bytes) && (err != nil || id == newest) {
				continue // what cannot be read stays as it is
			}
			open, ok := snap.Get(r.Key)
			if !ok || seal.Is(open.Bytes) {
				continue
			}
			if size += len(open.Bytes); len(out) > 0 && (len(out) == resealRecords || size > resealBytes) {
				return out, true
			}
			out = append(out, open)
		}
	}
	return out, false
}

// reseal writes records as they are; those that somebody else has written
// meanwhile are sealed already.
func (s *Server) reseal(ctx context.Context, records []*api.Record) (n int, err error) {
	for _, r := range records {
		_, err := s.cfg.Store.Commit(ctx, store.Command{Changes: []store.Change{
			{Op: store.Put, If: store.Cond{Revision: r.Revision}, Key: r.Key, Record: r},
		}})
		var lost *store.CompareError
		switch {
		case err == nil:
			n++
		case !errors.As(err, &lost):
			return n, err
		}
	}
	return n, nil
}

// dropOld forgets the keys that nothing is sealed with any more, all but the
// newest and the one before: a member that is behind may still be using that.
func (s *Server) dropOld(ctx context.Context, snap *store.Snapshot) error {
	keys, wraps, revision, err := s.cfg.Keyring.keysAt(snap)
	if err != nil || len(keys) < 3 {
		return err
	}
	used := map[uint32]bool{keys[len(keys)-1].ID(): true, keys[len(keys)-2].ID(): true}
	raw := snap.Raw()
	for resource := range raw.Resources() {
		if !seal.Covers(resource) {
			continue
		}
		for r := range raw.Scan(resource, "", api.Key{}) {
			if id, err := seal.KeyOf(r.Bytes); err == nil {
				used[id] = true
			}
		}
	}
	kept := slices.DeleteFunc(keys, func(k seal.Key) bool { return !used[k.ID()] })
	if len(kept) == len(wraps) {
		return nil
	}
	all, err := holders(snap)
	if err != nil {
		return err
	}
	change, err := putKeys(kept, all, wraps, store.Cond{Revision: revision})
	if err != nil {
		return err
	}
	_, err = s.cfg.Store.Commit(ctx, store.Command{Changes: []store.Change{change}})
	var lost *store.CompareError
	if errors.As(err, &lost) {
		return nil
	}
	return err
}

// RotateTokenKey implements wherryv1.ClusterServer.
func (s *Server) RotateTokenKey(ctx context.Context, _ *wherryv1.RotateTokenKeyRequest) (*wherryv1.RotateTokenKeyResponse, error) {
	if _, err := s.master(ctx, "rotate the token key"); err != nil {
		return nil, err
	}
	id, believed, err := s.cfg.RotateTokens(ctx)
	if err != nil {
		return nil, err
	}
	s.cfg.Log.Info("token key rotated", "key", id, "believed", believed)
	return &wherryv1.RotateTokenKeyResponse{Key: id, Believed: int32(believed)}, nil //nolint:gosec // a few
}

// RotateSealingKey implements wherryv1.ClusterServer.
func (s *Server) RotateSealingKey(ctx context.Context, _ *wherryv1.RotateSealingKeyRequest) (*wherryv1.RotateSealingKeyResponse, error) {
	if _, err := s.master(ctx, "rotate the sealing key"); err != nil {
		return nil, err
	}
	for range joinTries {
		snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
		if err != nil {
			return nil, err
		}
		change, ok, err := s.cfg.Keyring.rotate(snap, "")
		if err != nil {
			return nil, err
		} else if !ok {
			return nil, apierr.Unavailable("the cluster has no sealing key yet; its leader is about to make one")
		}
		_, err = s.cfg.Store.Commit(ctx, store.Command{Changes: []store.Change{change}})
		var lost *store.CompareError
		if errors.As(err, &lost) {
			continue
		} else if err != nil {
			return nil, err
		}
		all := s.cfg.Keyring.Keys()
		id := all[len(all)-1].ID()
		s.cfg.Log.Info("sealing key rotated", "key", id)
		return &wherryv1.RotateSealingKeyResponse{Key: id}, nil
	}
	return nil, apierr.ServerTimeout("members", "rotate", 0)
}
