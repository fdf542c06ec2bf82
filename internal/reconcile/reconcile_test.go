package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

func put(t *testing.T, st *store.Local, resource, name string) {
	t.Helper()
	key := api.Key{Resource: resource, Namespace: "default", Name: name}
	r := &api.Record{Key: key, UID: name}
	if _, err := st.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: key, Record: r}}}); err != nil {
		t.Fatal(err)
	}
}

func newStore() *store.Local { return store.NewLocal(api.NewCodec(kinds.Table(), 0)) }

// run starts a controller and gives how to stop it.
func run(t *testing.T, c Controller, st Source) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, st, slog.New(slog.DiscardHandler)) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestLooksAtWhatIsThereAndAtWhatChanges(t *testing.T) {
	st := newStore()
	put(t, st, "things", "old")
	put(t, st, "others", "unwatched")
	seen := make(chan Key, 10)
	stop := run(t, Controller{Name: "t", Inputs: []Input{{Resource: "things"}}, Reconcile: func(_ context.Context, _ *store.Snapshot, k Key) (time.Duration, error) {
		seen <- k
		return 0, nil
	}}, st)
	defer stop()
	if k := <-seen; k != (Key{"default", "old"}) {
		t.Errorf("first %v", k)
	}
	put(t, st, "others", "unwatched2")
	put(t, st, "things", "new")
	if k := <-seen; k != (Key{"default", "new"}) {
		t.Errorf("then %v", k)
	}
}

func TestKeysOfAnother(t *testing.T) {
	st := newStore()
	seen := make(chan Key, 10)
	in := Input{Resource: "things", Keys: func(e store.Event, _ *store.Snapshot) []Key { return []Key{{"owners", e.Key().Name}} }}
	stop := run(t, Controller{Name: "t", Inputs: []Input{in}, Reconcile: func(_ context.Context, _ *store.Snapshot, k Key) (time.Duration, error) {
		seen <- k
		return 0, nil
	}}, st)
	defer stop()
	put(t, st, "things", "x")
	if k := <-seen; k != (Key{"owners", "x"}) {
		t.Errorf("%v", k)
	}
}

func TestOneKeyIsNeverWorkedOnTwiceAtOnce(t *testing.T) {
	st := newStore()
	var mu sync.Mutex
	busy, most, total := map[Key]int{}, 0, 0
	all := make(chan struct{})
	stop := run(t, Controller{Name: "t", Workers: 8, Inputs: []Input{{Resource: "things"}}, Reconcile: func(_ context.Context, s *store.Snapshot, k Key) (time.Duration, error) {
		mu.Lock()
		busy[k]++
		if busy[k] > 1 {
			t.Errorf("%v is worked on twice at once", k)
		}
		most = max(most, len(busy))
		mu.Unlock()
		_, _ = s.Get(api.Key{Resource: "things", Namespace: k.Namespace, Name: k.Name})
		mu.Lock()
		defer mu.Unlock()
		if busy[k]--; busy[k] == 0 {
			delete(busy, k)
		}
		if total++; total == 40 {
			close(all)
		}
		return 0, nil
	}}, st)
	defer stop()
	for i := range 200 { // 40 keys, five changes each: at least one look at each
		put(t, st, "things", fmt.Sprint(i%40))
	}
	select {
	case <-all:
	case <-time.After(10 * time.Second):
		t.Fatal("not every key was looked at")
	}
}

func TestFailuresAreTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		put(t, st, "things", "x")
		var tries []time.Duration
		start := time.Now()
		stop := run(t, Controller{Name: "t", Inputs: []Input{{Resource: "things"}}, Reconcile: func(context.Context, *store.Snapshot, Key) (time.Duration, error) {
			tries = append(tries, time.Since(start))
			if len(tries) == 5 {
				return 0, nil
			}
			return 0, errors.New("down")
		}}, st)
		time.Sleep(time.Hour)
		stop()
		ms := time.Millisecond
		want := []time.Duration{0, 5 * ms, 15 * ms, 35 * ms, 75 * ms}
		if fmt.Sprint(tries) != fmt.Sprint(want) {
			t.Errorf("tries at %v, want %v", tries, want)
		}
	})
}

func TestAskedForAnotherLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		put(t, st, "things", "x")
		var looks []time.Duration
		start := time.Now()
		stop := run(t, Controller{Name: "t", Inputs: []Input{{Resource: "things"}}, Reconcile: func(context.Context, *store.Snapshot, Key) (time.Duration, error) {
			looks = append(looks, time.Since(start))
			if len(looks) < 3 {
				return 10 * time.Second, nil
			}
			return 0, nil
		}}, st)
		time.Sleep(time.Hour)
		stop()
		if fmt.Sprint(looks) != fmt.Sprint([]time.Duration{0, 10 * time.Second, 20 * time.Second}) {
			t.Errorf("looks at %v", looks)
		}
	})
}

func TestPanicIsAFailure(t *testing.T) {
	st := newStore()
	put(t, st, "things", "x")
	again := make(chan struct{})
	n := 0
	stop := run(t, Controller{Name: "t", Inputs: []Input{{Resource: "things"}}, Reconcile: func(context.Context, *store.Snapshot, Key) (time.Duration, error) {
		if n++; n == 1 {
			panic("bug")
		}
		close(again)
		return 0, nil
	}}, st)
	defer stop()
	select {
	case <-again:
	case <-time.After(10 * time.Second):
		t.Fatal("a controller that panicked once never tried again")
	}
}
