package raftstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

// A register per key: reads, writes, and compare-and-set at a revision.
type input struct {
	kind, key string // "read", "write", "cas"
	value     string
	revision  uint64 // of cas
}

type output struct {
	value    string
	revision uint64
	ok       bool // cas: the condition held
	unknown  bool // it may or may not have been done
}

type register struct {
	value    string
	revision uint64 // 0 while a write whose revision nobody knows was the last
	any      bool
}

// model says which outcomes a linearizable store may have.
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, o := range history {
				by[o.Input.(input).key] = append(by[o.Input.(input).key], o)
			}
			var parts [][]porcupine.Operation
			for _, part := range by {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return register{} },
		Step: func(state, in, out any) (bool, any) { return step(state.(register), in.(input), out.(output)) },
	}
}

func step(s register, in input, out output) (bool, any) {
	switch in.kind {
	case "read":
		if out.unknown {
			return true, s
		}
		if s.any { // the revision of an open write shows now
			return out.value == s.value, register{value: s.value, revision: out.revision}
		}
		return out.value == s.value && out.revision == s.revision, s
	case "write":
		if out.unknown {
			return true, register{value: in.value, any: true}
		}
		return s.any || out.revision > s.revision, register{value: in.value, revision: out.revision}
	}
	// cas
	holds := s.revision == in.revision || s.any
	switch {
	case out.unknown && !holds, !out.unknown && !out.ok:
		// With an open write before it the revision is not known, so either.
		return out.unknown || s.revision != in.revision || s.any, s
	case out.unknown:
		return true, register{value: in.value, any: true}
	}
	return holds, register{value: in.value, revision: out.revision}
}

// recorder writes the history down.
type recorder struct {
	mu      sync.Mutex
	start   time.Time
	history []porcupine.Operation
}

func (r *recorder) do(client int, in input, f func() output) output {
	call := time.Since(r.start)
	out := f()
	end := time.Since(r.start)
	if out.unknown {
		if in.kind == "read" {
			return out // a read that failed says nothing
		}
		end = 1<<62 - 1 // it may be done at any later time
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(end)})
	return out
}

// client does random operations on random members until stop.
func client(t *testing.T, c *cluster, rec *recorder, id int, seed int64, stop <-chan struct{}, patience time.Duration, level func(*rand.Rand) store.Level) {
	r := rand.New(rand.NewSource(seed))
	seen := map[string]uint64{}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		all := c.all()
		if len(all) == 0 {
			return // the test has failed
		}
		m := all[r.Intn(len(all))]
		key := fmt.Sprint("k", r.Intn(3))
		in := input{kind: []string{"read", "read", "write", "cas"}[r.Intn(4)], key: key, value: fmt.Sprintf("%d-%d", id, i)}
		if in.kind == "cas" {
			if in.revision = seen[key]; in.revision == 0 {
				in.kind = "read"
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		at := store.At{Level: level(r)}
		out := rec.do(id, in, func() output { return perform(ctx, m.Store, in, at) })
		cancel()
		if out.revision != 0 {
			seen[key] = out.revision
		}
		if out.unknown {
			id += 1000 // an open operation stays open: this is another client
		}
	}
}

func perform(ctx context.Context, s *Store, in input, at store.At) output {
	key := storetest.Key(in.key)
	if in.kind == "read" {
		snap, err := s.Snapshot(ctx, at)
		if err != nil {
			return output{unknown: true}
		}
		value, revision := storetest.Value(snap, key)
		return output{value: value, revision: revision}
	}
	revision, err := s.Commit(ctx, storetest.Set(key, in.value, store.Cond{Revision: in.revision}))
	var compare *store.CompareError
	switch {
	case errors.As(err, &compare):
		return output{}
	case err != nil:
		return output{unknown: true}
	}
	return output{revision: revision, ok: true}
}

func seed(t *testing.T) int64 {
	s := time.Now().UnixNano() % 100000
	if given := os.Getenv("RAFT_SEED"); given != "" {
		var err error
		if s, err = strconv.ParseInt(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("RAFT_SEED=%d", s)
	return s
}

// TestLinearizable records what concurrent clients on three members see while
// members are killed, cut off and asked to hand over, and has it checked.
func TestLinearizable(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewSource(s))
	c := newCluster(t, 3, Limits{SnapshotEntries: 400, TrailingEntries: 100})
	rec := &recorder{start: time.Now()}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for id := range 5 {
		wg.Go(func() {
			client(t, c, rec, id, s+int64(id), stop, 800*time.Millisecond, func(*rand.Rand) store.Level { return store.Linearizable })
		})
	}
	for round := range 8 {
		m := c.all()[r.Intn(3)]
		fault := []string{"kill", "cut", "transfer"}[r.Intn(3)]
		t.Logf("round %d: %s %s (leads: %v)", round, fault, m.id, m.IsLeader())
		pause := time.Duration(200+r.Intn(400)) * time.Millisecond
		switch fault {
		case "kill":
			c.stop(m, true)
			time.Sleep(pause)
			c.restart(m)
		case "cut":
			c.net.set(m.id, true)
			time.Sleep(pause)
			c.net.set(m.id, false)
		case "transfer":
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := m.TransferLeadership(ctx, ""); err != nil {
				t.Log(err) // there may be no leader just now
			}
			cancel()
		}
		c.leader()
		time.Sleep(200 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	open := 0
	for _, o := range rec.history {
		if o.Output.(output).unknown {
			open++
		}
	}
	t.Logf("%d operations, %d left open", len(rec.history), open)
	if len(rec.history) < 300 {
		t.Errorf("only %d operations", len(rec.history))
	}
	if result := porcupine.CheckOperationsTimeout(model(), rec.history, 20*time.Second); result != porcupine.Ok {
		t.Fatalf("the history is not linearizable: %v", result)
	}
}

// TestBrokenReadIsFound has one read in three be stale and the checker find it.
func TestBrokenReadIsFound(t *testing.T) {
	s := seed(t)
	c := newCluster(t, 3, Limits{})
	cut := c.followers()[0]
	rec := &recorder{start: time.Now()}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for id := range 4 {
		wg.Go(func() {
			client(t, c, rec, id, s+int64(id), stop, 20*time.Millisecond, func(r *rand.Rand) store.Level {
				if r.Intn(3) == 0 {
					return store.Any
				}
				return store.Linearizable
			})
		})
	}
	time.Sleep(200 * time.Millisecond)
	c.net.set(cut.id, true)
	time.Sleep(time.Second)
	c.net.set(cut.id, false)
	close(stop)
	wg.Wait()
	if result := porcupine.CheckOperationsTimeout(model(), rec.history, 20*time.Second); result != porcupine.Illegal {
		t.Fatalf("%d operations with stale reads: %v, want Illegal", len(rec.history), result)
	}
}

func TestModel(t *testing.T) {
	at := func(i int64, in input, out output) porcupine.Operation {
		return porcupine.Operation{ClientId: int(i), Input: in, Call: 2 * i, Output: out, Return: 2*i + 1}
	}
	for name, test := range map[string]struct {
		history []porcupine.Operation
		legal   bool
	}{
		"read after write": {[]porcupine.Operation{
			at(1, input{kind: "write", value: "a"}, output{revision: 5}),
			at(2, input{kind: "read"}, output{value: "a", revision: 5})}, true},
		"stale read": {[]porcupine.Operation{
			at(1, input{kind: "write", value: "a"}, output{revision: 5}),
			at(2, input{kind: "write", value: "b"}, output{revision: 6}),
			at(3, input{kind: "read"}, output{value: "a", revision: 5})}, false},
		"two at one revision": {[]porcupine.Operation{
			at(1, input{kind: "write", value: "a"}, output{revision: 5}),
			at(2, input{kind: "cas", value: "b", revision: 5}, output{revision: 6, ok: true}),
			at(3, input{kind: "cas", value: "c", revision: 5}, output{revision: 7, ok: true})}, false},
		"lost write": {[]porcupine.Operation{
			at(1, input{kind: "write", value: "a"}, output{revision: 5}),
			at(2, input{kind: "read"}, output{})}, false},
		"revision goes back": {[]porcupine.Operation{
			at(1, input{kind: "write", value: "a"}, output{revision: 5}),
			at(2, input{kind: "write", value: "b"}, output{revision: 4})}, false},
	} {
		if got := porcupine.CheckOperations(model(), test.history); got != test.legal {
			t.Errorf("%s: %v, want %v", name, got, test.legal)
		}
	}
}
