package raftstore

import (
	"errors"
	"flag"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
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

// TestVoteInOneSync stores votes as the library does: with one sync each, and a
// power cut in between leaves the vote before as it was.
func TestVoteInOneSync(t *testing.T) {
	mem := diskfault.NewMem(rand.New(rand.NewPCG(1, 1)))
	faulty := diskfault.NewFaulty(mem)
	d, err := openDiskOn(faulty, "/m1", "m1", "", LogWherry, raftLogger{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	vote := func(s raft.StableStore, term uint64, whom string) {
		if err := errors.Join(s.SetUint64([]byte(keyVoteTerm), term), s.Set([]byte(keyVoteFor), []byte(whom))); err != nil {
			t.Fatal(err)
		}
	}
	check := func(s raft.StableStore, term uint64, whom string) {
		t.Helper()
		got, err := s.GetUint64([]byte(keyVoteTerm))
		who, err2 := s.Get([]byte(keyVoteFor))
		if got != term || string(who) != whom || errors.Join(err, err2) != nil {
			t.Errorf("the vote of term %d is for %q, want %d, %q: %v", got, who, term, whom, errors.Join(err, err2))
		}
	}
	before := faulty.Syncs()
	vote(d.stable, 1, "a")
	if n := faulty.Syncs() - before; n != 1 {
		t.Errorf("a vote took %d syncs", n)
	}
	check(d.stable, 1, "a")
	if err := d.stable.SetUint64([]byte(keyVoteTerm), 2); err != nil {
		t.Fatal(err)
	}
	check(d.stable, 2, "a") // as the library reads what it wrote
	mem.Restart()
	if d, err = openDiskOn(faulty, "/m1", "m1", "", LogWherry, raftLogger{log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	check(d.stable, 1, "a")
	// Whatever comes next, the term is not behind it.
	if err := errors.Join(d.stable.SetUint64([]byte(keyVoteTerm), 3), d.stable.SetUint64([]byte(keyTerm), 4)); err != nil {
		t.Fatal(err)
	}
	mem.Restart()
	if d, err = openDiskOn(faulty, "/m1", "m1", "", LogWherry, raftLogger{log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	check(d.stable, 3, "a")
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}

// TestElectionTimeout looks how long candidates wait, by what disks do.
func TestElectionTimeout(t *testing.T) {
	const configured = 450 * time.Millisecond
	for sync, want := range map[time.Duration]time.Duration{
		0: configured, 70 * time.Millisecond: configured, 80 * time.Millisecond: 2 * configured,
		300 * time.Millisecond: 4 * configured, 2 * time.Second: 32 * configured, time.Hour: 512 * configured,
	} {
		if got := electionTimeout(configured, sync); got != want {
			t.Errorf("where a sync takes %s: %s, want %s", sync, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var w diskWatch
		do := func(d time.Duration) {
			done := w.begin(true)
			time.Sleep(d)
			done()
		}
		expect := func(what string, want time.Duration) {
			t.Helper()
			if got := w.sync(time.Now()); got != want {
				t.Errorf("%s: a sync takes %s, want %s", what, got, want)
			}
		}
		for range 3 {
			do(time.Millisecond)
		}
		do(2 * time.Second)
		expect("a single slow one", time.Millisecond)
		do(3 * time.Second)
		expect("two slow ones", 2*time.Second)
		done := w.begin(true)
		time.Sleep(10 * time.Second)
		expect("one that is on its way", 10*time.Second)
		done()
		do(time.Millisecond)
		expect("one quick one", 3*time.Second)
		do(time.Millisecond)
		expect("two quick ones", time.Millisecond)
		do(2 * time.Second)
		do(2 * time.Second)
		time.Sleep(calmFor)
		expect("an election later", 2*time.Second)
		time.Sleep(calmFor)
		expect("long ago", 0)
	})
}

// TestVoteIsGiven asks who has voted whether another may try for the same vote.
func TestVoteIsGiven(t *testing.T) {
	c := newClusterWith(t, 1, Limits{}, Timeouts{Heartbeat: patience, Election: patience, Lease: patience - time.Second})
	m := c.leader()
	if err := errors.Join(m.disk.stable.SetUint64([]byte(keyVoteTerm), 100), m.disk.stable.Set([]byte(keyVoteFor), []byte("a"))); err != nil {
		t.Fatal(err)
	}
	if !m.votes(100, "b") || m.votes(100, "a") || m.votes(101, "b") {
		t.Errorf("of term 100: another %v, the same one %v; of the next term: %v", m.votes(100, "b"), m.votes(100, "a"), m.votes(101, "b"))
	}
	long := time.Now().Add(-patience)
	m.disk.stable.(*stableStore).at.Store(&long)
	if m.votes(100, "b") {
		t.Error("whoever got the vote is given up some time")
	}
}
