package raftstore

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
	"github.com/wherry-project/wherry/internal/testkit"
)

var writeData = flag.Bool("olddata", false, "write a data directory of today's format into testdata, for versions to come")

// todaysData is what a data directory of today's format is kept as.
var todaysData = fmt.Sprintf("testdata/wherry-%d.tar.gz", formatWherry)

// What is in it: writes of ten keys in turn, some of them in a snapshot with the
// ring, and the removal of one.
const oldWrites = 100

// TestWriteData makes todaysData, where there is none yet. What is there stays:
// it was written by the version that it is of.
func TestWriteData(t *testing.T) {
	if !*writeData {
		t.Skip("only with -olddata")
	}
	c := newCluster(t, 1, Limits{SnapshotEntries: 64, TrailingEntries: 16})
	m := c.leader()
	for i := range oldWrites {
		c.set(m, "key"+strconv.Itoa(i%10), "value"+strconv.Itoa(i))
		if i == oldWrites*4/5 {
			eventually(t, "a snapshot is made", func() bool { return m.disk.snapshots.newest.Load() > 0 })
		}
	}
	if _, err := m.Commit(c.ctx(), store.Command{Changes: []store.Change{removeIf("key0", store.Cond{})}}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.dir, m.id)
	c.stop(m, true)
	out, err := os.OpenFile(todaysData, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	zip := gzip.NewWriter(out)
	pack := tar.NewWriter(zip)
	err = pack.AddFS(os.DirFS(dir))
	if err := errors.Join(err, pack.Close(), zip.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestDirectoryOfSegments opens the data directories that were written when
// their formats were new: log, snapshot and ring.
func TestDirectoryOfSegments(t *testing.T) {
	all, err := filepath.Glob("testdata/wherry-*.tar.gz")
	if err != nil || len(all) == 0 {
		t.Fatalf("no old data: %v", err)
	}
	for _, file := range all {
		t.Run(filepath.Base(file), func(t *testing.T) { openOldData(t, file) })
	}
}

func openOldData(t *testing.T, file string) {
	c := &cluster{
		t: t, dir: t.TempDir(), ip: testkit.Loopback().String(), net: newNetwork(), timeout: quick,
		names: map[string]string{}, members: map[string]*member{}, log: slog.New(slog.DiscardHandler),
	}
	t.Cleanup(c.close)
	dir := filepath.Join(c.dir, "m1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	unpack(t, file, dir)
	snapshots, err := fs.Glob(os.DirFS(dir), "snap/"+snapshotPrefix+"*")
	if err != nil || len(snapshots) == 0 {
		t.Fatalf("it has no snapshot: %v", err)
	}
	holds := func(value func(name string) string) {
		t.Helper()
		for i := range 10 {
			want := "value" + strconv.Itoa(oldWrites-10+i)
			if i == 0 {
				want = "" // it was removed
			}
			if got := value("key" + strconv.Itoa(i)); got != want {
				t.Errorf("key%d is %q, want %q", i, got, want)
			}
		}
	}
	o, err := OpenOffline(dir, "m1", "", storetest.Codec(), c.log)
	if err != nil {
		t.Fatal(err)
	}
	holds(func(name string) string {
		value, _ := storetest.Value(o.State().Snapshot(), storetest.Key(name))
		return value
	})
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.start("m1", "")
		m := c.leader()
		holds(func(name string) string { return c.get(m, name) })
		c.set(m, "new", "value")
		// The ring reaches back to the beginning.
		w, err := m.Watch(c.ctx(), store.Filter{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		for next := uint64(2); next <= oldWrites+1; {
			events, _, err := w.Next(c.ctx())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Revision != next {
					t.Fatalf("the watch gives revision %d, want %d", e.Revision, next)
				}
				if next++; e.Revision <= oldWrites && storetest.Text(e.New) != "value"+strconv.FormatUint(e.Revision-1, 10) {
					t.Errorf("revision %d is %q", e.Revision, storetest.Text(e.New))
				}
			}
		}
		w.Stop()
		c.stop(m, true)
	}
}
