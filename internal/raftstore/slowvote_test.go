package raftstore

import (
	"errors"
	"flag"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

// long has tests wait for disks that are as slow as they may be.
var long = flag.Bool("long", false, "tests with very slow disks too; they take minutes")

// TestSlowElection lets a leader go while the disks of those that are left are
// slow, so that a vote takes longer than a candidate would wait: they elect
// another all the same, and write.
func TestSlowElection(t *testing.T) {
	delays := []time.Duration{300 * time.Millisecond}
	if *long {
		delays = append(delays, 2*time.Second)
	}
	for _, delay := range delays {
		t.Run(delay.String(), func(t *testing.T) {
			c, disks := faultyCluster(t, 3, Timeouts{Request: 2 * time.Minute})
			leader := c.leader()
			c.set(leader, "a", "1")
			before, _ := leader.Leadership()
			rest := c.but(leader)
			for _, m := range rest {
				disks[m.id].SetDelay(delay)
			}
			c.net.set(leader.id, true)
			cut := time.Now()
			testkit.Eventually(t, patience+60*delay, func() error {
				for _, m := range rest {
					if now, _ := m.Leadership(); now.Ready {
						t.Logf("%s leads after %v in term %d, before it was %d", m.id, time.Since(cut).Round(10*time.Millisecond), now.Term, before.Term)
						return nil
					}
				}
				return errors.New("there is no leader")
			})
			for _, d := range disks {
				d.SetDelay(0)
			}
			c.set(rest[0], "a", "2")
			c.net.set(leader.id, false)
			same(t, c)
		})
	}
}
