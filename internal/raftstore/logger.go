package raftstore

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lets the Raft library log to slog. What it calls an error is
// mostly a peer that does not answer, hence a warning here.
type raftLogger struct {
	log  *slog.Logger
	args []any
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
	l.log.Log(context.TODO(), level(at), "raft: "+msg, args...)
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
	return raftLogger{l.log.With(args...), append(l.args[:len(l.args):len(l.args)], args...)}
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
