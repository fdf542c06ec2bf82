package raftlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/raftlog/diskfault"
)

func entries(from, to, term uint64) (all []raftlog.Entry) {
	for i := from; i <= to; i++ {
		all = append(all, raftlog.Entry{Index: i, Term: term, Type: 1, Data: fmt.Appendf(nil, "entry %d of %d", i, term)})
	}
	return all
}

func newMem() *diskfault.Mem { return diskfault.NewMem(rand.New(rand.NewPCG(1, 2))) }

func mustOpen(t *testing.T, fs raftlog.FS, dir string) *raftlog.Log {
	t.Helper()
	l, _, err := raftlog.Open(fs, dir, raftlog.Options{SegmentBytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// write appends entries so that they survive a power cut.
func write(l *raftlog.Log, entries []raftlog.Entry) error {
	if err := l.Write(entries); err != nil {
		return err
	}
	return l.Sync()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLog does everything that can be done on a real disk, and opens it again.
func TestLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := mustOpen(t, raftlog.Disk{}, dir)
	if _, _, err := raftlog.Open(raftlog.Disk{}, dir, raftlog.Options{}); !errors.Is(err, raftlog.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	for i := uint64(1); i <= 400; i += 4 {
		must(t, write(l, entries(i, i+3, 1)))
	}
	if err := write(l, entries(402, 402, 1)); !errors.Is(err, raftlog.ErrGap) {
		t.Errorf("a gap: %v", err)
	}
	must(t, l.CutBack(301))
	must(t, write(l, entries(301, 310, 2)))
	must(t, l.CutFront(200))
	big := raftlog.Entry{Index: 311, Term: 2, Data: bytes.Repeat([]byte("x"), 100_000)}
	must(t, write(l, []raftlog.Entry{big}))
	check := func() {
		t.Helper()
		if l.Last() != 311 {
			t.Fatalf("the last entry is %d", l.Last())
		}
		for i := uint64(201); i <= 310; i++ {
			want := entries(i, i, 1+i/301)[0]
			if e, err := l.Get(i); err != nil || e.Term != want.Term || !bytes.Equal(e.Data, want.Data) || e.Type != 1 {
				t.Fatalf("entry %d: %+v, %v", i, e, err)
			}
		}
		if e, err := l.Get(311); err != nil || !bytes.Equal(e.Data, big.Data) {
			t.Fatalf("the large entry: %d bytes, %v", len(e.Data), err)
		}
		if _, err := l.Get(312); !errors.Is(err, raftlog.ErrNotFound) {
			t.Errorf("an entry that is not there: %v", err)
		}
	}
	check()
	if l.First() != 201 {
		t.Errorf("the first entry is %d", l.First())
	}
	must(t, l.Close())
	if err := write(l, entries(312, 312, 2)); !errors.Is(err, raftlog.ErrClosed) {
		t.Errorf("a closed log: %v", err)
	}
	l = mustOpen(t, raftlog.Disk{}, dir)
	check()
	if l.First() > 201 || l.First() < 100 {
		t.Errorf("the first entry is %d after opening", l.First())
	}
	must(t, l.CutFront(1000))
	if l.First() != 0 || l.Last() != 0 {
		t.Errorf("an empty log has %d to %d", l.First(), l.Last())
	}
	must(t, l.Close())
	l = mustOpen(t, raftlog.Disk{}, dir)
	must(t, write(l, entries(5000, 5001, 7)))
	must(t, l.Close())
	l = mustOpen(t, raftlog.Disk{}, dir)
	if l.First() != 5000 || l.Last() != 5001 {
		t.Errorf("the log has %d to %d", l.First(), l.Last())
	}
	must(t, l.Close())
	names, err := os.ReadDir(dir)
	if err != nil || len(names) > 3 {
		t.Errorf("too many files: %v, %v", names, err)
	}
}

// TestDamage changes each byte of a log in turn. What was synced and is not
// whole any more must be told, never cut off.
func TestDamage(t *testing.T) {
	fill := func() *diskfault.Mem {
		disk := newMem()
		l := mustOpen(t, disk, "/log")
		for i := uint64(1); i <= 120; i += 3 {
			must(t, write(l, entries(i, i+2, 1)))
		}
		must(t, l.Close())
		return disk
	}
	names, err := fill().ReadDir("/log")
	must(t, err)
	if len(names) < 2 {
		t.Fatalf("one segment is not enough for this test: %v", names)
	}
	damaged := 0
	for _, name := range names {
		for at := int64(0); at < 4<<10; at += 7 {
			disk := fill()
			if disk.Damage("/log/"+name, at) != nil {
				break // behind its end
			}
			l, _, err := raftlog.Open(disk, "/log", raftlog.Options{SegmentBytes: 4 << 10})
			if err != nil {
				if damaged++; !errors.Is(err, raftlog.ErrDamaged) && !errors.Is(err, raftlog.ErrNewer) || !strings.Contains(err.Error(), name) {
					t.Errorf("%s, byte %d: %v", name, at, err)
				}
				continue
			}
			if l.Last() != 120 {
				t.Errorf("%s, byte %d: the log ends at %d, and nobody was told", name, at, l.Last())
			}
			must(t, l.Close())
		}
	}
	if damaged < 400 {
		t.Errorf("damage was seen in %d places only", damaged)
	}
	disk := fill()
	must(t, disk.Remove("/log/"+names[0]))
	must(t, disk.Remove("/log/"+names[1]))
	if _, _, err := raftlog.Open(disk, "/log", raftlog.Options{Must: true}); len(names) == 2 && !errors.Is(err, raftlog.ErrDamaged) {
		t.Errorf("no segments: %v", err)
	}
}

// TestMissingSegment takes one out of the middle.
func TestMissingSegment(t *testing.T) {
	disk := newMem()
	l := mustOpen(t, disk, "/log")
	must(t, write(l, entries(1, 400, 1)))
	for i := uint64(401); i < 800; i += 10 {
		must(t, write(l, entries(i, i+9, 1)))
	}
	must(t, l.Close())
	names, err := disk.ReadDir("/log")
	must(t, err)
	must(t, disk.Remove("/log/"+names[2]))
	if _, _, err := raftlog.Open(disk, "/log", raftlog.Options{}); !errors.Is(err, raftlog.ErrDamaged) || !strings.Contains(err.Error(), names[2]) {
		t.Errorf("a segment is missing: %v", err)
	}
}

// TestFull fills the disk: what does not fit is refused and leaves no trace, and
// when there is room it goes on.
func TestFull(t *testing.T) {
	disk := newMem()
	disk.SetRoom(10 << 10)
	l := mustOpen(t, disk, "/log")
	last := uint64(0)
	var err error
	warned := uint64(0)
	for last < 1000 {
		if err = write(l, entries(last+1, last+3, 1)); err != nil {
			break
		}
		last += 3
		if l.Full() && warned == 0 {
			warned = last
		}
	}
	if !errors.Is(err, raftlog.ErrFull) || warned == 0 || warned == last {
		t.Fatalf("entry %d: %v; known since entry %d", last, err, warned)
	}
	if l.Last() != last {
		t.Errorf("the log ends at %d, want %d", l.Last(), last)
	}
	disk.SetRoom(0)
	l.Prepare()
	if l.Full() {
		t.Error("it is still full")
	}
	must(t, write(l, entries(last+1, last+3, 1)))
	must(t, l.Close())
	l = mustOpen(t, disk, "/log")
	if l.Last() != last+3 {
		t.Errorf("the log ends at %d, want %d", l.Last(), last+3)
	}
	must(t, l.Close())
}

// TestTornAndFull opens a torn log on a full disk: it is there to be read.
func TestTornAndFull(t *testing.T) {
	disk := newMem()
	l := mustOpen(t, disk, "/log")
	must(t, write(l, entries(1, 10, 1)))
	must(t, l.Close())
	f, err := disk.Open("/log/0000000000000001.seg", 0)
	must(t, err)
	_, err = f.WriteAt([]byte("torn"), 2000)
	must(t, err)
	must(t, f.Sync())
	disk.SetRoom(1)
	l, found, err := raftlog.Open(disk, "/log", raftlog.Options{SegmentBytes: 4 << 10})
	must(t, err)
	if found.Cut == "" || l.Last() != 10 {
		t.Errorf("cut %q, the log ends at %d", found.Cut, l.Last())
	}
	if err := write(l, entries(11, 11, 1)); !errors.Is(err, raftlog.ErrFull) {
		t.Errorf("a full disk: %v", err)
	}
	disk.SetRoom(0)
	must(t, write(l, entries(11, 11, 1)))
	must(t, l.Close())
}

// TestSyncFails lets a sync fail: nothing goes behind what may be lost.
func TestSyncFails(t *testing.T) {
	disk := newMem()
	faulty := diskfault.NewFaulty(disk)
	l := mustOpen(t, faulty, "/log")
	must(t, write(l, entries(1, 10, 1)))
	fault := errors.New("input/output error")
	faulty.SetBroken(fault)
	must(t, l.Write(entries(11, 12, 1)))
	if err := l.Sync(); !errors.Is(err, fault) {
		t.Fatal(err)
	}
	faulty.SetBroken(nil)
	if err := l.Write(entries(13, 14, 1)); !errors.Is(err, fault) {
		t.Errorf("entries behind what may be lost: %v", err)
	}
	_ = l.Close()
	disk.Restart()
	l = mustOpen(t, disk, "/log")
	if l.Last() < 10 {
		t.Errorf("the log ends at %d", l.Last())
	}
	must(t, l.Close())
}

// TestWriteIsOpen fails a write for lack of room that is on the disk all the
// same: nobody may be told that nothing was written, and either may be found.
func TestWriteIsOpen(t *testing.T) {
	disk := newMem()
	faulty := diskfault.NewFaulty(disk)
	l := mustOpen(t, faulty, "/log")
	must(t, write(l, entries(1, 10, 1)))
	faulty.SetWrites(syscall.ENOSPC)
	if err := l.Write(entries(11, 11, 1)); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, raftlog.ErrFull) || !raftlog.NoRoom(err) {
		t.Errorf("a write that is open: %v", err)
	}
	if err := l.CutBack(10); !errors.Is(err, syscall.ENOSPC) || l.Last() != 10 {
		t.Errorf("a cut that is open: %v; the log ends at %d", err, l.Last())
	}
	faulty.SetWrites(nil)
	disk.Kill()
	l = mustOpen(t, faulty, "/log")
	if l.Last() != 11 {
		t.Errorf("the log ends at %d", l.Last()) // in this test it was written
	}
	faulty.SetWrites(syscall.ENOSPC)
	if err := l.Write(entries(12, 12, 1)); err == nil {
		t.Error("a write that is open succeeds")
	}
	faulty.SetWrites(nil)
	must(t, write(l, entries(12, 13, 2))) // whatever is behind the end does not count
	disk.Restart()
	l = mustOpen(t, faulty, "/log")
	if e, err := l.Get(12); err != nil || e.Term != 2 || l.Last() != 13 {
		t.Errorf("entry 12: %+v, %v; the log ends at %d", e, err, l.Last())
	}
	must(t, l.Close())
}

// TestStable keeps values, and tells damage of both copies.
func TestStable(t *testing.T) {
	disk := newMem()
	must(t, disk.MkdirAll("/"))
	s, err := raftlog.OpenStable(disk, "/stable", false)
	must(t, err)
	must(t, s.Set("term", []byte("7")))
	must(t, s.Set("vote", []byte("m1")))
	if err := s.Set("vote", make([]byte, 5000)); !errors.Is(err, raftlog.ErrTooLarge) {
		t.Errorf("a large value: %v", err)
	}
	must(t, s.Close())
	s, err = raftlog.OpenStable(disk, "/stable", false)
	must(t, err)
	if string(s.Get("term")) != "7" || string(s.Get("vote")) != "m1" || s.Get("other") != nil {
		t.Errorf("term %q, vote %q", s.Get("term"), s.Get("vote"))
	}
	must(t, s.Close())
	must(t, disk.Damage("/stable", 5))
	must(t, disk.Damage("/stable", 5000))
	if _, err := raftlog.OpenStable(disk, "/stable", false); !errors.Is(err, raftlog.ErrDamaged) {
		t.Errorf("both copies damaged: %v", err)
	}
}
