package raftstore

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestSnapshotHangs lets a leader go silent, without a word, in the middle of a
// snapshot: the follower that was getting it votes, as soon as any other.
func TestSnapshotHangs(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	leader := c.leader()
	c.set(leader, "a", "1")
	victim := c.but(leader)[0]
	conn, err := c.config("test", "").Dial(t.Context(), victim.cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := wherryv1.NewRaftClient(conn).InstallSnapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	term := leader.raft.CurrentTerm()
	members := leader.raft.GetConfiguration()
	if err := members.Error(); err != nil {
		t.Fatal(err)
	}
	err = s.Send(&wherryv1.InstallSnapshotRequest{Part: &wherryv1.InstallSnapshotRequest_Header{Header: &wherryv1.SnapshotHeader{
		Header:  &wherryv1.RaftHeader{Protocol: 3, Id: leader.id, Address: leader.cfg.Address, To: victim.id},
		Version: 1, Term: term, LastIndex: leader.raft.LastIndex(), LastTerm: term, Size: 1 << 20,
		Configuration: raft.EncodeConfiguration(members.Configuration()), ConfigurationIndex: 1,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() error {
		names, err := victim.disk.snapshots.fs.ReadDir(victim.disk.snapshots.dir)
		if err == nil && len(names) == 0 {
			err = errors.New("the snapshot has not begun")
		}
		return err
	})
	c.net.set(leader.id, true)
	// The stream stays open all this time.
	testkit.Eventually(t, patience/2, func() error {
		for _, m := range c.but(leader) {
			if now, _ := m.Leadership(); now.Ready {
				return nil
			}
		}
		return errors.New("there is no leader")
	})
	if err := s.Context().Err(); err != nil {
		t.Logf("the stream: %v", err)
	}
	c.net.set(leader.id, false)
}
