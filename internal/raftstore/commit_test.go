package raftstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

func putIf(name string, cond store.Cond) store.Change {
	key := storetest.Key(name)
	return store.Change{Op: store.Put, Key: key, If: cond, Record: storetest.Record(key, "x")}
}

func removeIf(name string, cond store.Cond) store.Change {
	return store.Change{Op: store.Delete, Key: storetest.Key(name), If: cond}
}

func checkIf(name string, cond store.Cond) store.Change {
	return store.Change{Op: store.Check, Key: storetest.Key(name), If: cond}
}

func TestRepeatable(t *testing.T) {
	at := store.Cond{Revision: 3}
	for name, tt := range map[string]struct {
		c    []store.Change
		want bool
	}{
		"a change at a revision":            {[]store.Change{putIf("a", at)}, true},
		"a removal at a revision":           {[]store.Change{removeIf("a", at)}, true},
		"of anything":                       {[]store.Change{putIf("a", store.Cond{})}, false},
		"of a uid only":                     {[]store.Change{putIf("a", store.Cond{UID: "u-a"})}, false},
		"a check at a revision":             {[]store.Change{checkIf("a", at)}, false},
		"a creation":                        {[]store.Change{putIf("a", store.Cond{Absent: true})}, false},
		"a revision still to come":          {[]store.Change{putIf("a", store.Cond{Revision: 8})}, false},
		"and another, still to come":        {[]store.Change{putIf("a", at), checkIf("b", store.Cond{Revision: 8})}, false},
		"and a creation":                    {[]store.Change{putIf("a", at), putIf("b", store.Cond{Absent: true})}, false},
		"and that one is not there":         {[]store.Change{checkIf("b", store.Cond{Absent: true}), putIf("a", at)}, false},
		"and that one is there":             {[]store.Change{putIf("a", at), checkIf("b", store.Cond{})}, false},
		"and one of a revision is there":    {[]store.Change{putIf("a", at), checkIf("b", store.Cond{Revision: 2})}, true},
		"and one of a uid is there":         {[]store.Change{putIf("a", at), checkIf("b", store.Cond{UID: "u-b"})}, true},
		"and a removal of whatever":         {[]store.Change{putIf("a", at), removeIf("b", store.Cond{})}, false},
		"and a removal of a uid":            {[]store.Change{putIf("a", at), removeIf("b", store.Cond{UID: "u-b"})}, true},
		"and a write that cannot but do it": {[]store.Change{putIf("a", at), putIf("b", store.Cond{})}, true},
	} {
		if got := repeatable(store.Command{Changes: tt.c}, 7); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestRepeatableIsDoneOnce has random commands stand twice in a log, with others
// between: the second place of one that may be repeated does nothing, whatever
// became of the first.
func TestRepeatableIsDoneOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	m := store.NewMem(storetest.Codec(), store.Limits{})
	number := 0
	random := func() (c store.Command) {
		for _, i := range r.Perm(3)[:1+r.IntN(2)] {
			name := string(rune('a' + i))
			is, _ := m.Snapshot().Get(storetest.Key(name))
			var on store.Cond
			switch r.IntN(5) {
			case 0:
				on.Absent = true
			case 1:
				if is != nil {
					on.Revision = is.Revision
				}
			case 2:
				on.Revision = m.Revision() + uint64(r.IntN(4)) - min(m.Revision(), 2)
			case 3:
				if is != nil {
					on.UID = is.UID
				}
			}
			change := [](func(string, store.Cond) store.Change){putIf, putIf, removeIf, checkIf}[r.IntN(4)](name, on)
			if change.Op == store.Put && is == nil {
				number++
				change.Record.UID = fmt.Sprint("u-", number)
			}
			c.Changes = append(c.Changes, change)
		}
		return c
	}
	tried := 0
	for range 20_000 {
		c := random()
		may := repeatable(c, m.Revision())
		_, _ = m.Apply(c) // or not
		for range r.IntN(4) {
			_, _ = m.Apply(random()) // or not
		}
		if !may {
			continue
		}
		tried++
		before := m.Revision()
		if revision, err := m.Apply(c); err == nil || m.Revision() != before {
			t.Fatalf("%+v is done once more, at revision %d", c, revision)
		}
	}
	if tried < 1000 {
		t.Errorf("only %d commands were repeated", tried)
	}
}

// TestWriteWhoseCallerHasGone has callers leave while their writes are on their
// way at a leader that is cut off. Nothing goes on trying for them.
func TestWriteWhoseCallerHasGone(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	old := c.leader()
	at := c.set(old, "a", "1")
	c.net.set(old.id, true)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := old.Commit(ctx, storetest.Set(storetest.Key("a"), "2", store.Cond{Revision: at}))
		cancel()
		if !errors.Is(err, apierr.ErrTimeout) {
			t.Fatalf("got %v", err)
		}
	}
	eventually(t, "it gives up", func() bool { return !old.leads() })
	eventually(t, "no batch is on its way for nobody", func() bool {
		return len(old.queue) == 0 && len(old.places) == 1 // which waits for the next
	})
	c.leader()
	c.net.set(old.id, false)
	if got := c.get(old, "a"); got != "1" && got != "2" {
		t.Errorf("reads %q", got)
	}
	c.set(old, "b", "1")
}
