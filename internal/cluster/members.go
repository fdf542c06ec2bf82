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
	// decideWithin is how long one may take that must not pass for gone because
	// it is busy: another would get its name, or a majority be thought lost.
	decideWithin = 5 * time.Second
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
		return nil, apierr.New(apierr.ErrUnauthorized, "%w; delete its data directory and join again", errRemoved)
	}
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	if anew := r.GetMemberId(); anew != "" && anew != id.Member {
		if !strings.HasPrefix(anew, p.Name+"-") {
			return nil, apierr.BadRequest("member id %q: must begin with the member's name, %s-", anew, p.Name)
		}
		s.cfg.Log.Warn("a member has lost its data and begins anew", "name", p.Name, "was", id.Member, "member", anew)
		id.Replaces, id.Member = append(id.Replaces, id.Member), anew
		if revision, err = s.note(ctx, id, revision); err != nil {
			return nil, err
		}
	}
	for _, old := range id.Replaces {
		if err := s.cfg.Members.RemoveMember(ctx, old); err != nil {
			return nil, err
		}
	}
	if err := s.cfg.Members.AddMember(ctx, id.Member, r.GetAddress()); err != nil {
		return nil, err
	}
	if len(id.Replaces) > 0 {
		s.cfg.Log.Info("member replaced", "name", p.Name, "was", id.Replaces, "member", id.Member)
		id.Replaces = nil
		if _, err := s.note(ctx, id, revision); err != nil {
			return nil, err
		}
	}
	s.cfg.Log.Info("member entered", "member", id.Member, "address", r.GetAddress())
	return &wherryv1.EnterResponse{}, nil
}

// note writes a member's identity.
func (s *Server) note(ctx context.Context, id identity, revision uint64) (uint64, error) {
	write, err := put(identityKey(pki.Member, id.Name), id, store.Cond{Revision: revision})
	if err != nil {
		return 0, err
	}
	return s.cfg.Store.Commit(ctx, store.Command{Changes: []store.Change{write}})
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
		one := &wherryv1.Member{Id: m.ID, Name: names[m.ID].Name, Address: m.Address, Leader: m.Leader, Voter: m.Voter, Replaces: strings.Join(names[m.ID].Replaces, ",")}
		resp.Members = append(resp.Members, one)
		asked.Go(func() { one.Reachable = s.reachable(ctx, askWithin, m.ID, m.Address) })
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
		asked.Go(func() { there[i] = s.reachable(ctx, askWithin, m.ID, m.Address) })
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

// answers reports whether a member answers at the address that it is listed
// under.
func (s *Server) answers(ctx context.Context, id string) (address string, yes bool) {
	for _, m := range s.cfg.Members.Members() {
		if m.ID == id {
			return m.Address, s.reachable(ctx, decideWithin, m.ID, m.Address)
		}
	}
	return "", false
}

func (s *Server) reachable(ctx context.Context, within time.Duration, id, address string) bool {
	if id == s.cfg.Self {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, within)
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
	if r.GetId() == s.cfg.Self {
		// Without its key it cannot ask for the rest: the leader does it.
		s.cfg.Log.Warn("this member was removed from the cluster", "member", r.GetId())
		return &wherryv1.RemoveMemberResponse{}, nil
	}
	if err := s.cfg.Members.RemoveMember(ctx, r.GetId()); err != nil {
		return nil, err
	}
	s.cfg.Log.Info("member removed", "member", r.GetId())
	return &wherryv1.RemoveMemberResponse{}, nil
}

// removable refuses what would leave no cluster, or one that cannot go on, and
// takes leadership from the member that is to go.
func (s *Server) removable(ctx context.Context, id string) error {
	all := s.cfg.Members.Members()
	var there, leads, votes bool
	var rest, answer int
	var missing []string
	for _, m := range all {
		if m.ID == id {
			there, leads, votes = true, m.Leader, m.Voter
			continue
		}
		if !m.Voter {
			continue
		}
		rest++
		if s.reachable(ctx, decideWithin, m.ID, m.Address) {
			answer++
		} else {
			missing = append(missing, m.ID)
		}
	}
	switch {
	case rest == 0:
		return apierr.BadRequest("%s is the only member that votes: nothing would be left; join another controld first", id)
	case votes && answer <= rest/2:
		return apierr.New(apierr.ErrConflict, "without %s, %d of %d members would answer, which is no majority, and the cluster would stand still: bring back or remove %s first", id, answer, rest, strings.Join(missing, ", "))
	case there && leads:
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
