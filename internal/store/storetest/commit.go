package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

func testConditions(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	s := all[len(all)-1]
	key, none := Key("a"), Key("none")
	first := commit(t, s, Set(key, "1", store.Cond{Absent: true}))
	second := commit(t, s, Set(key, "2", store.Cond{Revision: first, UID: "u-a"}))
	if second != first+1 {
		t.Errorf("revisions %d and %d, want one after the other", first, second)
	}
	check := func(key api.Key, cond store.Cond) store.Command {
		return store.Command{Changes: []store.Change{{Op: store.Check, Key: key, If: cond}}}
	}
	for _, test := range []struct {
		name    string
		command store.Command
		holds   bool
	}{
		{"put absent over one", Set(key, "x", store.Cond{Absent: true}), false},
		{"put at an old revision", Set(key, "x", store.Cond{Revision: first}), false},
		{"put at a future revision", Set(key, "x", store.Cond{Revision: second + 100}), false},
		{"put with another uid", Set(key, "x", store.Cond{UID: "u-b"}), false},
		{"put at a revision of none", Set(none, "x", store.Cond{Revision: 1}), false},
		{"put with the uid of none", Set(none, "x", store.Cond{UID: "u-none"}), false},
		{"delete none", Del(none, store.Cond{}), false},
		{"delete at an old revision", Del(key, store.Cond{Revision: first}), false},
		{"delete with another uid", Del(key, store.Cond{UID: "u-b"}), false},
		{"check none", check(none, store.Cond{}), false},
		{"check absent one", check(key, store.Cond{Absent: true}), false},
		{"check an old revision", check(key, store.Cond{Revision: first}), false},
		{"check absent none", check(none, store.Cond{Absent: true}), true},
		{"check", check(key, store.Cond{}), true},
		{"check revision and uid", check(key, store.Cond{Revision: second, UID: "u-a"}), true},
		{"put without condition", Set(key, "3", store.Cond{}), true},
		{"put with uid", Set(key, "4", store.Cond{UID: "u-a"}), true},
		{"delete with uid", Del(key, store.Cond{UID: "u-a"}), true},
		{"put again", Set(key, "5", store.Cond{Absent: true}), true},
	} {
		before := snapshot(t, s, store.At{})
		_, err := s.Commit(timeout(t), test.command)
		var compare *store.CompareError
		switch {
		case test.holds && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case !test.holds && !errors.As(err, &compare):
			t.Errorf("%s: %v, want a CompareError", test.name, err)
		case !test.holds:
			_, current := Value(before, test.command.Changes[0].Key)
			if compare.Key != test.command.Changes[0].Key || compare.Current != current {
				t.Errorf("%s: %+v, want current %d", test.name, compare, current)
			}
			if after := snapshot(t, s, store.At{}); after.Revision() != before.Revision() {
				t.Errorf("%s: took revision %d", test.name, after.Revision())
			}
		}
	}
}

func testAllOrNothing(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	a, b, c := Key("a"), Key("b"), Key("c")
	first := commit(t, s, Set(a, "1", store.Cond{}))
	two := store.Command{Changes: []store.Change{
		{Op: store.Put, Key: b, Record: Record(b, "1"), If: store.Cond{Absent: true}},
		{Op: store.Delete, Key: a, If: store.Cond{Revision: first + 7}},
		{Op: store.Put, Key: c, Record: Record(c, "1")},
	}}
	var compare *store.CompareError
	if _, err := s.Commit(timeout(t), two); !errors.As(err, &compare) || compare.Key != a {
		t.Fatalf("commit: %v, want a CompareError of %s", err, a)
	}
	snap := snapshot(t, s, store.At{})
	if got := snap.Count("configmaps", ""); got != 1 || snap.Revision() != first {
		t.Fatalf("%d records at %d, want 1 at %d", got, snap.Revision(), first)
	}
	two.Changes[1].If.Revision = first
	revision := commit(t, s, two)
	snap = snapshot(t, s, store.At{})
	for key, want := range map[api.Key]uint64{a: 0, b: revision, c: revision} {
		if _, got := Value(snap, key); got != want {
			t.Errorf("%s is at %d, want %d", key, got, want)
		}
	}
}

func testCheckTakesNoRevision(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	first := commit(t, s, Set(Key("a"), "1", store.Cond{}))
	got := commit(t, s, store.Command{Changes: []store.Change{{Op: store.Check, Key: Key("a")}}})
	if got != first || snapshot(t, s, store.At{}).Revision() != first {
		t.Errorf("a check moved the revision from %d to %d", first, got)
	}
}

func testRefusals(t *testing.T, open Open) {
	all := open(t, store.Limits{CommandBytes: 64 << 10})
	s := all[len(all)-1]
	a := Key("a")
	for name, test := range map[string]struct {
		command store.Command
		kind    error
	}{
		"empty":         {store.Command{}, apierr.ErrBadRequest},
		"key twice":     {store.Command{Changes: []store.Change{{Op: store.Check, Key: a}, {Op: store.Delete, Key: a}}}, apierr.ErrBadRequest},
		"no record":     {store.Command{Changes: []store.Change{{Op: store.Put, Key: a}}}, apierr.ErrBadRequest},
		"another's":     {store.Command{Changes: []store.Change{{Op: store.Put, Key: a, Record: Record(Key("b"), "")}}}, apierr.ErrBadRequest},
		"no operation":  {store.Command{Changes: []store.Change{{Key: a}}}, apierr.ErrBadRequest},
		"no name":       {Set(api.Key{Resource: "pods"}, "1", store.Cond{}), apierr.ErrBadRequest},
		"a large value": {Set(a, strings.Repeat("x", 65<<10), store.Cond{}), apierr.ErrTooLarge},
		"a huge value":  {Set(a, strings.Repeat("x", 650<<10), store.Cond{}), apierr.ErrTooLarge},
	} {
		if _, err := s.Commit(timeout(t), test.command); !errors.Is(err, test.kind) {
			t.Errorf("%s: %v, want kind %v", name, err, test.kind)
		}
	}
	commit(t, s, Set(a, strings.Repeat("x", 63<<10), store.Cond{}))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ended, Set(a, "late", store.Cond{})); err == nil {
		t.Error("a commit after its context ended succeeded")
	}
	if got, _ := Value(snapshot(t, s, store.At{}), a); got == "late" {
		t.Error("a commit after its context ended was done")
	}
}

func testKeepsNothing(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	r := Record(Key("a"), "before")
	r.Index.Labels = map[string]string{"app": "before"}
	r.Revision = 77
	revision := commit(t, s, store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}})
	r.Index.Labels["app"] = "after"
	clear(r.Bytes)
	got, _ := snapshot(t, s, store.At{}).Get(Key("a"))
	if Text(got) != "before" || got.Index.Labels["app"] != "before" || got.Revision != revision {
		t.Errorf("the store holds %q, %v at %d", Text(got), got.Index.Labels, got.Revision)
	}
}

// testCounters increments few counters from many goroutines on all replicas;
// every acknowledged increment counts once.
func testCounters(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	const workers, rounds, counters = 8, 15, 3
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			s := all[worker%len(all)]
			for round := range rounds {
				if err := increment(timeout(t), s, Key(fmt.Sprint("n", round%counters))); err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, s := range all {
		sum := 0
		for r := range snapshot(t, s, store.At{}).Scan("configmaps", "", api.Key{}) {
			n, err := strconv.Atoi(Text(r))
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != workers*rounds {
			t.Errorf("counters hold %d, want %d", sum, workers*rounds)
		}
	}
}

func increment(ctx context.Context, s store.Store, key api.Key) error {
	for {
		snap, err := s.Snapshot(ctx, store.At{Level: store.Any})
		if err != nil {
			return err
		}
		value, revision := Value(snap, key)
		n, _ := strconv.Atoi(value)
		_, err = s.Commit(ctx, Set(key, strconv.Itoa(n+1), store.Cond{Absent: revision == 0, Revision: revision}))
		var compare *store.CompareError
		if !errors.As(err, &compare) {
			return err
		}
		if _, err := s.Snapshot(ctx, store.At{Level: store.Linearizable}); err != nil {
			return err
		}
	}
}
