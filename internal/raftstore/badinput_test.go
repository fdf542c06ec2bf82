package raftstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

// TestBadInput: what does not belong here is refused with words that say what
// to do, and nothing is changed. (Two members with one identity, and a member
// of another cluster that calls, are in members_test.go.)
func TestBadInput(t *testing.T) {
	c := newCluster(t, 1, Limits{SnapshotEntries: 20, TrailingEntries: 5, Mem: store.Limits{CommandBytes: 64 << 10}})
	m := c.leader()
	for range 50 {
		c.set(m, "a", "1")
	}
	t.Run("requests", func(t *testing.T) { badRequests(t, c, m) })
	c.stop(m, true)
	t.Run("directories", func(t *testing.T) { badDirectories(t, c, m) })
}

func badRequests(t *testing.T, c *cluster, m *member) {
	revision := m.Revision()
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	for name, test := range map[string]struct {
		do   func() error
		kind error
		say  string
	}{
		"an entry over the limit": {func() error {
			_, err := m.Commit(c.ctx(), storetest.Set(storetest.Key("b"), strings.Repeat("x", 70<<10), store.Cond{}))
			return err
		}, apierr.ErrTooLarge, "over the limit of 65536"},
		"a revision from the future": {func() error {
			_, err := m.Snapshot(soon(), store.At{Level: store.AtLeast, Revision: revision + 1000})
			return err
		}, apierr.ErrTimeout, fmt.Sprintf("Too large resource version: %d, current: %d", revision+1000, revision)},
		"exactly a revision from the future": {func() error {
			_, err := m.Snapshot(soon(), store.At{Level: store.Exactly, Revision: revision + 1000})
			return err
		}, apierr.ErrTimeout, "Too large resource version"},
		"a watch from the future": {func() error {
			_, err := m.Watch(c.ctx(), store.Filter{}, revision+1000)
			return err
		}, apierr.ErrTimeout, "Too large resource version"},
		"a write at a revision from the future": {func() error {
			_, err := m.Commit(c.ctx(), storetest.Set(storetest.Key("a"), "2", store.Cond{Revision: revision + 1000}))
			var compare *store.CompareError
			if errors.As(err, &compare) {
				err = apierr.New(apierr.ErrConflict, "%w", err)
			}
			return err
		}, apierr.ErrConflict, fmt.Sprintf("it is at revision %d", revision)},
	} {
		if err := test.do(); !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s: %v, want %v and %q", name, err, test.kind, test.say)
		}
	}
	if m.Revision() != revision {
		t.Errorf("the revision went from %d to %d", revision, m.Revision())
	}
}

func badDirectories(t *testing.T, c *cluster, m *member) {
	good := filepath.Join(c.dir, m.id)
	format := func(text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "format.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// snapshot puts a newer snapshot beside those that are there.
	snapshot := func(cluster string, edit func([]byte)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			from := t.TempDir()
			s, err := openSnapshots(raftlog.Disk{}, from, cluster, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			sink, err := s.Create(1, 1<<40, 9, raft.Configuration{}, 1, nil)
			if err == nil {
				_, err = io.WriteString(sink, "state")
			}
			if err == nil {
				err = sink.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(from, sink.ID()))
			if err != nil {
				t.Fatal(err)
			}
			edit(b)
			if err := os.WriteFile(filepath.Join(dir, "snap", sink.ID()), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		prepare func(*testing.T, string)
		say     string
	}{
		"a directory of a newer version":  {format(`{"format":99,"member":"m1"}`), "start the newer version"},
		"the directory of another member": {format(`{"format":2,"member":"m7"}`), "use the directory of this member"},
		"the directory of a cluster":      {format(`{"format":2,"member":"m1","cluster":"there"}`), "use the directory of this cluster"},
		"a snapshot of another cluster":   {snapshot("there", func([]byte) {}), "wherry cluster restore"},
		"a snapshot of a newer version":   {snapshot("here", func(b []byte) { b[len(snapshotsMagic)]++ }), "start the newer version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), m.id)
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			test.prepare(t, dir)
			before := content(t, dir)
			cfg := c.config(m.id, "127.0.0.1:1")
			cfg.Dir, cfg.Cluster = dir, "here"
			s, err := Open(cfg)
			if err == nil {
				_ = s.Close(c.ctx())
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), test.say) || errors.Is(err, ErrDamaged) {
				t.Errorf("%v, want %q", err, test.say)
			}
			if after := content(t, dir); !slices.Equal(before, after) {
				t.Errorf("files changed:\n%v\n%v", before, after)
			}
		})
	}
}

// content gives the files of a directory with their checksums.
func content(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, fmt.Sprintf("%s %d %x", path, len(b), sha256.Sum256(b)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
