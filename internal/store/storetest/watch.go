package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

func watch(t testing.TB, s store.Store, f store.Filter, from uint64) *store.Watch {
	t.Helper()
	w, err := s.Watch(timeout(t), f, from)
	if err != nil {
		t.Fatalf("watch from %d: %v", from, err)
	}
	t.Cleanup(w.Stop)
	return w
}

func testWatchFromAny(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	start := snapshot(t, all[0], store.At{}).Revision()
	var want []string
	var revisions []uint64 // of each of want
	value, at := map[string]string{}, map[string]uint64{}
	for i := range 40 {
		c := store.Command{}
		var put, del string
		put = fmt.Sprint("k", i%5)
		c.Changes = append(c.Changes, store.Change{Op: store.Put, Key: Key(put), Record: Record(Key(put), strconv.Itoa(i))})
		if del = fmt.Sprint("k", (i+2)%5); i%4 == 0 && at[del] != 0 {
			c.Changes = append(c.Changes, store.Change{Op: store.Delete, Key: Key(del)})
		}
		revision := commit(t, all[i%len(all)], c)
		line := fmt.Sprintf("%d create %s %d", revision, put, i)
		if at[put] != 0 {
			line = fmt.Sprintf("%d update %s %d was %s@%d", revision, put, i, value[put], at[put])
		}
		value[put], at[put] = strconv.Itoa(i), revision
		want, revisions = append(want, line), append(revisions, revision)
		if len(c.Changes) == 2 {
			want, revisions = append(want, fmt.Sprintf("%d delete %s %s@%d", revision, del, value[del], at[del])), append(revisions, revision)
			at[del] = 0
		}
	}
	last := revisions[len(revisions)-1]
	for n, s := range all {
		for from := start; from < last; from++ {
			begin := slices.IndexFunc(revisions, func(r uint64) bool { return r > from })
			if got := collect(t, watch(t, s, store.Filter{}, from), last); !slices.Equal(got, want[begin:]) {
				t.Fatalf("replica %d from %d:\n%q, want\n%q", n, from, got, want[begin:])
			}
		}
	}
}

// testWatchUnderWrites has watches on all replicas while writes go on; each
// must see every revision once and in order, and all the same.
func testWatchUnderWrites(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	const writes = 300
	start := snapshot(t, all[0], store.At{}).Revision()
	results := make(chan []string)
	for i := range 9 {
		w := watch(t, all[i%len(all)], store.Filter{Resource: "configmaps"}, start)
		go func() { results <- collect(t, w, start+writes) }()
	}
	for i := range writes {
		commit(t, all[i%len(all)], Set(Key(fmt.Sprint("k", i%10)), strconv.Itoa(i), store.Cond{}))
	}
	var first []string
	for range 9 {
		got := <-results
		if len(got) != writes {
			t.Errorf("a watch saw %d events, want %d", len(got), writes)
		}
		if first == nil {
			first = got
		}
		if !slices.Equal(got, first) {
			t.Error("two watches saw different events")
		}
	}
}

// testWatchWakes has the watch wait for each write.
func testWatchWakes(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	for n, s := range all {
		w := watch(t, s, store.Filter{Resource: "configmaps", Namespace: "default", Name: "a"}, snapshot(t, s, store.At{}).Revision())
		type answer struct {
			events []string
			upTo   uint64
			err    error
		}
		for i := range 10 {
			answers := make(chan answer, 1)
			go func() {
				events, upTo, err := w.Next(timeout(t))
				a := answer{upTo: upTo, err: err}
				for _, e := range events {
					a.events = append(a.events, describe(e))
				}
				answers <- a
			}()
			time.Sleep(time.Millisecond) // so that it mostly waits already
			commit(t, s, Set(Key("b"), "x", store.Cond{}))
			revision := commit(t, s, Set(Key("a"), strconv.Itoa(i), store.Cond{}))
			if a := <-answers; a.err != nil || len(a.events) != 1 || a.upTo != revision {
				t.Fatalf("replica %d, write %d at %d: %q up to %d, %v", n, i, revision, a.events, a.upTo, a.err)
			}
		}
	}
}

func testWatchFilters(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	start := snapshot(t, s, store.At{}).Revision()
	filters := map[string]store.Filter{
		"all": {}, "cm": {Resource: "configmaps"}, "cm in b": {Resource: "configmaps", Namespace: "b"},
		"one": {Resource: "configmaps", Namespace: "b", Name: "y"}, "named": {Name: "y"}, "none": {Resource: "pods", Namespace: "b"},
	}
	want := map[string]int{"all": 5, "cm": 4, "cm in b": 2, "one": 1, "named": 2, "none": 0}
	results := make(chan string)
	for name, f := range filters {
		early := watch(t, s, f, start)
		go func() {
			// Whatever comes last is of no interest to most: progress must
			// be had all the same.
			var got []string
			for {
				ctx, cancel := context.WithTimeout(timeout(t), 20*time.Millisecond)
				events, upTo, err := early.Next(ctx)
				cancel()
				for _, e := range events {
					got = append(got, describe(e))
				}
				if upTo >= start+5 {
					break
				}
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					got = append(got, err.Error())
					break
				}
			}
			if len(got) != want[name] {
				results <- fmt.Sprintf("%s: %q, want %d", name, got, want[name])
				return
			}
			results <- ""
		}()
	}
	for _, key := range []api.Key{
		{Resource: "configmaps", Namespace: "a", Name: "x"}, {Resource: "configmaps", Namespace: "b", Name: "x"},
		{Resource: "configmaps", Namespace: "b", Name: "y"}, {Resource: "configmaps", Namespace: "a", Name: "y"},
		{Resource: "secrets", Namespace: "b", Name: "x"},
	} {
		commit(t, s, Set(key, "1", store.Cond{}))
	}
	for range filters {
		if r := <-results; r != "" {
			t.Error(r)
		}
	}
}

func testWatchProgress(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	start := snapshot(t, s, store.At{}).Revision()
	w := watch(t, s, store.Filter{Resource: "pods"}, start)
	commit(t, s, Set(Key("a"), "1", store.Cond{}))
	second := commit(t, s, Set(Key("a"), "2", store.Cond{}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	events, upTo, err := w.Next(ctx)
	if len(events) != 0 || upTo != second || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("next: %v up to %d, %v, want nothing up to %d at the deadline", events, upTo, err, second)
	}
	short, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	_, err = s.Watch(short, store.Filter{}, second+1000)
	wantKind(t, err, apierr.ErrTimeout)
	key := api.Key{Resource: "pods", Namespace: "x", Name: "x"}
	last := commit(t, s, Set(key, "1", store.Cond{}))
	if got := collect(t, w, last); len(got) != 1 {
		t.Errorf("the watch went on with %q, want one event", got)
	}
}

func testWatchExpires(t *testing.T, open Open) {
	all := open(t, store.Limits{RingEvents: 32})
	s := all[len(all)-1]
	start := snapshot(t, s, store.At{}).Revision()
	slow := watch(t, s, store.Filter{Resource: "configmaps"}, start)
	var last uint64
	for i := range 100 {
		last = commit(t, s, Set(Key("a"), strconv.Itoa(i), store.Cond{}))
	}
	_, _, err := slow.Next(timeout(t))
	wantKind(t, err, apierr.ErrExpired)
	_, err = s.Watch(timeout(t), store.Filter{}, start)
	wantKind(t, err, apierr.ErrExpired)
	if got := collect(t, watch(t, s, store.Filter{}, last-20), last); len(got) != 20 {
		t.Errorf("a watch from twenty revisions ago saw %d events", len(got))
	}
}

func testWatchStops(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	w := watch(t, s, store.Filter{}, snapshot(t, s, store.At{}).Revision())
	done := make(chan error)
	go func() {
		_, _, err := w.Next(context.WithoutCancel(t.Context()))
		done <- err
	}()
	w.Stop()
	if err := <-done; !errors.Is(err, store.ErrStopped) {
		t.Errorf("next after stop: %v", err)
	}
}
