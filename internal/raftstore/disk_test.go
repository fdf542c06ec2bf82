package raftstore

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// TestDamage damages a member's files one by one. Each time opening must be
// refused with words that say what is wrong.
func TestDamage(t *testing.T) {
	c := newCluster(t, 1, Limits{SnapshotEntries: 30, TrailingEntries: 20})
	m := c.leader()
	for i := range 100 {
		c.set(m, "a", strconv.Itoa(i)+strings.Repeat("x", 300))
	}
	c.stop(m, true)
	good := filepath.Join(c.dir, "m1")
	damage := func(name string, f func(dir string)) string {
		dir := filepath.Join(t.TempDir(), "m1")
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		f(dir)
		d, err := openDisk(dir, "m1", raftLogger{log: slog.New(slog.DiscardHandler)})
		if err == nil {
			_ = d.bolt.Close()
			return ""
		}
		t.Logf("%s: %v", name, err)
		return err.Error()
	}
	edit := func(pattern string, f func([]byte) []byte) func(string) {
		return func(dir string) {
			paths, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(paths) == 0 {
				t.Fatalf("no file %s: %v", pattern, err)
			}
			for _, path := range paths {
				b, err := os.ReadFile(path)
				if err == nil {
					err = os.WriteFile(path, f(b), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	flip := func(word string) func([]byte) []byte {
		return func(b []byte) []byte {
			at := bytes.Index(b, []byte(word))
			if at < 0 {
				t.Fatalf("%q is not in the file", word)
			}
			return bytes.ReplaceAll(b, []byte(word), append([]byte{word[0] ^ 1}, word[1:]...))
		}
	}
	for _, test := range []struct {
		name, say string
		f         func(string)
	}{
		{"nothing", "", func(string) {}},
		{"an entry", "checksum is wrong", edit("log.db", flip("99xxx"))},
		{"half of the log", "log.db", edit("log.db", func(b []byte) []byte { return b[:len(b)/2] })},
		{"the log's head", "log.db", edit("log.db", func(b []byte) []byte { clear(b[:8192]); return b })},
		{"not a log", "log.db", edit("log.db", func([]byte) []byte { return []byte("hello") })},
		{"the snapshot", "damaged", edit("snap/snapshot-*", flip("xxxx"))},
		{"a newer format", "newer version", edit("format.json", func([]byte) []byte { return []byte(`{"format":2,"member":"m1"}`) })},
		{"no format", "cannot be read", edit("format.json", func([]byte) []byte { return nil })},
		{"another member", "belongs to member m9", edit("format.json", func([]byte) []byte { return []byte(`{"format":1,"member":"m9"}`) })},
		{"format file gone", "no format.json", func(dir string) { _ = os.Remove(filepath.Join(dir, "format.json")) }},
		{"snapshots gone", "newest whole snapshot ends at 0", func(dir string) { _ = os.RemoveAll(filepath.Join(dir, "snap")) }},
	} {
		said := damage(test.name, test.f)
		if (test.say == "") != (said == "") || !strings.Contains(said, test.say) {
			t.Errorf("%s: %q, want %q", test.name, said, test.say)
		}
	}
	d, err := openDisk(good, "m1", raftLogger{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDisk(good, "m1", raftLogger{log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opening it twice: %v", err)
	}
	if err := d.bolt.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLogStore writes, cuts and reads past what the cache holds.
func TestLogStore(t *testing.T) {
	below := raft.NewInmemStore()
	s := newLogStore(below)
	entry := func(i, term uint64) *raft.Log {
		return &raft.Log{Index: i, Term: term, Data: []byte(strconv.FormatUint(i*term, 10))}
	}
	for i := uint64(1); i <= 3000; i++ {
		if err := s.StoreLog(entry(i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.cache) != cacheLogs {
		t.Errorf("the cache holds %d entries, want %d", len(s.cache), cacheLogs)
	}
	if err := s.DeleteRange(2900, 3000); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs([]*raft.Log{entry(2900, 2), entry(2901, 2)}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(1, 100); err != nil {
		t.Fatal(err)
	}
	for i := uint64(101); i <= 2901; i++ {
		var l raft.Log
		want := entry(i, 1+i/2900)
		if err := s.GetLog(i, &l); err != nil || l.Term != want.Term || !bytes.Equal(l.Data, want.Data) || l.Extensions != nil {
			t.Fatalf("entry %d: %+v, %v", i, l, err)
		}
	}
	var l raft.Log
	for _, i := range []uint64{1, 100, 2902, 3000} {
		if err := s.GetLog(i, &l); err == nil {
			t.Errorf("entry %d is still there", i)
		}
	}
	if err := below.StoreLog(&raft.Log{Index: 150, Term: 1, Data: []byte("other"), Extensions: sum(entry(150, 1))}); err != nil {
		t.Fatal(err)
	}
	if err := s.GetLog(150, &l); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged entry: %v", err)
	}
}

// TestSnapshotCost writes log and counts what its snapshots cost, for states of
// several sizes and writes of several sizes: never more than some times the
// log, and a restart never reads more than some times the state.
func TestSnapshotCost(t *testing.T) {
	for _, state := range []uint64{1 << 10, 1 << 20, 100 << 20, 4 << 30} {
		for _, entry := range []uint64{200, 2000, 500 << 10} {
			var log, entries, all, cost, longest uint64
			for all < 4*state+1<<30 {
				log, entries, all = log+entry, entries+1, all+entry
				if longest = max(longest, log); snapshotDue(log, entries, 16384, state) {
					cost += state
					log, entries = 0, 0
				}
			}
			if cost > 2*all+state {
				t.Errorf("state of %d, entries of %d: %d bytes of snapshots for %d of log", state, entry, cost, all)
			}
			if longest > max(2*logBytes, state) {
				t.Errorf("state of %d, entries of %d: the log grew to %d", state, entry, longest)
			}
		}
	}
}
