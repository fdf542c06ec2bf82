package store

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

func image(t testing.TB, m *Mem) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.Image().Persist(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSameLogSameImage replays random logs on replicas that restart from their
// images at random places. All of them must be the same, to the byte, with
// their rings, and give every revision of the past as it was.
func TestSameLogSameImage(t *testing.T) {
	for seed := range int64(15) {
		r := rand.New(rand.NewSource(seed))
		limits := Limits{RingEvents: 20 + r.Intn(300), RingBytes: 2000 + r.Intn(200_000)}
		log := randomLog(t, seed, 100+r.Intn(700))
		straight, restarted := NewMem(nil, limits), NewMem(nil, limits)
		for i, b := range log {
			replay(t, straight, [][]byte{b})
			replay(t, restarted, [][]byte{b})
			if r.Intn(60) > 0 && i < len(log)-1 {
				continue
			}
			next := NewMem(nil, limits)
			if err := next.Restore(bytes.NewReader(image(t, restarted))); err != nil {
				t.Fatalf("seed %d, entry %d: %v", seed, i, err)
			}
			restarted = next
		}
		if a, b := image(t, straight), image(t, restarted); !bytes.Equal(a, b) {
			t.Fatalf("seed %d: the images differ: %d and %d bytes", seed, len(a), len(b))
		}
		sameEvents(t, straight, restarted)
		for revision := straight.ring.floor; revision <= straight.Revision(); revision += 1 + uint64(r.Intn(40)) {
			a, errA := straight.SnapshotAt(revision)
			b, errB := restarted.SnapshotAt(revision)
			if errA != nil || errB != nil {
				t.Fatalf("seed %d, revision %d: %v, %v", seed, revision, errA, errB)
			}
			var one, two bytes.Buffer
			if err := errors.Join(a.Persist(&one), b.Persist(&two)); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
				t.Fatalf("seed %d: revision %d is not what it was (%v)", seed, revision, err)
			}
		}
	}
}

// sameEvents compares what watches from the oldest revision give.
func sameEvents(t *testing.T, one, two *Mem) {
	t.Helper()
	read := func(m *Mem) (all []Event) {
		w, err := m.Watch(Filter{}, m.ring.floor)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		for upTo := w.reached; upTo < m.Revision(); {
			var events []Event
			if events, upTo, err = w.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			all = append(all, events...)
		}
		return all
	}
	equal := func(a, b *api.Record) bool {
		return (a == nil) == (b == nil) && (a == nil || a.Key == b.Key && a.Revision == b.Revision && bytes.Equal(a.Bytes, b.Bytes))
	}
	if !slices.EqualFunc(read(one), read(two), func(a, b Event) bool {
		return a.Revision == b.Revision && equal(a.New, b.New) && equal(a.Old, b.Old)
	}) {
		t.Error("watches see other events after a restart")
	}
}

// TestRestoreRefusesDamagedEvents flips every byte of an image in turn.
func TestRestoreRefusesDamagedEvents(t *testing.T) {
	m := NewMem(nil, Limits{})
	replay(t, m, randomLog(t, 3, 5))
	good := image(t, m)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		fresh := NewMem(nil, Limits{})
		if err := fresh.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d of %d was flipped, and nobody noticed", i, len(good))
		}
		if fresh.Revision() != 0 {
			t.Fatalf("byte %d: the state changed", i)
		}
	}
}

// TestWatchGoesOnAfterRestore has one watch see a state be replaced by a later
// one whose ring reaches back to it, and another by one that does not.
func TestWatchGoesOnAfterRestore(t *testing.T) {
	log := randomLog(t, 5, 300)
	ahead, short, m := NewMem(nil, Limits{}), NewMem(nil, Limits{RingEvents: 5}), NewMem(nil, Limits{})
	replay(t, m, log[:100])
	replay(t, ahead, log)
	replay(t, short, log)
	from := m.Revision()
	w, err := m.Watch(Filter{}, from)
	if err != nil {
		t.Fatal(err)
	}
	late, err := m.Watch(Filter{}, from)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	done := make(chan error)
	go func() {
		for {
			events, upTo, err := w.Next(context.WithoutCancel(t.Context()))
			for _, e := range events {
				got = append(got, e.Revision)
			}
			if err != nil || upTo == ahead.Revision() {
				done <- err
				return
			}
		}
	}()
	if err := m.Restore(bytes.NewReader(image(t, ahead))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var want []uint64
	for n := ahead.ring.after(from); n < ahead.ring.next; n++ {
		want = append(want, ahead.ring.at(n).Revision)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the watch saw %d events, want %d", len(got), len(want))
	}
	if err := m.Restore(bytes.NewReader(image(t, short))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := late.Next(t.Context()); !errors.Is(err, apierr.ErrExpired) {
		t.Errorf("a watch that the ring does not reach back to: %v, want Expired", err)
	}
}

// TestManyWatchesShareObjects has 10,000 watches read 100 events of 20 KiB
// each: they all get the same records, and the memory of a few of them.
func TestManyWatchesShareObjects(t *testing.T) {
	const watches, events, size = 10_000, 100, 20 << 10
	m := NewMem(nil, Limits{})
	before := heapBytes()
	all := make([]*Watch, watches)
	for i := range all {
		var err error
		if all[i], err = m.Watch(Filter{Resource: "pods"}, 0); err != nil {
			t.Fatal(err)
		}
	}
	// All of them wait when the first event comes.
	var began, ended sync.WaitGroup
	first := make([][]Event, watches)
	errs := make([]error, watches)
	for i, w := range all {
		began.Add(1)
		ended.Go(func() {
			began.Done()
			first[i], _, errs[i] = w.Next(t.Context())
		})
	}
	began.Wait()
	for i := range events {
		p := pod(i)
		p.Bytes = make([]byte, size)
		if _, err := m.Apply(Command{Changes: []Change{{Op: Put, Key: p.Key, Record: p}}}); err != nil {
			t.Fatal(err)
		}
	}
	ended.Wait()
	shared, _ := m.Snapshot().Get(pod(0).Key)
	for i, w := range all {
		if errs[i] != nil || len(first[i]) == 0 || first[i][0].New != shared {
			t.Fatalf("watch %d: %d events, %v; the first is its own copy", i, len(first[i]), errs[i])
		}
		for w.reached < m.Revision() {
			if _, _, err := w.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	grown := heapBytes() - before
	runtime.KeepAlive(all)
	t.Logf("%d watches that have read %d events of %d KiB: %d KiB of memory in all, %d B a watch", watches, events, size>>10, grown>>10, (grown-events*size)/watches)
	// A copy of one event each would be 200 MB. A batch is a few words an event.
	if limit := uint64(events*size + watches*10<<10); grown > limit {
		t.Errorf("%d bytes, want at most %d", grown, limit)
	}
}
