package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

func testReadYourWrites(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	key := Key("a")
	for i := range 60 {
		want := strconv.Itoa(i)
		revision := commit(t, all[i%len(all)], Set(key, want, store.Cond{}))
		own := snapshot(t, all[i%len(all)], store.At{Level: store.Any})
		if got, _ := Value(own, key); got != want {
			t.Fatalf("after the commit of %s its own replica has %q", want, got)
		}
		for n, s := range all {
			if got, at := Value(snapshot(t, s, store.At{Level: store.Linearizable}), key); got != want || at != revision {
				t.Fatalf("after the commit of %s at %d replica %d reads %q at %d", want, revision, n, got, at)
			}
		}
	}
}

func testAtLeastWaits(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	first := commit(t, all[0], Set(Key("a"), "1", store.Cond{}))
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := all[0].Snapshot(short, store.At{Level: store.AtLeast, Revision: first + 1}); err == nil {
		t.Fatal("a revision that is still to come was given")
	} else {
		wantKind(t, err, apierr.ErrTimeout)
	}
	type answer struct {
		snap *store.Snapshot
		err  error
	}
	answers := make(chan answer, len(all))
	for _, s := range all {
		go func() {
			snap, err := s.Snapshot(timeout(t), store.At{Level: store.AtLeast, Revision: first + 1})
			answers <- answer{snap, err}
		}()
	}
	commit(t, all[0], Set(Key("a"), "2", store.Cond{}))
	for range all {
		if a := <-answers; a.err != nil || a.snap.Revision() < first+1 {
			t.Errorf("waiting for a revision: %v", a.err)
		}
	}
}

// history does commits of all sorts and tells what the state was after each.
func history(t testing.TB, s store.Store, steps int) map[uint64]map[string]string {
	state := map[string]string{}
	states := map[uint64]map[string]string{}
	for i := range steps {
		var c store.Command
		put, del := fmt.Sprint("k", i%7), fmt.Sprint("k", (i+3)%7)
		value := strconv.Itoa(i)
		c.Changes = append(c.Changes, store.Change{Op: store.Put, Key: Key(put), Record: Record(Key(put), value)})
		if _, ok := state[del]; ok && i%3 == 0 {
			c.Changes = append(c.Changes, store.Change{Op: store.Delete, Key: Key(del)})
			delete(state, del)
		}
		state[put] = value
		states[commit(t, s, c)] = maps.Clone(state)
	}
	return states
}

func testExactly(t *testing.T, open Open) {
	all := open(t, store.Limits{})
	states := history(t, all[0], 60)
	revisions := slices.Sorted(maps.Keys(states))
	for _, s := range all {
		for i := range revisions {
			at := revisions[(i*37)%len(revisions)]
			snap := snapshot(t, s, store.At{Level: store.Exactly, Revision: at})
			got := map[string]string{}
			for r := range snap.Scan("configmaps", "", api.Key{}) {
				got[r.Name] = Text(r)
			}
			if snap.Revision() != at || !maps.Equal(got, states[at]) {
				t.Fatalf("at %d: %v at %d, want %v", at, got, snap.Revision(), states[at])
			}
		}
	}
	last := revisions[len(revisions)-1]
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := all[0].Snapshot(short, store.At{Level: store.Exactly, Revision: last + 50})
	wantKind(t, err, apierr.ErrTimeout)
}

func testExactlyExpires(t *testing.T, open Open) {
	s := open(t, store.Limits{RingEvents: 16})[0]
	first := commit(t, s, Set(Key("a"), "1", store.Cond{}))
	var last uint64
	for i := range 40 {
		last = commit(t, s, Set(Key("a"), strconv.Itoa(i), store.Cond{}))
	}
	_, err := s.Snapshot(timeout(t), store.At{Level: store.Exactly, Revision: first})
	wantKind(t, err, apierr.ErrExpired)
	if got, _ := Value(snapshot(t, s, store.At{Level: store.Exactly, Revision: last - 10}), Key("a")); got != "29" {
		t.Errorf("ten revisions ago it was %q, want 29", got)
	}
}

func testScan(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	var want []string
	for _, ns := range []string{"a", "a-b", "b"} {
		for i := range 50 {
			key := api.Key{Resource: "configmaps", Namespace: ns, Name: fmt.Sprintf("n%02d", i)}
			commit(t, s, Set(key, "x", store.Cond{}))
			want = append(want, ns+"/"+key.Name)
		}
	}
	commit(t, s, Set(api.Key{Resource: "config", Name: "z"}, "x", store.Cond{}))
	commit(t, s, Set(api.Key{Resource: "configmaps.example.org", Name: "a"}, "x", store.Cond{}))
	snap := snapshot(t, s, store.At{})
	scan := func(namespace string, after api.Key) (got []string) {
		for r := range snap.Scan("configmaps", namespace, after) {
			got = append(got, r.Namespace+"/"+r.Name)
		}
		return got
	}
	if got := scan("", api.Key{}); !slices.Equal(got, want) {
		t.Errorf("all: %v", got)
	}
	if got := scan("a-b", api.Key{}); !slices.Equal(got, want[50:100]) {
		t.Errorf("one namespace: %v", got)
	}
	if got := scan("", api.Key{Namespace: "a", Name: "n48"}); !slices.Equal(got, want[49:]) {
		t.Errorf("after a key: %v", got)
	}
	if got := scan("a-b", api.Key{Resource: "configmaps", Namespace: "a-b", Name: "n487"}); !slices.Equal(got, want[99:100]) {
		t.Errorf("after a key that is not there: %v", got)
	}
	if got := scan("b", api.Key{Namespace: "a", Name: "n48"}); !slices.Equal(got, want[100:]) {
		t.Errorf("after a key of an earlier namespace: %v", got)
	}
	for namespace, n := range map[string]int{"": 150, "a": 50, "a-b": 50, "c": 0} {
		if got := snap.Count("configmaps", namespace); got != n {
			t.Errorf("count in %q is %d, want %d", namespace, got, n)
		}
	}
	if got := slices.Collect(snap.Resources()); !slices.Equal(got, []string{"config", "configmaps", "configmaps.example.org"}) {
		t.Errorf("resources: %v", got)
	}
}

func testIndexes(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	put := func(resource, name, node string, owners ...string) {
		key := api.Key{Resource: resource, Namespace: "default", Name: name}
		r := &api.Record{Key: key, UID: name, Index: api.Index{Owners: owners}}
		if node != "" {
			r.Index.Fields = map[string]string{"spec.nodeName": node}
		}
		commit(t, s, store.Command{Changes: []store.Change{{Op: store.Put, Key: key, Record: r}}})
	}
	names := func(records func(func(*api.Record) bool)) (got []string) {
		for r := range records {
			got = append(got, r.Resource+" "+r.Name)
		}
		return got
	}
	check := func(snap *store.Snapshot, what string, got, want []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s at %d: %v, want %v", what, snap.Revision(), got, want)
		}
	}
	put("pods", "a", "", "o1")
	put("pods", "b", "n1", "o1", "o2", "o1")
	put("jobs", "c", "n1", "o1")
	before := snapshot(t, s, store.At{})
	put("pods", "a", "n1", "o2")
	put("pods", "b", "n2")
	commit(t, s, Del(api.Key{Resource: "jobs", Namespace: "default", Name: "c"}, store.Cond{}))
	after := snapshot(t, s, store.At{})
	again := snapshot(t, s, store.At{Level: store.Exactly, Revision: before.Revision()})
	for _, snap := range []*store.Snapshot{before, again} {
		check(snap, "o1", names(snap.OwnedBy("o1", "")), []string{"jobs c", "pods a", "pods b"})
		check(snap, "pods of o1", names(snap.OwnedBy("o1", "pods")), []string{"pods a", "pods b"})
		check(snap, "o2", names(snap.OwnedBy("o2", "")), []string{"pods b"})
		check(snap, "pods nowhere", names(snap.ByField("pods", "spec.nodeName", "")), []string{"pods a"})
		check(snap, "pods on n1", names(snap.ByField("pods", "spec.nodeName", "n1")), []string{"pods b"})
		check(snap, "jobs on n1", names(snap.ByField("jobs", "spec.nodeName", "n1")), []string{"jobs c"})
	}
	check(after, "o1", names(after.OwnedBy("o1", "")), nil)
	check(after, "o2", names(after.OwnedBy("o2", "")), []string{"pods a"})
	check(after, "pods nowhere", names(after.ByField("pods", "spec.nodeName", "")), nil)
	check(after, "pods on n1", names(after.ByField("pods", "spec.nodeName", "n1")), []string{"pods a"})
	check(after, "pods on n2", names(after.ByField("pods", "spec.nodeName", "n2")), []string{"pods b"})
}

func testObjects(t *testing.T, open Open) {
	s := open(t, store.Limits{})[0]
	r := Record(Key("a"), "1")
	r.Index.Owners = []string{"o"}
	revision := commit(t, s, store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}})
	snap := snapshot(t, s, store.At{})
	cm, err := store.Get[*corev1.ConfigMap](snap, Key("a"))
	if err != nil || cm.Data["value"] != "1" || cm.ResourceVersion != strconv.FormatUint(revision, 10) || cm.Kind != "ConfigMap" {
		t.Errorf("get: %+v, %v", cm, err)
	}
	_, err = store.Get[*corev1.ConfigMap](snap, Key("b"))
	wantKind(t, err, apierr.ErrNotFound)
	if _, err := store.Get[*corev1.Pod](snap, Key("a")); err == nil {
		t.Error("a config map was decoded as a pod")
	}
	if list, err := store.List[*corev1.ConfigMap](snap, "configmaps", "default"); err != nil || len(list) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
	if list, err := store.Owned[*corev1.ConfigMap](snap, "o", "configmaps"); err != nil || len(list) != 1 {
		t.Errorf("owned: %v, %v", list, err)
	}
}
