package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestJournalLines(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewJournal(&out, slog.LevelDebug)).With("node", "n1")
	log.Debug("look")
	log.Info("pod runs", "pod", "default/a")
	log.WithGroup("g").Warn("slow", "level", 3)
	log.Error("two\nlines", "err", errors.New("no"))
	want := "<7>msg=look node=n1\n" +
		"<6>msg=\"pod runs\" node=n1 pod=default/a\n" +
		"<4>msg=slow node=n1 g.level=3\n" +
		"<3>msg=\"two\\nlines\" node=n1 err=no\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if NewJournal(&out, slog.LevelWarn).Enabled(context.Background(), slog.LevelInfo) {
		t.Error("info is written at level warn")
	}
}

func TestWhereTheJournalIs(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "err"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st, _ := fi.Sys().(*syscall.Stat_t)
	here := strconv.FormatUint(st.Dev, 10) + ":" + strconv.FormatUint(st.Ino, 10)
	for stream, want := range map[string]bool{here: true, "": false, "1:2": false, here + "0": false} {
		if got := isJournal(f, stream); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v, want %v", stream, got, want)
		}
	}
	t.Setenv("JOURNAL_STREAM", here)
	NewLogger(f, slog.LevelInfo).Info("a")
	t.Setenv("JOURNAL_STREAM", "")
	NewLogger(f, slog.LevelInfo).Info("b")
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if first, second, _ := strings.Cut(string(got), "\n"); first != "<6>msg=a" || !strings.HasPrefix(second, "time=") {
		t.Errorf("got %q", got)
	}
}

func TestParseLevel(t *testing.T) {
	if l, err := ParseLevel("debug"); err != nil || l != slog.LevelDebug {
		t.Errorf("got %v, %v", l, err)
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("loud is a level")
	}
}

func TestRegistry(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(NewRegistry("noded", "v1")).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`wherry_build_info{go_version="go`, `program="noded",version="v1"} 1`, "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
