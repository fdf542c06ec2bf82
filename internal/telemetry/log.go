// Package telemetry makes the two things that parts of a program are handed to
// be seen by: a logger and a metrics registry. Neither is ever global.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// NewLogger returns a logger to f from level on: in the form of the journal if
// f leads there, as systemd arranges for services, else as text lines with
// time and level.
func NewLogger(f *os.File, level slog.Leveler) *slog.Logger {
	if isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(NewJournal(f, level))
	}
	return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: level}))
}

// ParseLevel reads debug, info, warn or error.
func ParseLevel(text string) (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(text))
	return l, err
}

// isJournal reports whether f is the stream that JOURNAL_STREAM names by its
// device and inode.
func isJournal(f *os.File, stream string) bool {
	dev, ino, ok := strings.Cut(stream, ":")
	if !ok {
		return false
	}
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && dev == strconv.FormatUint(st.Dev, 10) && ino == strconv.FormatUint(st.Ino, 10)
}

// Journal writes lines as journald takes them from a service's standard error:
// the priority in front (<6>), without the time and level that the journal
// keeps itself.
type Journal struct {
	level slog.Leveler
	// One text handler per priority, since the handler writes the line whole.
	debug, info, warn, err slog.Handler
}

// NewJournal returns a Journal handler to w for records from level on.
func NewJournal(w io.Writer, level slog.Leveler) *Journal {
	text := func(priority string) slog.Handler {
		return slog.NewTextHandler(prefixed{w, priority}, &slog.HandlerOptions{Level: level, ReplaceAttr: dropKnown})
	}
	return &Journal{level: level, debug: text("<7>"), info: text("<6>"), warn: text("<4>"), err: text("<3>")}
}

// dropKnown takes away what the journal has by itself.
func dropKnown(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// prefixed puts a priority in front of each line, in one write.
type prefixed struct {
	w        io.Writer
	priority string
}

// Write writes one line.
func (p prefixed) Write(line []byte) (int, error) {
	_, err := p.w.Write(append([]byte(p.priority), line...))
	return len(line), err
}

// Enabled reports whether records of level l are written.
func (j *Journal) Enabled(_ context.Context, l slog.Level) bool { return l >= j.level.Level() }

// Handle writes one record.
func (j *Journal) Handle(ctx context.Context, r slog.Record) error {
	h := j.debug
	switch {
	case r.Level >= slog.LevelError:
		h = j.err
	case r.Level >= slog.LevelWarn:
		h = j.warn
	case r.Level >= slog.LevelInfo:
		h = j.info
	}
	return h.Handle(ctx, r)
}

// WithAttrs returns a handler that adds attrs to every record.
func (j *Journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup returns a handler that puts later attributes under name.
func (j *Journal) WithGroup(name string) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (j *Journal) each(f func(slog.Handler) slog.Handler) *Journal {
	return &Journal{level: j.level, debug: f(j.debug), info: f(j.info), warn: f(j.warn), err: f(j.err)}
}
