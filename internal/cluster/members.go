package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	// askWithin is how long a member may take to answer that it is there.
	askWithin = time.Second
	// enterWithin bounds how long a new member may take to catch up in one
	// call; it calls again.
	enterWithin = time.Minute
)

// Enter implements wherryv1.ClusterServer.
func (s *Server) Enter(ctx context.Context, r *wherryv1.EnterRequest) (*wherryv1.EnterResponse, error) {
	p, err := s.cfg.Peer(ctx)
	if err != nil {
		return nil, apierr.New(apierr.ErrUnauthorized, "%w", err)
	}
	if p.Role != pki.Member {
		return nil, apierr.Forbidden("", "", errors.New("only a controld that has joined may enter"))
	}
	if err := checkAddress(r.GetAddress()); err != nil {
		return nil, err
	}
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return nil, err
	}
	id, revision, err := read[identity](snap, identityKey(pki.Member, p.Name))
	if err != nil {
		return nil, err
	}
	if revision == 0 || id.Key != p.Key {
		return nil, apierr.New(apierr.ErrUnauthorized, "%w: it was removed from the cluster; delete its data directory and join again", pki.ErrPinned)
	}
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	if err := s.cfg.Members.AddMember(ctx, id.Member, r.GetAddress()); err != nil {
		return nil, err
	}
	s.cfg.Log.Info("member entered", "member", id.Member, "address", r.GetAddress())
	return &wherryv1.EnterResponse{}, nil
}

// Members implements wherryv1.ClusterServer.
func (s *Server) Members(ctx context.Context, _ *wherryv1.MembersRequest) (*wherryv1.MembersResponse, error) {
	if _, err := s.master(ctx, "list the members"); err != nil {
		return nil, err
	}
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return nil, err
	}
	names, err := memberNames(snap)
	if err != nil {
		return nil, err
	}
	resp := &wherryv1.MembersResponse{Revision: s.cfg.Members.Revision()}
	var asked sync.WaitGroup
	for _, m := range s.cfg.Members.Members() {
		one := &wherryv1.Member{Id: m.ID, Name: names[m.ID].Name, Address: m.Address, Leader: m.Leader, Voter: m.Voter}
		resp.Members = append(resp.Members, one)
		asked.Go(func() { one.Reachable = s.reachable(ctx, m.ID, m.Address) })
	}
	asked.Wait()
	return resp, nil
}

// Answering gives host:port of the members that answer now.
func (s *Server) Answering(ctx context.Context) []string {
	all := s.cfg.Members.Members()
	there := make([]bool, len(all))
	var asked sync.WaitGroup
	for i, m := range all {
		asked.Go(func() { there[i] = s.reachable(ctx, m.ID, m.Address) })
	}
	asked.Wait()
	var out []string
	for i, m := range all {
		if there[i] {
			out = append(out, m.Address)
		}
	}
	return out
}

func (s *Server) reachable(ctx context.Context, id, address string) bool {
	if id == s.cfg.Self {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return s.cfg.Ask(ctx, address) == nil
}

// memberNames gives the identities of members by their ids.
func memberNames(snap *store.Snapshot) (map[string]identity, error) {
	out := map[string]identity{}
	for r := range snap.Scan(identities, "", api.Key{}) {
		if !strings.HasPrefix(r.Name, string(pki.Member)+":") {
			continue
		}
		id, err := decode[identity](r)
		if err != nil {
			return nil, err
		}
		out[id.Member] = id
	}
	return out, nil
}

// RemoveMember implements wherryv1.ClusterServer. The key goes first, so that
// the member cannot enter again by itself; doing it again goes on where it
// stopped.
func (s *Server) RemoveMember(ctx context.Context, r *wherryv1.RemoveMemberRequest) (*wherryv1.RemoveMemberResponse, error) {
	if _, err := s.master(ctx, "remove members"); err != nil {
		return nil, err
	}
	if err := s.removable(ctx, r.GetId()); err != nil {
		return nil, err
	}
	if err := s.unpin(ctx, r.GetId()); err != nil {
		return nil, err
	}
	if err := s.cfg.Members.RemoveMember(ctx, r.GetId()); err != nil {
		return nil, err
	}
	s.cfg.Log.Info("member removed", "member", r.GetId())
	return &wherryv1.RemoveMemberResponse{}, nil
}

// removable refuses what would leave no cluster, and takes leadership from the
// member that is to go.
func (s *Server) removable(ctx context.Context, id string) error {
	others := 0
	var leads, there bool
	for _, m := range s.cfg.Members.Members() {
		switch {
		case m.ID == id:
			there, leads = true, m.Leader
		case m.Voter:
			others++
		}
	}
	if others == 0 {
		return apierr.BadRequest("%s is the only member that votes: nothing would be left; join another controld first", id)
	}
	if there && leads {
		return s.cfg.Members.TransferLeadership(ctx, "")
	}
	return nil
}

// unpin takes a member's key out and marks it as removed.
func (s *Server) unpin(ctx context.Context, id string) error {
	for range joinTries {
		snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
		if err != nil {
			return err
		}
		all, err := memberNames(snap)
		if err != nil {
			return err
		}
		m, ok := all[id]
		if !ok {
			return s.unknown(id)
		}
		key := identityKey(pki.Member, m.Name)
		now, _ := snap.Get(key)
		mark, err := put(removedKey(m.Key), removed{m.Name}, store.Cond{})
		if err != nil {
			return err
		}
		changes := []store.Change{{Op: store.Delete, Key: key, If: store.Cond{Revision: now.Revision}}, mark}
		// What is written from now on is sealed with a key that it never had.
		keys, ok, err := s.cfg.Keyring.rotate(snap, m.Key)
		if err != nil {
			return err
		} else if ok {
			changes = append(changes, keys)
		}
		_, err = s.cfg.Store.Commit(ctx, store.Command{Changes: changes})
		var lost *store.CompareError
		if !errors.As(err, &lost) {
			return err
		}
	}
	return apierr.ServerTimeout("members", "remove", 0)
}

// unknown refuses an id that neither the identities nor the Raft know.
func (s *Server) unknown(id string) error {
	for _, m := range s.cfg.Members.Members() {
		if m.ID == id {
			return nil
		}
	}
	return apierr.NotFound("members", id)
}

// TransferLeadership implements wherryv1.ClusterServer.
func (s *Server) TransferLeadership(ctx context.Context, r *wherryv1.TransferLeadershipRequest) (*wherryv1.TransferLeadershipResponse, error) {
	if _, err := s.master(ctx, "transfer leadership"); err != nil {
		return nil, err
	}
	if err := s.cfg.Members.TransferLeadership(ctx, r.GetId()); err != nil {
		return nil, err
	}
	return &wherryv1.TransferLeadershipResponse{}, nil
}
