package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// Member is one replica as the members' list has it.
type Member struct {
	ID, Address   string
	Voter, Leader bool
}

// Members lists the members as this replica knows them.
func (s *Store) Members() []Member {
	servers, err := s.servers()
	if err != nil {
		return nil
	}
	_, leader := s.raft.LeaderWithID()
	var members []Member
	for _, m := range servers {
		members = append(members, Member{
			ID: string(m.ID), Address: string(m.Address),
			Voter: m.Suffrage == raft.Voter, Leader: m.ID == leader,
		})
	}
	return members
}

func (s *Store) voters() (n int) {
	for _, m := range s.Members() {
		if m.Voter {
			n++
		}
	}
	return n
}

func (s *Store) servers() ([]raft.Server, error) {
	f := s.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, apierr.Unavailable("list the members: %w", err)
	}
	return f.Configuration().Servers, nil
}

// AddMember adds a replica without a vote, waits until it has caught up, and
// gives it the vote. Doing it again goes on where it stopped; an id that is a
// member already gets the new address. It may be called on any replica.
func (s *Store) AddMember(ctx context.Context, id, address string) error {
	return s.ReplaceMember(ctx, "", id, address)
}

// ReplaceMember is AddMember for a replica that stands in the place of another,
// which is gone for good. That one goes first: as long as it is listed it only
// counts as one that is missing, and the new one may have its address.
func (s *Store) ReplaceMember(ctx context.Context, old, id, address string) error {
	if id == "" || address == "" {
		return apierr.BadRequest("a member needs an id and an address")
	}
	if old == id {
		return apierr.BadRequest("member %s cannot be replaced by itself", id)
	}
	if old != "" {
		if err := s.RemoveMember(ctx, old); err != nil {
			return err
		}
	}
	add := &wherryv1.ChangeRequest{Change: &wherryv1.ChangeRequest_Add{Add: &wherryv1.AddMember{Id: id, Address: address}}}
	if err := s.change(ctx, add); err != nil {
		return fmt.Errorf("add member %s: %w", id, err)
	}
	promote := &wherryv1.ChangeRequest{Change: &wherryv1.ChangeRequest_PromoteId{PromoteId: id}}
	if err := s.change(ctx, promote); err != nil {
		return fmt.Errorf("give member %s its vote: %w", id, err)
	}
	return nil
}

// RemoveMember takes a replica out. It may be called on any replica.
func (s *Store) RemoveMember(ctx context.Context, id string) error {
	err := s.change(ctx, &wherryv1.ChangeRequest{Change: &wherryv1.ChangeRequest_RemoveId{RemoveId: id}})
	if err != nil {
		return fmt.Errorf("remove member %s: %w", id, err)
	}
	return nil
}

// TransferLeadership hands leadership to a member, or to any ("").
func (s *Store) TransferLeadership(ctx context.Context, id string) error {
	err := s.change(ctx, &wherryv1.ChangeRequest{Change: &wherryv1.ChangeRequest_TransferToId{TransferToId: id}})
	if err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

// change makes a change as the leader or at the leader. Changes may be done
// twice, so it tries again until ctx ends or the answer is a real one.
func (s *Store) change(ctx context.Context, m *wherryv1.ChangeRequest) error {
	if err := s.err(); err != nil {
		return err
	}
	for try := 0; ; try++ {
		_, changed := s.Leadership()
		err := s.changeOnce(ctx, m)
		if err == nil || !errors.Is(err, apierr.ErrUnavailable) || !s.pause(ctx, changed, try) {
			return err
		}
	}
}

func (s *Store) changeOnce(ctx context.Context, m *wherryv1.ChangeRequest) error {
	if s.leads() {
		return s.changeLocally(ctx, m)
	}
	p, err := s.leaderPeer()
	if err != nil {
		return err
	}
	asking, cancel := s.whileLeads(ctx, p.id)
	defer cancel()
	_, err = wherryv1.NewRaftClient(p.control).Change(asking, m)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		return apierr.Unavailable("the leader %s is lost", p.id)
	}
	return apierr.FromGRPC(err)
}

// changeLocally makes a change of this replica's own as the leader. A member
// tells only a leader that it has caught up: who is none any more while it waits
// for that must ask the next one.
func (s *Store) changeLocally(ctx context.Context, m *wherryv1.ChangeRequest) error {
	if m.GetPromoteId() == "" {
		return s.changeHere(ctx, m)
	}
	leading, cancel := s.whileLeads(ctx, s.cfg.ID)
	defer cancel()
	err := s.changeHere(leading, m)
	if err != nil && leading.Err() != nil && ctx.Err() == nil {
		return errNotLeader
	}
	return err
}

// changeHere makes a change as the leader.
func (s *Store) changeHere(ctx context.Context, m *wherryv1.ChangeRequest) error {
	servers, err := s.servers()
	if err != nil {
		return err
	}
	member := func(id string) *raft.Server {
		for i := range servers {
			if string(servers[i].ID) == id {
				return &servers[i]
			}
		}
		return nil
	}
	switch c := m.GetChange().(type) {
	case *wherryv1.ChangeRequest_Add:
		return s.add(ctx, member(c.Add.GetId()), c.Add)
	case *wherryv1.ChangeRequest_PromoteId:
		return s.promote(ctx, member(c.PromoteId), c.PromoteId)
	case *wherryv1.ChangeRequest_RemoveId:
		return s.remove(ctx, servers, member(c.RemoveId))
	case *wherryv1.ChangeRequest_TransferToId:
		return s.transfer(ctx, member(c.TransferToId), c.TransferToId)
	}
	return apierr.BadRequest("a change of the members that this version does not know")
}

func (s *Store) add(ctx context.Context, now *raft.Server, m *wherryv1.AddMember) error {
	id, address := raft.ServerID(m.GetId()), raft.ServerAddress(m.GetAddress())
	switch {
	case now == nil:
		return changed(s.await(ctx, s.raft.AddNonvoter(id, address, 0, within(ctx))))
	case now.Address == address:
		return nil
	case m.GetId() != s.cfg.ID && s.transport.lives(ctx, m.GetId()):
		return apierr.New(apierr.ErrConflict, "member %s answers at %s, and another controld says that it is %s at %s: %s", id, now.Address, id, address, twice)
	case now.Suffrage == raft.Voter:
		return changed(s.await(ctx, s.raft.AddVoter(id, address, 0, within(ctx))))
	}
	return changed(s.await(ctx, s.raft.AddNonvoter(id, address, 0, within(ctx))))
}

// remove takes a member out, unless nobody were left to vote.
func (s *Store) remove(ctx context.Context, all []raft.Server, gone *raft.Server) error {
	if gone == nil {
		return nil
	}
	voters := 0
	for _, m := range all {
		if m.Suffrage == raft.Voter && m.ID != gone.ID {
			voters++
		}
	}
	if voters == 0 {
		return apierr.BadRequest("%s is the only member that votes: nothing would be left; join another controld first", gone.ID)
	}
	return changed(s.await(ctx, s.raft.RemoveServer(gone.ID, 0, within(ctx))))
}

// catchUp is how many entries behind a member may be when it gets its vote.
const catchUp = 256

func (s *Store) promote(ctx context.Context, now *raft.Server, id string) error {
	if now == nil {
		return apierr.NotFound("members", id)
	}
	if now.Suffrage == raft.Voter {
		return nil
	}
	for {
		target := s.raft.LastIndex()
		if err := s.transport.waitAcked(ctx, id, target); err != nil {
			return apierr.New(apierr.ErrTimeout, "the member does not catch up: %w", err)
		}
		if s.raft.LastIndex() <= target+catchUp {
			break
		}
	}
	return changed(s.await(ctx, s.raft.AddVoter(now.ID, now.Address, 0, within(ctx))))
}

func (s *Store) transfer(ctx context.Context, to *raft.Server, id string) error {
	switch {
	case id == s.cfg.ID:
		return nil
	case id == "" && s.voters() < 2:
		return apierr.BadRequest("no other member votes, so none can lead")
	case id == "":
		return changed(s.await(ctx, s.raft.LeadershipTransfer()))
	case to == nil:
		return apierr.NotFound("members", id)
	case to.Suffrage != raft.Voter:
		return apierr.BadRequest("member %s has no vote yet, so it cannot lead: try again when it has caught up", id)
	case s.transport.isAway(id):
		return apierr.New(apierr.ErrConflict, "member %s does not answer, so it cannot lead: choose another", id)
	}
	return changed(s.await(ctx, s.raft.LeadershipTransferToServer(to.ID, to.Address)))
}

// changed says which failures may be tried again.
func changed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return apierr.New(apierr.ErrTimeout, "the change was not confirmed; it may or may not be done: %w", err)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost),
		errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return apierr.Unavailable("%w", err)
	}
	return apierr.Internal(err)
}

// within is the time left of ctx, for an interface without contexts.
func within(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), time.Millisecond)
	}
	return 10 * time.Second
}

// announce tells the others if this member is listed under an address that it
// does not have any more. They cannot reach it, so it asks each in turn.
func (s *Store) announce() {
	members := s.Members()
	var stale bool
	for _, m := range members {
		stale = stale || m.ID == s.cfg.ID && m.Address != s.cfg.Address
	}
	if !stale {
		return
	}
	m := &wherryv1.ChangeRequest{
		Change: &wherryv1.ChangeRequest_Add{Add: &wherryv1.AddMember{Id: s.cfg.ID, Address: s.cfg.Address}},
		Relay:  true,
	}
	ctx, cancel := context.WithTimeout(s.ctx, 3*s.transport.callTimeout) // the leader looks whether somebody else has this id
	defer cancel()
	if s.leads() {
		if err := s.changeHere(ctx, m); err != nil {
			s.log.Warn("own address could not be changed", "err", err)
		}
		return
	}
	for _, other := range members {
		if other.ID == s.cfg.ID {
			continue
		}
		p, err := s.transport.peer(other.ID, other.Address)
		if err == nil {
			_, err = wherryv1.NewRaftClient(p.control).Change(ctx, m)
		}
		switch {
		case err == nil:
			s.log.Info("told the members the new address", "address", s.cfg.Address, "member", other.ID)
			return
		case errors.Is(apierr.FromGRPC(err), apierr.ErrConflict):
			s.fail(apierr.FromGRPC(err))
			return
		}
	}
}
