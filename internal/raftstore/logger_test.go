package raftstore

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A member that is away for a day fills no disk with warnings, and what is new
// is told at once.
func TestWarningsRepeatSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l := raftLogger{log: slog.New(slog.NewTextHandler(&out, nil)), quiet: newQuiet()}
		warn := func(peer string) { l.Error("failed to heartbeat to", "peer", peer, "error", errors.New("no answer")) }
		for range 24 * 60 * 60 * 4 {
			warn("m2")
			time.Sleep(250 * time.Millisecond)
		}
		lines := strings.Count(out.String(), "\n")
		if lines < 100 || lines > 200 {
			t.Errorf("%d lines in a day", lines)
		}
		if !strings.Contains(out.String(), "repeated=39") {
			t.Errorf("it does not tell how often:\n%.500s", out.String())
		}
		out.Reset()
		warn("m3")
		l.Info("entering follower state")
		l.Info("entering follower state")
		time.Sleep(3 * time.Minute)
		warn("m2")
		if got := strings.Count(out.String(), "\n"); got != 4 {
			t.Errorf("what is new: %d lines\n%s", got, out.String())
		}
	})
}
