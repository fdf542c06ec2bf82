package chaos

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// round is one step of a plan: what happens, to whom and for how long.
type round struct {
	fault string
	slots []int
	hold  time.Duration
	size  int // how bad
}

func (r round) String() string {
	return fmt.Sprintf("%s %v for %v, size %d", r.fault, r.slots, r.hold, r.size)
}

// faults are the kinds of a plan, each as often as it stands here.
var faults = []string{
	"kill", "kill", "kill all", "stop", "stop", "partition", "partition", "cut off",
	"slow disk", "full disk", "clock", "transfer", "replace", "kill leader", "stop leader",
}

// plan makes the rounds that a seed stands for.
func plan(seed int64, rounds, members int) []round {
	r := rand.New(rand.NewSource(seed))
	var all []round
	for range rounds {
		one := round{fault: faults[r.Intn(len(faults))], hold: time.Duration(150+r.Intn(700)) * time.Millisecond, size: 1 + r.Intn(5)}
		some := r.Perm(members)
		one.slots = some[:1+r.Intn(members-1)]
		if one.fault == "replace" {
			one.slots = some[:1]
		}
		all = append(all, one)
	}
	return all
}

// calm is how long clients work between two faults.
const calm = 200 * time.Millisecond

// number reads a setting of the run.
func number(t *testing.T, name string, otherwise int64) int64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestChaos has clients and watchers on three and on five members while a plan
// of faults is carried out. $WHERRY_CHAOS_ROUNDS makes it long; $WHERRY_CHAOS_SEED
// repeats a plan.
func TestChaos(t *testing.T) {
	seed := number(t, "WHERRY_CHAOS_SEED", time.Now().UnixNano()%1_000_000)
	rounds := int(number(t, "WHERRY_CHAOS_ROUNDS", 10))
	t.Logf("WHERRY_CHAOS_SEED=%d WHERRY_CHAOS_ROUNDS=%d; the wall clock jumps: %v", seed, rounds, clockJumps)
	for _, members := range []int{3, 5} {
		n := rounds / 2
		if members == 3 {
			n = rounds - n
		}
		t.Run(fmt.Sprint(members), func(t *testing.T) { run(t, seed+int64(members), n, members) })
	}
}

func run(t *testing.T, seed int64, rounds, members int) {
	c := newCluster(t, members)
	cs := newClients(c, 5, seed, time.Second, nil)
	ws := newWatchers(c, 2, seed)
	defer cs.end()
	defer ws.end()
	begun := time.Now()
	slowest := time.Duration(0)
	for i, one := range plan(seed, rounds, members) {
		if i%3 == 0 {
			cs.epoch.Add(1)
		}
		t.Logf("%6.1fs round %d: %s", time.Since(begun).Seconds(), i, one)
		c.carryOut(one)
		mended := time.Now()
		c.whole(cs.works)
		slowest = max(slowest, time.Since(mended))
		time.Sleep(calm)
	}
	cs.end()
	err := ws.check(cs.acked)
	ws.end()
	t.Logf("%d rounds, %d operations (%d left open), %d writes acknowledged, %d events watched, %d moves of watchers; the slowest recovery took %v",
		rounds, cs.done, cs.open, len(cs.acked), len(ws.events), ws.moves, slowest.Round(time.Millisecond))
	if err != nil {
		t.Errorf("what the watchers saw: %v", err)
	}
	if len(cs.acked) < 5*rounds {
		t.Errorf("only %d writes in %d rounds", len(cs.acked), rounds)
	}
	if result := cs.check(); result != porcupine.Ok {
		t.Errorf("the history is not linearizable: %v", result)
	}
}

// carryOut does a round, and mends what it has broken.
func (c *cluster) carryOut(one round) {
	c.t.Helper()
	var chosen []*slot
	for _, n := range one.slots {
		chosen = append(chosen, c.slots[n])
	}
	if strings.HasSuffix(one.fault, "leader") {
		chosen = nil
		if l := c.leader(); l != nil {
			chosen = []*slot{l}
		}
	}
	hold := func() { time.Sleep(one.hold) } // the length of the fault
	switch one.fault {
	case "kill all", "kill", "kill leader":
		if one.fault == "kill all" {
			chosen = c.slots
		}
		for _, s := range chosen {
			s.kill()
		}
		hold()
		for _, s := range chosen {
			c.restart(s)
		}
	case "stop", "stop leader":
		for _, s := range chosen {
			s.signal(syscall.SIGSTOP)
		}
		hold()
		for _, s := range chosen {
			s.signal(syscall.SIGCONT)
		}
	case "partition", "cut off":
		c.partition(chosen, one.fault == "cut off")
		hold()
		for _, s := range c.slots {
			s.breakIt(Faults{})
		}
	case "slow disk":
		c.faulty(chosen, Faults{Slow: time.Duration(one.size) * 40 * time.Millisecond}, hold)
	case "full disk":
		c.faulty(chosen, Faults{Full: true}, hold)
	case "clock":
		by := time.Duration(one.size-3) * time.Hour
		c.faulty(chosen, Faults{Clock: by - time.Minute}, hold)
	case "transfer":
		_ = chosen[0].ask("Transfer", time.Second, &struct{}{}, 2*time.Second) // there may be no leader just now
	case "replace":
		c.wipe(chosen[0])
	default:
		c.t.Fatalf("unknown fault %q", one.fault)
	}
}

func (c *cluster) restart(s *slot) {
	c.t.Helper()
	if err := s.start(false); err != nil {
		c.t.Fatal(err)
	}
}

// partition puts the chosen ones on one side; cut off, each on a side of its own.
func (c *cluster) partition(chosen []*slot, alone bool) {
	side := map[*slot]int{}
	for i, s := range chosen {
		if side[s] = 1; alone {
			side[s] = 1 + i
		}
	}
	for _, s := range c.slots {
		var cut []string
		for _, other := range c.slots {
			if side[other] != side[s] {
				cut = append(cut, other.address)
			}
		}
		s.breakIt(Faults{Cut: cut})
	}
}

// faulty lets members have a fault for a while. Who cannot go on with a full
// disk is started again when there is room.
func (c *cluster) faulty(chosen []*slot, f Faults, hold func()) {
	c.t.Helper()
	for _, s := range chosen {
		s.breakIt(f)
	}
	hold()
	for _, s := range chosen {
		s.breakIt(Faults{})
		if log, died := s.died(); died {
			if !f.Full {
				c.t.Fatalf("member %s has ended:\n%s", s.id, log)
			}
			s.kill()
			c.restart(s)
		}
	}
}

// wipe takes a member's disk away; a new member gets its place.
func (c *cluster) wipe(s *slot) {
	c.t.Helper()
	old := s.id
	s.kill()
	if err := os.RemoveAll(s.dir()); err != nil {
		c.t.Fatal(err)
	}
	s.begin()
	c.restart(s)
	c.replace(old, s)
}

// TestStaleReadIsFound has one read in three take any state, and the checker
// find that.
func TestStaleReadIsFound(t *testing.T) {
	seed := number(t, "WHERRY_CHAOS_SEED", time.Now().UnixNano()%1_000_000)
	t.Logf("WHERRY_CHAOS_SEED=%d", seed)
	c := newCluster(t, 3)
	// On a busy machine nothing may be written in time, or nothing read that is
	// stale: then there is nothing to find, yet.
	until := time.Now().Add(2 * patience)
	for tries := int64(1); ; tries++ {
		cs := newClients(c, 4, seed+tries, time.Duration(tries)*50*time.Millisecond, func(r *rand.Rand) bool { return r.Intn(3) == 0 })
		for range 3 {
			c.carryOut(round{fault: "partition", slots: []int{int(seed % 3)}, hold: 700 * time.Millisecond})
		}
		cs.end()
		result := cs.check()
		if result == porcupine.Illegal {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d operations with stale reads: %v, want Illegal", len(cs.history), result)
		}
	}
}
