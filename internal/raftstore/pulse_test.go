package raftstore

import (
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestComesBackAtOnce has a follower away while the leader writes. The library
// would try to reach it less and less often, in the end every ten seconds.
func TestComesBackAtOnce(t *testing.T) {
	// One of a few times: on a loaded machine a start alone may take long.
	var took time.Duration
	for range 4 {
		if took = comesBack(t); took <= time.Second {
			t.Logf("serves after %v", took.Round(time.Millisecond))
			return
		}
		t.Logf("served after %v", took)
	}
	t.Errorf("a follower that came back serves after %v", took)
}

// comesBack has a follower away for a while, and gives how long it then takes
// until it serves.
func comesBack(t *testing.T) time.Duration {
	t.Helper()
	c := newCluster(t, 3, Limits{})
	leader := c.leader()
	away := c.but(leader)[0]
	c.stop(away, true)
	for i, gone := 0, time.Now(); time.Since(gone) < 3*time.Second; i++ {
		c.set(leader, "a", strconv.Itoa(i))
		time.Sleep(20 * time.Millisecond) // as writes come
	}
	want := c.get(leader, "a")
	back := time.Now()
	away = c.restart(away)
	if got := c.get(away, "a"); got != want {
		t.Errorf("the follower that came back reads %q, want %q", got, want)
	}
	return time.Since(back)
}

// TestAwayIsForgotten removes a member that is away, and deposes the leader
// that waits for another: nothing keeps waiting for them.
func TestAwayIsForgotten(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	leader := c.leader()
	away := c.but(leader)[0]
	c.stop(away, true)
	c.set(leader, "a", "1")
	eventually(t, "the leader waits for the member", func() bool { return c.leader().transport.waitsFor(away.id) })
	if err := leader.RemoveMember(c.ctx(), away.id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody waits any longer for a removed member", func() bool {
		return !slices.ContainsFunc(c.all(), func(m *member) bool { return m.transport.waitsFor(away.id) })
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
