package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

var writeData = flag.Bool("olddata", false, "write a backup of today's format into testdata, for versions to come")

// TestWriteBackup makes a backup of today's format, where there is none yet. It
// is of a cluster that was made for it and is no more.
func TestWriteBackup(t *testing.T) {
	if !*writeData {
		t.Skip("only with -olddata")
	}
	file := fmt.Sprintf("testdata/backup-%d.wherry", backup.Format)
	if _, err := os.Stat(file); err == nil {
		t.Fatalf("%s is there, of the version that it is of", file)
	}
	offlineBackup(t, initialised(t, "c1"), file, func(m *backup.Manifest) {
		m.Created = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // no clock is behind that
	}, func(m *store.Mem) {
		for i := range 20 {
			if _, err := m.Apply(storetest.Set(storetest.Key(fmt.Sprint("old-", i)), fmt.Sprint("value-", i), store.Cond{})); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestOldBackup restores the backups that were written when their formats were
// new: on trial, and on a blank host.
func TestOldBackup(t *testing.T) {
	all, err := filepath.Glob("testdata/backup-*.wherry")
	if err != nil || len(all) == 0 {
		t.Fatalf("no old backup: %v", err)
	}
	for _, file := range all {
		t.Run(filepath.Base(file), func(t *testing.T) {
			h := newHost(t, "c1")
			pass := h.passphraseFile()
			if out, err := h.do("drill", file, "--passphrase-file", pass); err != nil || !strings.Contains(out, "sealed ones open") {
				t.Fatalf("drill: %v: %s", err, out)
			}
			if out, err := h.do("restore", file, "--passphrase-file", pass, "--admin-kubeconfig", h.kubeconfig()); err != nil {
				t.Fatalf("restore: %v: %s", err, out)
			}
			o, keyring := h.offline()
			defer o.Close()
			if keyring.Lacks() {
				t.Error("the keys of before are gone")
			}
			for i := range 20 {
				if got, _ := storetest.Value(o.State().Snapshot(), storetest.Key(fmt.Sprint("old-", i))); got != fmt.Sprint("value-", i) {
					t.Errorf("old-%d is %q", i, got)
				}
			}
		})
	}
}
