package raftstore

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
	"github.com/wherry-project/wherry/internal/testkit"
)

// damages are of one kind of log.
type damages []struct {
	name, say string
	f         func(dir string)
}

// TestDamage damages a member's files one by one. Each time opening must be
// refused with words that say what is wrong.
func TestDamage(t *testing.T) {
	t.Run("segments", func(t *testing.T) {
		testDamage(t, LogWherry, damages{
			{"an entry", "the log is damaged", edit(t, "log/*.seg", flip(t, "99xxx"))},
			{"an entry of long ago", "the log is damaged", edit(t, "log/*.seg", flip(t, "90xxx"))},
			{"half of the log", "the log is damaged", edit(t, "log/*.seg", func(b []byte) []byte { return b[:10<<10] })},
			{"the log's head", "the log is damaged", edit(t, "log/*.seg", func(b []byte) []byte { clear(b[:64]); return b })},
			{"a newer log", "newer version", edit(t, "log/*.seg", func(b []byte) []byte { b[8] = 9; return b })},
			{"the log gone", "the log is damaged", func(dir string) { _ = os.RemoveAll(filepath.Join(dir, "log")) }},
			{"the vote", "checksum is wrong", edit(t, "stable", func(b []byte) []byte { clear(b); return b })},
			{"the vote gone", "it is gone", func(dir string) { _ = os.Remove(filepath.Join(dir, "stable")) }},
			{"a newer format", "newer version", edit(t, "format.json", func([]byte) []byte { return []byte(`{"format":3,"member":"m1"}`) })},
		})
	})
	t.Run("bolt", func(t *testing.T) {
		testDamage(t, LogBolt, damages{
			{"an entry", "checksum is wrong", edit(t, "log.db", flip(t, "99xxx"))},
			{"half of the log", "log.db", edit(t, "log.db", func(b []byte) []byte { return b[:len(b)/2] })},
			{"the log's head", "log.db", edit(t, "log.db", func(b []byte) []byte { clear(b[:8192]); return b })},
			{"not a log", "log.db", edit(t, "log.db", func([]byte) []byte { return []byte("hello") })},
			{"a newer format", "newer version", edit(t, "format.json", func([]byte) []byte { return []byte(`{"format":3,"member":"m1"}`) })},
		})
	})
}

// edit gives what changes the files of a pattern.
func edit(t *testing.T, pattern string, f func([]byte) []byte) func(string) {
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

func flip(t *testing.T, word string) func([]byte) []byte {
	return func(b []byte) []byte {
		at := bytes.Index(b, []byte(word))
		if at < 0 {
			t.Fatalf("%q is not in the file", word)
		}
		return bytes.ReplaceAll(b, []byte(word), append([]byte{word[0] ^ 1}, word[1:]...))
	}
}

func testDamage(t *testing.T, kind string, more damages) {
	c := newClusterOn(t, 1, Limits{SnapshotEntries: 30, TrailingEntries: 20}, quick, kind, nil)
	m := c.leader()
	for i := range 100 {
		c.set(m, "a", strconv.Itoa(i)+strings.Repeat("x", 300))
	}
	compacted(t, m)
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
			_ = d.close()
			return ""
		}
		t.Logf("%s: %v", name, err)
		// A member begins anew where its data is damaged, and only there.
		if mine := !strings.Contains(name, "newer") && !strings.Contains(name, "another"); errors.Is(err, ErrDamaged) != mine {
			t.Errorf("%s: that it is damage: %v, want %v", name, !mine, mine)
		}
		return err.Error()
	}
	for _, test := range append(damages{
		{"nothing", "", func(string) {}},
		{"the snapshot", "damaged", edit(t, "snap/snapshot-*", flip(t, "xxxx"))},
		{"no format", "cannot be read", edit(t, "format.json", func([]byte) []byte { return nil })},
		{"another member", "belongs to member m9", edit(t, "format.json", func([]byte) []byte { return []byte(`{"format":1,"member":"m9"}`) })},
		{"format file gone", "no format.json", func(dir string) { _ = os.Remove(filepath.Join(dir, "format.json")) }},
		{"snapshots gone", "newest whole snapshot ends at 0", func(dir string) { _ = os.RemoveAll(filepath.Join(dir, "snap")) }},
	}, more...) {
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
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}

// TestOldSnapshotDamaged damages the head of a snapshot that is not needed: the
// member goes on, and the damaged one goes.
func TestOldSnapshotDamaged(t *testing.T) {
	c := newCluster(t, 1, Limits{SnapshotEntries: 30, TrailingEntries: 10_000})
	m := c.leader()
	old := func() (files []string) {
		files, err := filepath.Glob(filepath.Join(c.dir, m.id, "snap", "snapshot-*"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	for i := 0; ; i++ {
		c.set(m, "a", strconv.Itoa(i))
		if files := old(); len(files) == snapshotsKept && !strings.HasSuffix(files[1], snapshotMade) {
			break
		}
	}
	c.stop(m, true)
	files := old()
	edit(t, "snap/"+filepath.Base(files[0]), func(b []byte) []byte { b[25] ^= 1; return b })(filepath.Join(c.dir, m.id))
	m = c.restart(m)
	c.set(c.leader(), "a", "on")
	if left := old(); slices.Contains(left, files[0]) || !slices.Contains(left, files[len(files)-1]) {
		t.Errorf("%q are left of %q", left, files)
	}
}

// TestLogStore writes, cuts and reads past what the cache holds.
func TestLogStore(t *testing.T) {
	below, _, err := raftlog.Open(diskfault.NewMem(rand.New(rand.NewPCG(1, 1))), "/log", raftlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := newLogStore(wherryLog{below}, 0, 0)
	defer func() {
		if err := errors.Join(s.close(), below.Close()); err != nil {
			t.Error(err)
		}
	}()
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
		if err := s.GetLog(i, &l); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("entry %d is still there: %v", i, err)
		}
	}
	// A snapshot replaces all: the log goes on behind a gap.
	if err := s.DeleteRange(101, 2901); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(entry(5000, 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(entry(6000, 3)); err != nil {
		t.Fatal(err)
	}
	if first, err := s.FirstIndex(); err != nil || first != 6000 {
		t.Errorf("the log begins at %d, %v", first, err)
	}
}

// TestDurable holds the disk back: nothing may be said to be stored meanwhile.
func TestDurable(t *testing.T) {
	faulty := diskfault.NewFaulty(diskfault.NewMem(rand.New(rand.NewPCG(1, 1))))
	below, _, err := raftlog.Open(faulty, "/log", raftlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := newLogStore(wherryLog{below}, 0, 0)
	faulty.SetDelay(time.Hour)
	for i := uint64(1); i <= 10; i++ {
		if err := s.StoreLog(&raft.Log{Index: i, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if d := s.durable(); d != 0 {
		t.Errorf("entry %d counts as stored", d)
	}
	up := make(chan struct{})
	close(up)
	for _, i := range []uint64{1, 10} {
		if err := s.wait(up, i); err == nil {
			t.Errorf("entry %d counts as stored", i)
		}
	}
	if err := s.wait(up, 0); err != nil {
		t.Errorf("what was there before: %v", err)
	}
	// Another leader's entries stand instead of some, and are not stored either.
	if err := s.wait(up, 4); err == nil {
		t.Error("entry 4 counts as stored")
	}
	s.pending = []pendingWrite{{first: 8, number: s.writes - 1}, {first: 4, number: s.writes}}
	if d := s.durable(); d != 3 {
		t.Errorf("entry %d counts as stored, entry 4 is not", d)
	}
	faulty.SetDelay(0)
	if err := s.waitAll(); err != nil {
		t.Fatal(err)
	}
	if d := s.durable(); d < 10 {
		t.Errorf("only %d are stored", d)
	}
	faulty.SetBroken(errors.New("input/output error"))
	failed := make(chan error, 1)
	s.failed = func(err error) { failed <- err }
	if err := s.StoreLog(&raft.Log{Index: 11, Term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(nil, 11); err == nil || <-failed == nil {
		t.Errorf("a sync failed: %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 12, Term: 1}); err == nil {
		t.Error("an entry behind what may be lost")
	}
	_ = errors.Join(s.close(), below.Close())
}

// TestOldDirectory opens a data directory that a former version wrote, with
// either kind of log, and converts it once.
func TestOldDirectory(t *testing.T) {
	for _, kind := range []string{LogWherry, LogBolt} {
		t.Run(kind, func(t *testing.T) {
			c := &cluster{
				t: t, dir: t.TempDir(), ip: testkit.Loopback().String(), net: newNetwork(), timeout: quick, kind: kind,
				names: map[string]string{}, members: map[string]*member{}, log: slog.New(slog.DiscardHandler),
			}
			t.Cleanup(c.close)
			unpack(t, "testdata/bolt-1.tar.gz", filepath.Join(c.dir, "m1"))
			for range 2 {
				c.start("m1", "")
				m := c.leader()
				for i := range 10 {
					if got := c.get(m, "key"+strconv.Itoa(i)); got != "value"+strconv.Itoa(40+i) {
						t.Fatalf("key%d is %q", i, got)
					}
				}
				c.set(m, "new", "value")
				c.stop(m, true)
			}
			_, err := os.Stat(filepath.Join(c.dir, "m1", boltFile))
			if there := err == nil; there != (kind == LogBolt) {
				t.Errorf("a bolt file: %v", there)
			}
			// A log in segments stays, whatever is asked for.
			c.kind = LogBolt
			c.start("m1", "")
			if got := c.get(c.leader(), "new"); got != "value" {
				t.Errorf("new is %q", got)
			}
		})
	}
}

// TestConvertCut stops a conversion before it counts.
func TestConvertCut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m1")
	unpack(t, "testdata/bolt-1.tar.gz", dir)
	log := raftLogger{log: slog.New(slog.DiscardHandler)}
	bolt, err := openDiskOn(raftlog.Disk{}, dir, "m1", "", LogBolt, log)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := bolt.logs.LastIndex()
	term, err := bolt.stable.GetUint64([]byte(stableKeys[0]))
	if err := errors.Join(err, bolt.close()); err != nil {
		t.Fatal(err)
	}
	faulty := diskfault.NewFaulty(raftlog.Disk{})
	faulty.SetFull(true)
	if _, err := openDiskOn(faulty, dir, "m1", "", LogWherry, log); !errors.Is(err, raftlog.ErrFull) {
		t.Errorf("on a full disk: %v", err)
	}
	faulty.SetFull(false)
	if err := os.WriteFile(filepath.Join(dir, logDir, "0000000000000001.seg"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stableFile), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := openDiskOn(faulty, dir, "m1", "", LogWherry, log)
	if err != nil {
		t.Fatal(err)
	}
	if now, _ := d.logs.LastIndex(); now != last || last == 0 {
		t.Errorf("the log ends at %d, want %d", now, last)
	}
	if now, err := d.stable.GetUint64([]byte(stableKeys[0])); err != nil || now != term {
		t.Errorf("the term is %d, want %d: %v", now, term, err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}

// unpack unpacks a data directory that is kept as test data.
func unpack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestCutFails lets a cut of the log fail, or a write: what is on the disk is
// not known, so the replica stops instead of going on without its log.
func TestCutFails(t *testing.T) {
	fault := errors.New("input/output error")
	start := func() (*logStore, *diskfault.Faulty, chan error) {
		faulty := diskfault.NewFaulty(diskfault.NewMem(rand.New(rand.NewPCG(1, 1))))
		below, _, err := raftlog.Open(faulty, "/log", raftlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := newLogStore(wherryLog{below}, 0, 0)
		failed := make(chan error, 1)
		s.failed = func(err error) { failed <- err }
		t.Cleanup(func() {
			faulty.SetBroken(nil)
			_ = errors.Join(s.close(), below.Close())
		})
		if err := errors.Join(s.StoreLogs([]*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1}}), s.waitAll()); err != nil {
			t.Fatal(err)
		}
		return s, faulty, failed
	}
	expect := func(what string, s *logStore, failed chan error, err error) {
		t.Helper()
		if !errors.Is(err, fault) || len(failed) != 1 || !errors.Is(<-failed, fault) {
			t.Fatalf("%s: %v; it says that it has stopped: %v", what, err, len(failed) == 1)
		}
		if err := s.StoreLog(&raft.Log{Index: 3, Term: 1}); !errors.Is(err, fault) {
			t.Errorf("%s: an entry afterwards: %v", what, err)
		}
	}
	s, faulty, failed := start()
	faulty.SetBroken(fault)
	expect("a cut", s, failed, s.DeleteRange(2, 2))

	s, faulty, failed = start()
	faulty.SetWrites(fault)
	expect("a write", s, failed, s.StoreLog(&raft.Log{Index: 3, Term: 1}))

	// A full disk and a gap are nothing to stop for.
	s, faulty, failed = start()
	faulty.SetWrites(syscall.ENOSPC)
	if err := s.StoreLog(&raft.Log{Index: 3, Term: 1}); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, raftlog.ErrFull) {
		t.Errorf("a write into a full disk: %v", err)
	}
	if err := s.DeleteRange(2, 2); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a cut on a full disk: %v", err)
	}
	faulty.SetWrites(nil)
	if err := s.StoreLogs([]*raft.Log{{Index: 3, Term: 1}, {Index: 5, Term: 1}}); !errors.Is(err, raftlog.ErrGap) {
		t.Errorf("a gap: %v", err)
	}
	if err := errors.Join(s.StoreLog(&raft.Log{Index: 3, Term: 1}), s.waitAll()); err != nil || len(failed) > 0 {
		t.Errorf("when there is room: %v", err)
	}
}

// syncedDirs notes of which directories the names are sure.
type syncedDirs struct {
	raftlog.Disk
	names []string
}

func (s *syncedDirs) SyncDir(name string) error {
	s.names = append(s.names, name)
	return s.Disk.SyncDir(name)
}

// TestNewDirectoryIsSure makes a data directory, whose own name must survive a
// power cut too.
func TestNewDirectoryIsSure(t *testing.T) {
	parent := t.TempDir()
	fs := &syncedDirs{}
	d, err := openDiskOn(fs, filepath.Join(parent, "raft"), "m1", "", LogWherry, raftLogger{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(fs.names, parent) {
		t.Errorf("only of %q are the names sure", fs.names)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}
