package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
	"github.com/wherry-project/wherry/internal/testkit"
)

// empty says what is in a folder; none is empty.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, fmt.Errorf("%s is in %s", e.Name(), dir))
	}
	return err
}

// TestDrillThatEndsEarly has the drill's process end while it works, as when
// leadership goes elsewhere: nothing stays of what it made with the cluster's
// keys.
func TestDrillThatEndsEarly(t *testing.T) {
	h := initialised(t, "c1")
	file := filepath.Join(h.dir, "backup")
	offlineBackup(t, h, file, nil, func(m *store.Mem) { // it has work for a while
		var c store.Command
		for i := range 30_000 {
			key := storetest.Key(fmt.Sprint("many-", i))
			c.Changes = append(c.Changes, store.Change{Op: store.Put, Key: key, Record: storetest.Record(key, strings.Repeat("x", 1000))})
		}
		if _, err := m.Apply(c); err != nil {
			t.Fatal(err)
		}
	})
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	t.Setenv(asControld, "1")
	room := filepath.Join(h.dataDir(), "drill")
	d := &controld{cfg: config{Name: "c1", DataDir: h.dataDir(), file: filepath.Join(h.dir, "controld.yaml"), BackupPassphraseFile: h.passphraseFile()}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := d.drillApart(ctx, file)
		ended <- err
	}()
	testkit.Eventually(t, patience, func() error {
		if empty(room) == nil && empty(temporary) == nil {
			return errors.New("the drill makes nothing yet")
		}
		return nil
	})
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it was done before it was to end: this test says nothing")
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if err := errors.Join(empty(room), empty(temporary)); err != nil {
		t.Error(err)
	}
}

// TestDrillThatWasKilled has the daemon remove what a drill left behind, and
// nothing of one at work.
func TestDrillThatWasKilled(t *testing.T) {
	h := initialised(t, "c1")
	key := filepath.Join(h.dataDir(), "drill", "member", "identity", "tls.key")
	leave := func() {
		if err := os.MkdirAll(filepath.Dir(key), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, key, []byte("secret"))
	}
	leave()
	h.start()
	if _, err := os.Stat(filepath.Join(h.dataDir(), "drill")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	leave()
	room, err := takeDrillRoom(h.dataDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := empty(room.dir); err != nil {
		t.Errorf("another drill begins with it: %v", err)
	}
	leave()
	if err := clearDrills(h.dataDir()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(key); err != nil {
		t.Errorf("of a drill at work: %v", err)
	}
	if _, err := takeDrillRoom(h.dataDir()); !errors.Is(err, errDrilling) {
		t.Errorf("two drills at once: %v", err)
	}
	if err := unix.Flock(int(room.lock.Fd()), unix.LOCK_UN); err != nil { // as if it had been killed
		t.Fatal(err)
	}
	if err := clearDrills(h.dataDir()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(room.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := room.lock.Close(); err != nil {
		t.Error(err)
	}
}
