package store

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"runtime"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
)

// randomLog makes encoded commands of all sorts, some of which do not hold.
func randomLog(t testing.TB, seed int64, n int) [][]byte {
	r := rand.New(rand.NewSource(seed))
	var log [][]byte
	for i := range n {
		var c Command
		for j := range 1 + r.Intn(3) {
			key := api.Key{Resource: []string{"pods", "jobs.batch"}[r.Intn(2)], Namespace: fmt.Sprint("ns", r.Intn(3)), Name: fmt.Sprint("n", j, "-", r.Intn(40))}
			if r.Intn(4) == 0 {
				c.Changes = append(c.Changes, Change{Op: Delete, Key: key})
				continue
			}
			rec := &api.Record{Key: key, UID: fmt.Sprint(i), Bytes: []byte(strings.Repeat("x", r.Intn(300)))}
			rec.Index.Labels = map[string]string{"app": fmt.Sprint(r.Intn(4)), "tier": "a", "zone": strings.Repeat("z", r.Intn(200))}
			rec.Index.Fields = map[string]string{"spec.nodeName": fmt.Sprint(r.Intn(3))}
			rec.Index.Owners = []string{fmt.Sprint(r.Intn(5)), fmt.Sprint(r.Intn(5))}
			rec.Index.Deleting = r.Intn(2) == 0
			c.Changes = append(c.Changes, Change{Op: Put, Key: key, Record: rec, If: Cond{Absent: r.Intn(2) == 0}})
		}
		b, err := c.Encode(Limits{})
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, b)
	}
	return log
}

func replay(t testing.TB, m *Mem, log [][]byte) {
	for _, b := range log {
		c, err := m.DecodeCommand(b)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = m.Apply(c) // some do not hold
	}
}

func persisted(t testing.TB, m *Mem) []byte {
	var b bytes.Buffer
	if err := m.Snapshot().Persist(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSameLogSameSnapshot(t *testing.T) {
	for seed := range int64(5) {
		log := randomLog(t, seed, 800)
		one, two := NewMem(nil, Limits{}), NewMem(nil, Limits{RingEvents: 10})
		replay(t, one, log[:500])
		// The other one restarts from a snapshot on the way, and is read.
		replay(t, two, log[:300])
		third := NewMem(nil, Limits{})
		if err := third.Restore(bytes.NewReader(persisted(t, two))); err != nil {
			t.Fatal(err)
		}
		for i, b := range log[300:500] {
			replay(t, third, [][]byte{b})
			if i%7 == 0 {
				third.Snapshot()
			}
		}
		a, b := persisted(t, one), persisted(t, third)
		if !bytes.Equal(a, b) {
			t.Fatalf("seed %d: snapshots differ", seed)
		}
		if len(a) < 1000 {
			t.Fatalf("seed %d: the snapshot has %d bytes: the log did nothing", seed, len(a))
		}
		checkIndexes(t, third)
	}
}

// checkIndexes compares the indexes with what the records say.
func checkIndexes(t *testing.T, m *Mem) {
	want := map[string]bool{}
	s := m.Snapshot()
	for resource := range s.Resources() {
		for r := range s.Scan(resource, "", api.Key{}) {
			for _, uid := range r.Index.Owners {
				want["owner "+uid+" "+r.Key.String()] = true
			}
			if resource == "pods" {
				want["node "+r.Index.Fields["spec.nodeName"]+" "+r.Key.String()] = true
			}
		}
	}
	got := 0
	for i := range 5 {
		value := fmt.Sprint(i)
		for r := range s.OwnedBy(value, "") {
			if got++; !want["owner "+value+" "+r.Key.String()] {
				t.Errorf("%s is not owned by %s", r.Key, value)
			}
		}
		for r := range s.ByField("pods", "spec.nodeName", value) {
			if got++; !want["node "+value+" "+r.Key.String()] {
				t.Errorf("%s is not on %s", r.Key, value)
			}
		}
	}
	if got != len(want) {
		t.Errorf("the indexes have %d entries, want %d", got, len(want))
	}
}

// TestPastIsWhatItWas compares the snapshots of former revisions, rebuilt from
// the ring, byte for byte with those taken at the time.
func TestPastIsWhatItWas(t *testing.T) {
	m := NewMem(nil, Limits{})
	then := map[uint64][]byte{}
	for _, b := range randomLog(t, 7, 400) {
		replay(t, m, [][]byte{b})
		then[m.Revision()] = persisted(t, m)
	}
	for revision, want := range then {
		s, err := m.SnapshotAt(revision)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := s.Persist(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("revision %d is not what it was (%v)", revision, err)
		}
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	m := NewMem(nil, Limits{})
	replay(t, m, randomLog(t, 1, 20))
	good := persisted(t, m)
	newer := bytes.Clone(good)
	newer[len(snapshotMagic)]++
	for name, test := range map[string]struct {
		data []byte
		say  string
	}{
		"empty":    {nil, "cut off"},
		"newer":    {newer, "newer version"},
		"foreign":  {[]byte("#!/bin/sh and so on"), "not a snapshot"},
		"torn end": {good[:len(good)-2], "cut off"},
		"torn":     {good[:len(good)/2], "cut off"},
	} {
		if err := m.Restore(bytes.NewReader(test.data)); err == nil || !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s: %v, want %q", name, err, test.say)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := m.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a snapshot with byte %d damaged was taken", i)
		}
	}
	if !bytes.Equal(persisted(t, m), good) {
		t.Error("a refused snapshot changed the state")
	}
}

func TestDecodeRefusesGarbage(t *testing.T) {
	m := NewMem(nil, Limits{})
	b := randomLog(t, 1, 1)[0]
	if _, err := m.DecodeCommand(append([]byte{commandFormat + 1}, b[1:]...)); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("a newer format: %v", err)
	}
	for n := range b {
		if _, err := m.DecodeCommand(b[:n]); err == nil {
			t.Errorf("a command cut to %d of %d bytes was taken", n, len(b))
		}
	}
	if _, err := m.DecodeCommand(append(bytes.Clone(b), 0)); err == nil {
		t.Error("a command with a tail was taken")
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, b := range randomLog(f, 1, 20) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := NewMem(nil, Limits{})
		if c, err := m.DecodeCommand(b); err == nil {
			_, _ = m.Apply(c)
		}
	})
}

func TestRingIsBoundedInBytes(t *testing.T) {
	m := NewMem(nil, Limits{RingBytes: 64 << 10})
	key := api.Key{Resource: "x", Name: "x"}
	for range 1000 {
		r := &api.Record{Key: key, Bytes: make([]byte, 1000)}
		if _, err := m.Apply(Command{Changes: []Change{{Op: Put, Key: key, Record: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.ring.next - m.ring.first; n > 60 || n < 40 || m.ring.floor != m.Revision()-n {
		t.Errorf("the ring has %d events after revision %d of %d", n, m.ring.floor, m.Revision())
	}
}

// TestRestoreWakesWatches has a watch wait while the state jumps.
func TestRestoreWakesWatches(t *testing.T) {
	ahead := NewMem(nil, Limits{})
	replay(t, ahead, randomLog(t, 1, 50))
	m := NewMem(nil, Limits{})
	w, err := m.Watch(Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, _, err := w.Next(context.WithoutCancel(t.Context()))
		done <- err
	}()
	if err := m.Restore(bytes.NewReader(persisted(t, ahead))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the watch did not notice")
	}
}

// pod is a record of a usual pod's size and index.
func pod(i int) *api.Record {
	return &api.Record{
		Key: api.Key{Resource: "pods", Namespace: fmt.Sprint("ns", i%20), Name: fmt.Sprintf("web-%08d-abcde", i)},
		UID: fmt.Sprintf("00000000-0000-0000-0000-%012d", i), Bytes: bytes.Repeat([]byte{byte(i)}, 1200),
		Index: api.Index{
			Labels: map[string]string{"app": fmt.Sprint("web", i%500), "pod-template-hash": fmt.Sprint(i % 500)},
			Fields: map[string]string{"spec.nodeName": fmt.Sprint("node", i%1000), "status.phase": "Running"},
			Owners: []string{fmt.Sprint("owner", i%500)},
		},
	}
}

func putPod(i int) Command {
	r := pod(i)
	return Command{Changes: []Change{{Op: Put, Key: r.Key, Record: r}}}
}

// BenchmarkMemory prints what 100,000 pods of 1.2 KB cost.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		m := NewMem(nil, Limits{})
		before := heapBytes()
		for i := range 100_000 {
			e, err := putPod(i).Encode(Limits{})
			if err != nil {
				b.Fatal(err)
			}
			replay(b, m, [][]byte{e})
		}
		b.ReportMetric(float64(heapBytes()-before)/100_000, "B/object")
		runtime.KeepAlive(m)
	}
}

func heapBytes() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func BenchmarkApply(b *testing.B) {
	m := NewMem(nil, Limits{})
	var log [][]byte
	for i := range 100_000 {
		e, err := putPod(i).Encode(Limits{})
		if err != nil {
			b.Fatal(err)
		}
		log = append(log, e)
	}
	replay(b, m, log)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		replay(b, m, log[i*7919%len(log):][:1])
		if i++; i%64 == 0 {
			m.Snapshot()
		}
	}
}

// BenchmarkSnapshotAt rebuilds the oldest revision of a full ring.
func BenchmarkSnapshotAt(b *testing.B) {
	m := NewMem(nil, Limits{RingBytes: 1 << 30})
	for i := range 100_000 {
		if _, err := m.Apply(putPod(i)); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 32768 {
		if _, err := m.Apply(putPod(i * 7919 % 100_000)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		m.past = nil
		if _, err := m.SnapshotAt(m.ring.floor); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParkedWatches applies writes that one of 10,000 watches wants.
func BenchmarkParkedWatches(b *testing.B) {
	m := NewMem(nil, Limits{})
	for i := range 10_000 {
		r := pod(i)
		w, err := m.Watch(Filter{r.Resource, r.Namespace, r.Name}, 0)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				if _, _, err := w.Next(b.Context()); err != nil {
					return
				}
			}
		}()
	}
	i := 0
	for b.Loop() {
		if _, err := m.Apply(putPod(i % 10_000)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
