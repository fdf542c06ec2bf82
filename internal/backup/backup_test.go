package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/backup"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

const word = "correct horse"

func codec() *api.Codec { return api.NewCodec(api.NewKinds(), 0) }

func state(t *testing.T, n int) *store.Local {
	t.Helper()
	s := store.NewLocal(codec())
	for i := range n {
		key := api.Key{Resource: "things", Name: fmt.Sprint("t", i)}
		_, err := s.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: key, Record: &api.Record{Key: key, Bytes: bytes.Repeat([]byte{'a'}, i)}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func source(t *testing.T, n int, now time.Time) backup.Source {
	t.Helper()
	key, err := seal.NewKey(4)
	if err != nil {
		t.Fatal(err)
	}
	return backup.Source{Cluster: "abc", Version: "v1", State: state(t, n).Mem().Snapshot(), Keys: []seal.Key{key}, Now: now}
}

func write(t *testing.T, dir string, src backup.Source) string {
	t.Helper()
	m, err := src.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "b.wherry")
	if err := backup.WriteCheaply(file, []byte(word), m, src.Write); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	src := source(t, 500, time.Now())
	file := write(t, dir, src)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("left behind: %v, %v", all, err)
	}
	b, err := backup.ReadFile(file, []byte(word), codec())
	if err != nil {
		t.Fatal(err)
	}
	if b.Cluster != "abc" || b.Revision != 500 || b.Objects != 500 || len(b.Keys) != 1 || b.Keys[0].ID() != 4 || !bytes.Equal(b.Keys[0].Bytes(), src.Keys[0].Bytes()) {
		t.Errorf("came back as %+v", b.Manifest)
	}
	var was, is bytes.Buffer
	if err := errors.Join(src.State.Persist(&was), b.State.Snapshot().Persist(&is)); err != nil || !bytes.Equal(was.Bytes(), is.Bytes()) {
		t.Errorf("another state came back, %v", err)
	}
	m, err := backup.Peek(file)
	if err != nil || m != b.Manifest {
		t.Errorf("says %+v of itself, %v", m, err)
	}
}

func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	src := source(t, 3, time.Now())
	file := write(t, dir, src)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := src.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err = backup.WriteCheaply(file, []byte(word), m, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	after, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the former file changed, %v", err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("left behind: %v, %v", all, err)
	}
}

func TestReadRefuses(t *testing.T) {
	src := source(t, 50, time.Now())
	m, err := src.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	with := func(name string, m backup.Manifest, contents func(io.Writer) error) string {
		file := filepath.Join(dir, name)
		if err := backup.WriteCheaply(file, []byte(word), m, contents); err != nil {
			t.Fatal(err)
		}
		return file
	}
	newer, more := m, m
	newer.Format = 9
	more.Objects++
	for _, tt := range []struct{ name, file, want string }{
		{"newer", with("newer", newer, src.Write), "newer format"},
		{"other count", with("more", more, src.Write), "is not what was backed up"},
		{"no contents", with("none", m, func(io.Writer) error { return nil }), "cut off"},
		{"newer contents", with("newc", m, func(w io.Writer) error { _, err := w.Write([]byte{9, 0, 0, 0, 0}); return err }), "newer format"},
		{"no state", with("nostate", m, func(w io.Writer) error { _, err := w.Write([]byte("\x01\x00\x00\x00\x02{}")); return err }), "cut off"},
		{"more behind", with("behind", m, func(w io.Writer) error { return errors.Join(src.Write(w), src.State.Persist(w)) }), "is not what was backed up"},
		{"no file", filepath.Join(dir, "nothing"), "no such file"},
	} {
		if _, err := backup.ReadFile(tt.file, []byte(word), codec()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// memory keeps the status.
type memory struct {
	status backup.Status
	saved  int
}

func (m *memory) Load(context.Context) (backup.Status, error) { return m.status, nil }
func (m *memory) Save(_ context.Context, s backup.Status) error {
	m.status, m.saved = s, m.saved+1
	return nil
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Name())
	}
	return out
}

func TestSchedule(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	src := source(t, 5, time.Now())
	synctest.Test(t, func(t *testing.T) {
		var keeper memory
		var problem, bad error
		metrics, err := backup.NewMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		s := backup.Schedule{
			Dir: dir, Every: time.Hour, Keep: 3, Host: "c1",
			Passphrase: func() ([]byte, error) { return []byte(word), problem },
			Source: func(context.Context) (backup.Source, error) {
				src.Now = time.Now()
				return src, nil
			},
			Drill: func(_ context.Context, file string) (string, error) {
				_, err := backup.ReadFile(file, []byte(word), codec())
				return "good", errors.Join(err, bad)
			},
			Keeper: &keeper, Metrics: metrics, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		}
		s.Cheaply()
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		}
		run(5*time.Hour + time.Minute)
		if got := files(t, dir); len(got) != 3 || keeper.saved != 6 {
			t.Errorf("%d turns left %q", keeper.saved, got)
		}
		if st := keeper.status; !st.Backup.OK || !st.Drill.OK || st.Drill.Message != "good" || st.Newest.Objects != 5 || st.Host != "c1" {
			t.Errorf("status %+v", st)
		}
		// Another leader goes on where this one stopped.
		run(50 * time.Minute)
		if keeper.saved != 6 {
			t.Errorf("made %d, another leader did not wait", keeper.saved)
		}
		run(15 * time.Minute)
		if keeper.saved != 7 {
			t.Errorf("made %d, another leader did not go on", keeper.saved)
		}
		foreign := filepath.Join(dir, "abc-notes-r1.wherry")
		if err := os.WriteFile(foreign, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		bad = errors.New("does not open")
		run(time.Hour)
		if st := keeper.status; st.Drill.OK || !strings.Contains(st.Drill.Message, "does not open") || !st.Backup.OK {
			t.Errorf("status %+v", st)
		}
		if got := files(t, dir); len(got) != 5 {
			t.Errorf("after a failed drill: %q", got)
		}
		bad, problem = nil, errors.New("no passphrase")
		last := keeper.status.Newest
		run(90 * time.Minute)
		if st := keeper.status; st.Backup.OK || st.Backup.Message != "no passphrase" || st.Newest != last {
			t.Errorf("status %+v", st)
		}
		problem = nil
		run(time.Minute)
		if got := files(t, dir); !keeper.status.Backup.OK || len(got) != 4 {
			t.Errorf("afterwards: %+v, %q", keeper.status, got)
		}
		if _, err := os.Stat(foreign); err != nil {
			t.Error("a file that is none of ours was removed")
		}
	})
}

func TestPassphrase(t *testing.T) {
	dir := t.TempDir()
	for i, tt := range []struct{ text, want, problem string }{
		{"abc\n", "abc", ""}, {"abc def\r\nmore\n", "abc def", ""}, {"abc", "abc", ""},
		{"", "", "is empty"}, {"\nabc", "", "is empty"}, {strings.Repeat("x", 5000), "", "longer than"},
	} {
		file := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := backup.Passphrase(file, nil, nil, true)
		if string(got) != tt.want && tt.problem == "" || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%q: got %q, %v", tt.text, got, err)
		}
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := backup.Passphrase("-", in, nil, false); tt.problem == "" && string(got) != tt.want {
			t.Errorf("%q from standard input: %q", tt.text, got)
		}
		if _, err := backup.Passphrase("", in, nil, false); err == nil || !strings.Contains(err.Error(), "--passphrase-file") {
			t.Errorf("without a terminal: %v", err)
		}
		in.Close()
	}
}
