package chaos

import (
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/wherry-project/wherry/internal/store"
)

// clients do random operations on random members and write down what they see.
type clients struct {
	c        *cluster
	number   int // of the cluster's: keys are of these clients alone
	start    time.Time
	epoch    atomic.Int64 // keys are new in each, so that histories stay short
	stale    func(*rand.Rand) bool
	patience time.Duration
	stop     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup

	mu      sync.Mutex
	history []porcupine.Operation
	acked   []acked
	done    int
	open    int
}

// acked is a write that was acknowledged.
type acked struct {
	revision uint64
	what     string
}

// pairsAtOnce is how many pairs of keys the clients share at a time.
const pairsAtOnce = 3

func newClients(c *cluster, n int, seed int64, patience time.Duration, stale func(*rand.Rand) bool) *clients {
	c.crowds++
	cs := &clients{c: c, number: c.crowds, start: time.Now(), stale: stale, patience: patience, stop: make(chan struct{})}
	for id := range n {
		cs.wg.Go(func() { cs.run(id, seed+int64(id)) })
	}
	return cs
}

func (cs *clients) end() {
	cs.once.Do(func() { close(cs.stop) })
	cs.wg.Wait()
}

// pair names a pair of keys of now. A command that has several keys has those of
// one pair.
func (cs *clients) pair(which any) [2]string {
	name := fmt.Sprintf("c%d-e%d-%v-", cs.number, cs.epoch.Load(), which)
	return [2]string{name + "a", name + "b"}
}

// random makes an operation on a pair, of which these revisions were seen.
func random(r *rand.Rand, pair [2]string, value string, seen map[string]uint64) Op {
	one := r.Intn(2)
	key, other, at := pair[one], pair[1-one], seen[pair[one]]
	kind := []string{"read", "read", "read", "set", "set", "cas", "create", "delete", "both", "both"}[r.Intn(10)]
	if at == 0 && (kind == "cas" || kind == "both") {
		kind = "read"
	}
	switch kind {
	case "set":
		return set(key, value, store.Cond{})
	case "cas":
		return set(key, value, store.Cond{Revision: at})
	case "create":
		return set(key, value, store.Cond{Absent: true})
	case "delete":
		return Op{Steps: []Step{{Key: key, Do: store.Delete, If: store.Cond{Revision: at * uint64(r.Intn(2))}}}}
	case "both":
		op := set(key, value, store.Cond{Revision: at})
		op.Steps = append(op.Steps, []Step{
			{Key: other, Value: value, Do: store.Put, If: store.Cond{Absent: true}},
			{Key: other, Value: value, Do: store.Put},
			{Key: other, Do: store.Delete},
			{Key: other, Do: store.Check, If: store.Cond{Absent: true}},
			{Key: other, Do: store.Check, If: store.Cond{Revision: seen[other]}},
		}[r.Intn(5)])
		return op
	}
	return Op{Key: key}
}

func (cs *clients) run(id int, seed int64) {
	r := rand.New(rand.NewSource(seed))
	seen := map[string]uint64{}
	for i := 0; ; i++ {
		select {
		case <-cs.stop:
			return
		case <-time.After(time.Duration(r.Intn(4)) * time.Millisecond):
		}
		op := random(r, cs.pair(r.Intn(pairsAtOnce)), fmt.Sprintf("%d-%d", id, i), seen)
		op.Patience = cs.patience
		op.Stale = op.Steps == nil && cs.stale != nil && cs.stale(r)
		out := cs.do(id, cs.c.slots[r.Intn(len(cs.c.slots))], op)
		if out.Revision != 0 && op.Steps == nil {
			seen[op.Key] = out.Revision
		}
		for _, step := range op.Steps {
			if out.OK && step.Do == store.Put {
				seen[step.Key] = out.Revision
			}
		}
	}
}

// do does one operation and writes it down.
func (cs *clients) do(id int, at *slot, op Op) Done {
	call := time.Since(cs.start)
	out, answer := Done{Unknown: true}, new(Done)
	switch err := at.ask("Do", op, answer, op.Patience+500*time.Millisecond); err {
	case nil:
		out = *answer
	case errNotThere:
		return out // it has not been sent, so there is nothing to write down
	} // else an answer may still be on its way into answer
	end := int64(time.Since(cs.start))
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.done++
	if out.Unknown {
		if op.Steps == nil || out.Not {
			return out // a read that failed says nothing; a command that was not done never shows
		}
		cs.open++
		end = 1<<62 - 1 // it may be done at any later time
	}
	cs.history = append(cs.history, porcupine.Operation{ClientId: id, Input: op, Call: int64(call), Output: out, Return: end})
	if out.OK {
		cs.acked = append(cs.acked, acked{out.Revision, op.what()})
	}
	return out
}

// works does a write and a linearizable read on a member, as one more client.
func (cs *clients) works(at *slot) bool {
	key := cs.pair("works")[0]
	write, read := set(key, fmt.Sprint(time.Since(cs.start)), store.Cond{}), Op{Key: key, Patience: time.Second}
	write.Patience = time.Second
	return !cs.do(-1-at.number, at, write).Unknown && !cs.do(-1-at.number, at, read).Unknown
}

func (cs *clients) check() porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model(), cs.history, 4*time.Minute)
}
