package raftstore

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lets the Raft library log to slog. What it calls an error is
// mostly a peer that does not answer, hence a warning here.
type raftLogger struct {
	log   *slog.Logger
	args  []any
	quiet *quiet
}

// quiet holds back warnings that repeat: about a member that is away Raft
// warns several times a second, for as long as it is away. A nil one lets all
// pass.
type quiet struct {
	mu   sync.Mutex
	said map[string]*repeated
}

func newQuiet() *quiet { return &quiet{said: map[string]*repeated{}} }

type repeated struct {
	seen, next time.Time
	pause      time.Duration
	held       int // since it was last let through
}

const (
	firstQuiet = 10 * time.Second
	lastQuiet  = 10 * time.Minute
	forgotten  = 2 * time.Minute // without it, a warning is new again
	maxSaid    = 256
)

// pass reports whether a warning is to be logged now, and how often it was held
// back since it last was.
func (q *quiet) pass(what string, now time.Time) (held int, ok bool) {
	if q == nil {
		return 0, true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.said[what]
	if r == nil || now.Sub(r.seen) > forgotten {
		if len(q.said) >= maxSaid {
			clear(q.said)
		}
		r = &repeated{pause: firstQuiet}
		q.said[what] = r
	}
	r.seen = now
	if now.Before(r.next) {
		r.held++
		return 0, false
	}
	held, r.held = r.held, 0
	r.next, r.pause = now.Add(r.pause), min(2*r.pause, lastQuiet)
	return held, true
}

// about tells a warning from others: its text, and the member it is about.
func about(msg string, args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "target", "server-id", "from", "candidate":
			return fmt.Sprint(msg, " ", args[i+1])
		}
	}
	return msg
}

var _ hclog.Logger = raftLogger{}

func level(l hclog.Level) slog.Level {
	switch {
	case l >= hclog.Warn:
		return slog.LevelWarn
	case l == hclog.Info:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// Log implements hclog.Logger.
func (l raftLogger) Log(at hclog.Level, msg string, args ...any) {
	if at == hclog.Trace || !l.log.Enabled(context.TODO(), level(at)) {
		return
	}
	if level(at) == slog.LevelWarn {
		held, ok := l.quiet.pass(about(msg, args), time.Now())
		if !ok {
			return
		}
		if held > 0 {
			args = append(args[:len(args):len(args)], "repeated", held)
		}
	}
	l.log.Log(context.TODO(), level(at), "raft: "+msg, formatted(args)...)
}

// formatted gives the arguments with those as text that come with a format:
// slog does not know hclog's kind of them.
func formatted(args []any) []any {
	var out []any
	for i, a := range args {
		f, ok := a.(hclog.Format)
		if !ok || len(f) == 0 {
			continue
		}
		if out == nil {
			out = slices.Clone(args)
		}
		out[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
	}
	if out == nil {
		return args
	}
	return out
}

// Trace implements hclog.Logger.
func (l raftLogger) Trace(string, ...any) {}

// Debug implements hclog.Logger.
func (l raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }

// Info implements hclog.Logger.
func (l raftLogger) Info(msg string, args ...any) { l.Log(hclog.Info, msg, args...) }

// Warn implements hclog.Logger.
func (l raftLogger) Warn(msg string, args ...any) { l.Log(hclog.Warn, msg, args...) }

// Error implements hclog.Logger.
func (l raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

// IsTrace implements hclog.Logger.
func (l raftLogger) IsTrace() bool { return false }

// IsDebug implements hclog.Logger.
func (l raftLogger) IsDebug() bool { return l.log.Enabled(context.TODO(), slog.LevelDebug) }

// IsInfo implements hclog.Logger.
func (l raftLogger) IsInfo() bool { return l.log.Enabled(context.TODO(), slog.LevelInfo) }

// IsWarn implements hclog.Logger.
func (l raftLogger) IsWarn() bool { return true }

// IsError implements hclog.Logger.
func (l raftLogger) IsError() bool { return true }

// ImpliedArgs implements hclog.Logger.
func (l raftLogger) ImpliedArgs() []any { return l.args }

// With implements hclog.Logger.
func (l raftLogger) With(args ...any) hclog.Logger {
	args = formatted(args)
	return raftLogger{l.log.With(args...), append(l.args[:len(l.args):len(l.args)], args...), l.quiet}
}

// Name implements hclog.Logger.
func (l raftLogger) Name() string { return "raft" }

// Named implements hclog.Logger.
func (l raftLogger) Named(string) hclog.Logger { return l }

// ResetNamed implements hclog.Logger.
func (l raftLogger) ResetNamed(string) hclog.Logger { return l }

// SetLevel implements hclog.Logger; the level is the handler's.
func (l raftLogger) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (l raftLogger) GetLevel() hclog.Level { return hclog.NoLevel }

// StandardLogger implements hclog.Logger.
func (l raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelInfo)
}

// StandardWriter implements hclog.Logger.
func (l raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(nil).Writer()
}
