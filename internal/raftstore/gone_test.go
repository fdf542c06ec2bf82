package raftstore

import "testing"

// TestGoneMemberIsForgotten has nothing stay of a member that was taken out: each
// that is rebuilt has another id.
func TestGoneMemberIsForgotten(t *testing.T) {
	c := newClusterWith(t, 3, Limits{}, calm)
	leader := c.leader()
	c.set(leader, "a", "1")
	gone := c.but(leader)[0]
	knows := func() bool {
		tr := leader.transport
		tr.pulseMu.Lock()
		defer tr.pulseMu.Unlock()
		tr.ackMu.Lock()
		defer tr.ackMu.Unlock()
		return tr.pulses[gone.id] != nil || tr.acked[gone.id] != 0
	}
	eventually(t, "the leader hears of it", knows)
	if err := leader.RemoveMember(c.ctx(), gone.id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is forgotten", func() bool { return !knows() })
	c.set(leader, "a", "2")
}
