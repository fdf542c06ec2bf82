package raftstore

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
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

// What the library hands over with a format is text in the log.
func TestFormattedArguments(t *testing.T) {
	var out strings.Builder
	l := raftLogger{log: slog.New(slog.NewTextHandler(&out, nil))}
	servers := hclog.Fmt("%+v", []raft.Server{{ID: "m1", Address: "127.0.0.1:1"}})
	args := []any{"index", 1, "servers", servers}
	l.Info("initial configuration", args...)
	l.With("servers", servers).Info("with")
	l.Info("none", "servers", hclog.Fmt("%+v", []raft.Server{}), "empty", hclog.Format{})
	want := []string{
		`index=1 servers="[{Suffrage:Voter ID:m1 Address:127.0.0.1:1}]"`,
		`msg="raft: with" servers="[{Suffrage:Voter ID:m1 Address:127.0.0.1:1}]"`,
		`msg="raft: none" servers=[] empty=[]`,
	}
	for _, text := range want {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is not in\n%s", text, out.String())
		}
	}
	if _, ok := args[3].(hclog.Format); !ok {
		t.Error("the library's own arguments were changed")
	}
}
