package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/cluster"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
)

// initialised is a host with a cluster's data that was never started.
func initialised(t *testing.T, name string) *host {
	t.Helper()
	h := newHost(t, name)
	if out, err := h.do("init", "--admin-kubeconfig", h.kubeconfig()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return h
}

// offline opens a host's data while its daemon does not run.
func (h *host) offline() (*raftstore.Offline, *cluster.Keyring) {
	h.t.Helper()
	m, keys, err := openMember(h.dataDir())
	if err != nil {
		h.t.Fatal(err)
	}
	own, err := keys.Agree()
	if err != nil {
		h.t.Fatal(err)
	}
	o, err := raftstore.OpenOffline(filepath.Join(memberDir(h.dataDir()), "raft"), m.ID, m.Settings.ClusterID, api.NewCodec(kinds.Table(), 0), slog.New(slog.DiscardHandler))
	if err != nil {
		h.t.Fatal(err)
	}
	keyring := cluster.NewKeyring(own, keys.Self().Key)
	keyring.Use(reader{o.State()})
	o.State().Use(keyring)
	return o, keyring
}

// offlineBackup makes a backup of a host whose daemon does not run, changed as
// asked, with more in its state if asked.
func offlineBackup(t *testing.T, h *host, file string, change func(*backup.Manifest), more ...func(*store.Mem)) {
	t.Helper()
	o, keyring := h.offline()
	defer o.Close()
	for _, f := range more {
		f(o.State())
	}
	src := backup.Source{Version: "test", State: o.State().Snapshot().Raw(), Keys: keyring.Keys(), Now: time.Now()}
	set, err := cluster.ReadSettings(o.State().Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	src.Cluster = set.ClusterID
	m, err := src.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&m)
	}
	if err := backup.WriteFile(file, []byte(passphrase), m, src.Write); err != nil {
		t.Fatal(err)
	}
}

// fingerprint is of every file in a folder; of the log's segments, which are
// tidied when they are opened, it has the names.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(sum, path, e.Type())
		if !e.Type().IsRegular() || filepath.Ext(path) == ".seg" {
			return nil
		}
		b, err := os.ReadFile(path)
		sum.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRestoreRefuses(t *testing.T) {
	source, blank, taken := initialised(t, "c1"), newHost(t, "c1"), initialised(t, "c1")
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	offlineBackup(t, source, good, nil)
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	flipped, newer := bytes.Clone(b), bytes.Clone(b)
	flipped[len(b)/2] ^= 1
	newer[len("wherrybackup")]++
	future := filepath.Join(dir, "future")
	offlineBackup(t, source, future, func(m *backup.Manifest) { m.Created = time.Now().Add(48 * time.Hour) })
	pass, wrong := blank.passphraseFile(), write(t, filepath.Join(dir, "wrong"), []byte("another\n"))
	for _, tt := range []struct {
		name string
		on   *host
		args []string
		want string
	}{
		{"wrong passphrase", blank, []string{good, "--passphrase-file", wrong}, "wrong passphrase; nothing was changed"},
		{"no passphrase", blank, []string{good}, "give --passphrase-file FILE"},
		{"empty passphrase", blank, []string{good, "--passphrase-file", write(t, filepath.Join(dir, "empty"), nil)}, "first line must be the passphrase"},
		{"no such passphrase file", blank, []string{good, "--passphrase-file", filepath.Join(dir, "no")}, "--passphrase-file:"},
		{"truncated", blank, []string{write(t, filepath.Join(dir, "cut"), b[:len(b)-1000]), "--passphrase-file", pass}, "use another copy"},
		{"truncated in the head", blank, []string{write(t, filepath.Join(dir, "head"), b[:30]), "--passphrase-file", pass}, "cut off"},
		{"flipped byte", blank, []string{write(t, filepath.Join(dir, "flipped"), flipped), "--passphrase-file", pass}, "it is damaged"},
		{"newer format", blank, []string{write(t, filepath.Join(dir, "newer"), newer), "--passphrase-file", pass}, "newer format than this version knows"},
		{"not a backup", blank, []string{write(t, filepath.Join(dir, "text"), []byte("hello")), "--passphrase-file", pass}, "not a backup"},
		{"no file", blank, []string{filepath.Join(dir, "nothing"), "--passphrase-file", pass}, "no such file"},
		{"data is there", taken, []string{good, "--passphrase-file", pass}, "remove that folder first"},
		{"from the future", blank, []string{future, "--passphrase-file", pass}, "set the clock first"},
		{"other settings", blank, []string{good, "--passphrase-file", pass, "--pod-cidr", "10.99.0.0/16"}, "this cluster was made with"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := fingerprint(t, tt.on.dir)
			out, err := tt.on.do(append([]string{"restore", "--admin-kubeconfig", filepath.Join(tt.on.dir, "new.kubeconfig")}, tt.args...)...)
			if err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("%v: %s, want %q", err, out, tt.want)
			}
			if fingerprint(t, tt.on.dir) != before {
				t.Error("something changed on disk")
			}
		})
	}
}

func TestRecoverRefuses(t *testing.T) {
	alone, empty := initialised(t, "c1"), newHost(t, "c1")
	foreign, other := initialised(t, "c1"), initialised(t, "c1")
	// The log of another cluster in this one's folder.
	raft := filepath.Join(memberDir(foreign.dataDir()), "raft")
	if err := os.RemoveAll(raft); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(memberDir(other.dataDir()), "raft"), raft); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		on   *host
		want string
	}{
		{"no data", empty, "holds no member of a cluster"},
		{"alone already", alone, "there is nothing to recover"},
		{"the log of another", foreign, "nothing was changed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := fingerprint(t, tt.on.dir)
			out, err := tt.on.do("recover", "--yes")
			if err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("%v: %s, want %q", err, out, tt.want)
			}
			if fingerprint(t, tt.on.dir) != before {
				t.Error("something changed on disk")
			}
		})
	}
}

func TestRecoverAsks(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES\n": true, "yes": true, "n\n": false, "\n": false, "": false, "yellow\n": false} {
		if got, err := agreed(strings.NewReader(answer), io.Discard); got != want || err != nil {
			t.Errorf("%q: %v, %v", answer, got, err)
		}
	}
}

func TestDrill(t *testing.T) {
	h := initialised(t, "c1")
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	offlineBackup(t, h, good, nil)
	before := fingerprint(t, h.dir)
	pass := write(t, filepath.Join(dir, "pass"), []byte(passphrase))
	out, err := h.do("drill", good, "--passphrase-file", pass)
	if err != nil || !strings.Contains(out, "good: ") || !strings.Contains(out, "sealed ones open") {
		t.Errorf("%v: %s", err, out)
	}
	if fingerprint(t, h.dir) != before {
		t.Error("the drill changed something")
	}
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-100] ^= 1
	if out, err := h.do("drill", write(t, good, b), "--passphrase-file", pass); err == nil || !strings.Contains(out, "damaged") {
		t.Errorf("a damaged one: %v: %s", err, out)
	}
}

// TestSame finds what a restore must not lose.
func TestSame(t *testing.T) {
	h := initialised(t, "c1")
	dir := t.TempDir()
	file := filepath.Join(dir, "good")
	offlineBackup(t, h, file, nil)
	codec := api.NewCodec(kinds.Table(), 0)
	for name, change := range map[string]func(*backup.Backup) error{
		"lost": func(b *backup.Backup) error {
			_, err := b.State.Apply(store.Command{Changes: []store.Change{{Op: store.Delete, Key: api.Key{Resource: "namespaces", Name: "default"}}}})
			return err
		},
		"changed": func(b *backup.Backup) error {
			r, _ := b.State.Snapshot().Get(api.Key{Resource: "namespaces", Name: "default"})
			_, err := b.State.Apply(store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}})
			return err
		},
		"no keys": func(b *backup.Backup) error {
			b.State.Use(cluster.OpenKeyring(nil))
			return nil
		},
	} {
		b, err := backup.ReadFile(file, []byte(passphrase), codec)
		if err != nil {
			t.Fatal(err)
		}
		before := b.State.Snapshot().Raw()
		b.State.Use(cluster.OpenKeyring(b.Keys))
		if n, err := same(before, b.State.Snapshot()); err != nil || n == 0 {
			t.Errorf("nothing is amiss: %d opened, %v", n, err)
		}
		if err := change(b); err != nil {
			t.Fatal(err)
		}
		if _, err := same(before, b.State.Snapshot()); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
}
