package streams

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/shim"
	"github.com/wherry-project/wherry/internal/testkit"
)

// log is a container's log that a test writes.
type log struct {
	t    *testing.T
	path string
	*shim.Log
	n int
}

func newLog(t *testing.T, size int64, files int) *log {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c", "0.log")
	l, err := shim.OpenLog(path, size, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &log{t: t, path: path, Log: l}
}

func at(n int) time.Time { return time.Date(2026, 1, 2, 3, 4, n, 5, time.UTC) }

// line writes one line at the next second.
func (l *log) line(text string, partial bool) {
	l.t.Helper()
	s := shim.Stdout
	if l.n%2 == 1 {
		s = shim.Stderr
	}
	if _, err := l.Write(shim.AppendLine(nil, shim.Line{Time: at(l.n), Stream: s, Text: []byte(text), Partial: partial})); err != nil {
		l.t.Fatal(err)
	}
	l.n++
}

func (l *log) rotate() {
	l.t.Helper()
	if err := l.Rotate(); err != nil {
		l.t.Fatal(err)
	}
}

func all() Options { return Options{Tail: -1, Limit: -1} }

func TestLogs(t *testing.T) {
	testkit.Leaks(t)
	// Two files of two lines each and a third one, of which one is in parts.
	l := newLog(t, 0, 5)
	l.line("zero", false)
	l.line("one", false)
	l.rotate()
	l.line("two", false)
	l.line("thr", true)
	l.rotate()
	l.line("ee", false)
	l.line("", false)
	l.line("unfinished", true)
	stamp := func(n int) string { return at(n).Format(time.RFC3339Nano) + " " }
	tests := []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"all", func(*Options) {}, "zero\none\ntwo\nthree\n\nunfinished"},
		{"tail 2", func(o *Options) { o.Tail = 2 }, "three\n\nunfinished"},
		{"tail 1", func(o *Options) { o.Tail = 1 }, "\nunfinished"},
		{"tail 0", func(o *Options) { o.Tail = 0 }, "unfinished"},
		{"tail beyond", func(o *Options) { o.Tail = 99 }, "zero\none\ntwo\nthree\n\nunfinished"},
		{"since", func(o *Options) { o.Since = at(2) }, "two\nthree\n\nunfinished"},
		{"since in parts", func(o *Options) { o.Since = at(4) }, "ee\n\nunfinished"},
		{"since and tail", func(o *Options) { o.Since, o.Tail = at(2), 2 }, "three\n\nunfinished"},
		{"since later", func(o *Options) { o.Since = at(50) }, ""},
		{"limit", func(o *Options) { o.Limit = 7 }, "zero\non"},
		{"limit at a line's end", func(o *Options) { o.Limit = 5 }, "zero\n"},
		{"limit beyond", func(o *Options) { o.Limit = 1000 }, "zero\none\ntwo\nthree\n\nunfinished"},
		{"time stamps", func(o *Options) { o.Timestamps = true }, stamp(0) + "zero\n" + stamp(1) + "one\n" + stamp(2) + "two\n" + stamp(3) + "three\n" + stamp(5) + "\n" + stamp(6) + "unfinished"},
		{"time stamps and limit", func(o *Options) { o.Timestamps, o.Limit = true, 10 }, stamp(0)[:10]},
	}
	over := make(chan struct{})
	close(over)
	for _, tt := range tests {
		for _, follow := range []bool{false, true} {
			o := all()
			tt.change(&o)
			o.Follow = follow
			var out bytes.Buffer
			if err := Logs(t.Context(), l.path, over, o, &out); err != nil || out.String() != tt.want {
				t.Errorf("%s, follow %v: %q, %v; want %q", tt.name, follow, out.String(), err, tt.want)
			}
		}
	}
}

func TestNoLog(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "none", "0.log"), filepath.Join(t.TempDir(), "0.log")} {
		for _, follow := range []bool{false, true} {
			o := all()
			o.Follow = follow
			if err := Logs(t.Context(), path, nil, o, &bytes.Buffer{}); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v, want ErrNotExist", path, err)
			}
		}
	}
}

func TestTornAndLongLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	long := strings.Repeat("x", shim.MaxLine)
	text := "2026-01-02T03:04:05Z stdout F good\ngarbage\n\n2026-01-02T03:04:05Z std\n" +
		"2026-01-02T03:04:06Z stdout P " + long + "\n2026-01-02T03:04:06Z stdout F end\n" +
		strings.Repeat("y", 10*shim.MaxLine) + "\n2026-01-02T03:04:07Z stderr F last\n2026-01-02T03:04:08Z stderr F to"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Logs(t.Context(), path, nil, all(), &out); err != nil || out.String() != "good\n"+long+"end\nlast\n" {
		t.Errorf("%.60q… of %d, %v", out.String(), out.Len(), err)
	}
}

// sink is what a follower gets, which a test may read meanwhile.
type sink struct {
	mu   sync.Mutex
	b    bytes.Buffer
	gate chan struct{} // if set, a write waits for it
}

func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sink) is(t *testing.T, want string) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.b.String() != want {
			return fmt.Errorf("got %q, want %q", s.b.String(), want)
		}
		return nil
	})
}

func TestFollow(t *testing.T) {
	testkit.Leaks(t)
	l := newLog(t, 0, 5)
	l.line("one", false)
	ended, done := make(chan struct{}), make(chan error, 1)
	var out sink
	o := all()
	o.Follow = true
	go func() { done <- Logs(t.Context(), l.path, ended, o, &out) }()
	out.is(t, "one\n")
	l.line("two", false)
	out.is(t, "one\ntwo\n")
	l.rotate()
	l.line("three", false)
	out.is(t, "one\ntwo\nthree\n")
	l.rotate()
	l.rotate()
	l.line("four", false)
	out.is(t, "one\ntwo\nthree\nfour\n")
	l.line("five", false)
	close(ended)
	if err := <-done; err != nil {
		t.Error(err)
	}
	out.is(t, "one\ntwo\nthree\nfour\nfive\n")
}

func TestFollowEndsWithContext(t *testing.T) {
	testkit.Leaks(t)
	l := newLog(t, 0, 5)
	l.line("one", false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var out sink
	o := all()
	o.Follow = true
	go func() { done <- Logs(ctx, l.path, make(chan struct{}), o, &out) }()
	out.is(t, "one\n")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// A reader that is slower than the rotation misses nothing that is still there.
func TestSlowFollowerOverRotations(t *testing.T) {
	testkit.Leaks(t)
	l := newLog(t, 0, 10)
	out := sink{gate: make(chan struct{})}
	l.line("line 0", false)
	ended, done := make(chan struct{}), make(chan error, 1)
	o := all()
	o.Follow = true
	go func() { done <- Logs(t.Context(), l.path, ended, o, &out) }()
	want := "line 0\n"
	out.gate <- struct{}{} // it has read the first file and waits for its reader
	for n := 1; n < 6; n++ {
		l.rotate()
		l.line(fmt.Sprintf("line %d", n), false)
		want += fmt.Sprintf("line %d\n", n)
	}
	close(out.gate)
	out.is(t, want)
	close(ended)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Writing, rotating and reading at the same time loses and doubles no line.
func TestRotationUnderReaders(t *testing.T) {
	testkit.Leaks(t)
	l := newLog(t, 400, 100)
	const lines = 500
	ended := make(chan struct{})
	var group sync.WaitGroup
	check := func(o Options, follow bool) {
		o.Follow = follow
		var out bytes.Buffer
		if err := Logs(t.Context(), l.path, ended, o, &out); err != nil {
			t.Error(err)
			return
		}
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		for n, text := range got {
			if text != fmt.Sprintf("line %d", n) {
				t.Errorf("line %d is %q", n, text)
				return
			}
		}
		if follow && len(got) != lines {
			t.Errorf("%d lines, want %d", len(got), lines)
		}
	}
	l.line("line 0", false)
	for range 3 {
		group.Go(func() { check(all(), true) })
		group.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					check(all(), false)
				}
			}
		})
	}
	for n := 1; n < lines; n++ {
		l.n = 0
		l.line(fmt.Sprintf("line %d", n), false)
	}
	close(ended)
	group.Wait()
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05Z stdout F good\n"), int64(1), int64(3))
	f.Add([]byte("2026-01-02T03:04:05Z stdout P a\n2026-01-02T03:04:05.1Z stderr F:x b\n\nx"), int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, text []byte, tail, limit int64) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Logs(t.Context(), path, nil, Options{Tail: tail, Limit: limit}, &out); err != nil {
			t.Fatal(err)
		}
		if limit >= 0 && int64(out.Len()) > limit || out.Len() > len(text) {
			t.Errorf("%d bytes out of %d, limit %d", out.Len(), len(text), limit)
		}
	})
}
