package chaos

import (
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
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
	revision   uint64
	key, value string
}

// keysAtOnce is how many keys the clients share at a time.
const keysAtOnce = 3

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

// key names a key of now.
func (cs *clients) key(which any) string {
	return fmt.Sprintf("c%d-e%d-%v", cs.number, cs.epoch.Load(), which)
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
		op := Op{
			Kind: []string{"read", "read", "write", "cas"}[r.Intn(4)],
			Key:  cs.key(r.Intn(keysAtOnce)), Value: fmt.Sprintf("%d-%d", id, i),
			Patience: cs.patience,
		}
		if op.Kind == "cas" {
			if op.Revision = seen[op.Key]; op.Revision == 0 {
				op.Kind = "read"
			}
		}
		op.Stale = op.Kind == "read" && cs.stale != nil && cs.stale(r)
		if out := cs.do(id, cs.c.slots[r.Intn(len(cs.c.slots))], op); out.Revision != 0 {
			seen[op.Key] = out.Revision
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
		if op.Kind == "read" {
			return out // a read that failed says nothing
		}
		cs.open++
		end = 1<<62 - 1 // it may be done at any later time
	}
	cs.history = append(cs.history, porcupine.Operation{ClientId: id, Input: op, Call: int64(call), Output: out, Return: end})
	if op.Kind != "read" && !out.Unknown && (op.Kind == "write" || out.OK) {
		cs.acked = append(cs.acked, acked{out.Revision, op.Key, op.Value})
	}
	return out
}

// works does a write and a linearizable read on a member, as one more client.
func (cs *clients) works(at *slot) bool {
	op := Op{Kind: "write", Key: cs.key("works"), Value: fmt.Sprint(time.Since(cs.start)), Patience: time.Second}
	if cs.do(-1-at.number, at, op).Unknown {
		return false
	}
	op.Kind = "read"
	return !cs.do(-1-at.number, at, op).Unknown
}

func (cs *clients) check() porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model(), cs.history, 4*time.Minute)
}
