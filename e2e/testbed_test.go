package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/e2e/traces"
)

// TestTestbedCommand brings a testbed up and down by the command, twice, once
// more with its maker killed half-way, and looks for what is left behind.
func TestTestbedCommand(t *testing.T) {
	dir := t.TempDir()
	b := bedCommand{t: t, dir: dir}
	for range 2 {
		before := b.before()
		b.run("up", "--controls", "1", "--nodes", "1")
		if out := b.run("exec", "client", "--", "wherry", "get", "nodes"); !strings.Contains(out, "n1     Ready") {
			t.Errorf("get nodes: %s", out)
		}
		if out := b.run("status"); !strings.Contains(out, "c1") || !strings.Contains(out, "controld ready") {
			t.Errorf("status: %s", out)
		}
		if out, err := b.try("exec", "n1", "--", "sh", "-c", "exit 9"); err == nil || err.(*exec.ExitError).ExitCode() != 9 { //nolint:errorlint // it is one
			t.Errorf("exec gives %v: %s", err, out)
		}
		b.gone(before)
	}
	b.grows()
	if out, err := b.try("exec", "n1", "--", "true"); err == nil || !strings.Contains(out, `there is no testbed "tb"`) {
		t.Errorf("after down: %v %s", err, out)
	}
	b.run("down") // of what is not there

	// What was killed while it made a testbed, or a host's init, is cleaned up
	// by down; up says so.
	before := b.before()
	cmd := b.command("up", "--controls", "1", "--nodes", "1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := os.Stat(filepath.Join(dir, "tb", "hosts", "c1", "log", "controld.log"))
		return err
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if out, err := b.try("up"); err == nil || !strings.Contains(out, "testbed down --name tb") {
		t.Errorf("up where one is half made: %v %s", err, out)
	}
	b.gone(before)
}

// grows starts with one control and no node, and adds what a user may add.
func (b bedCommand) grows() {
	b.t.Helper()
	before := b.before()
	b.run("up", "--controls", "1", "--nodes", "0")
	for _, role := range []string{"node", "control", "control", "node"} {
		b.run("add", role)
	}
	eventually(b.t, func() error {
		members, err := b.try("exec", "client", "--", "wherry", "cluster", "members")
		if err != nil || strings.Count(members, " Ready ") != 3 || strings.Count(members, "follower") != 2 {
			return fmt.Errorf("grown by two controls, the members are %w\n%s", err, members)
		}
		out, err := b.try("exec", "client", "--", "wherry", "get", "nodes")
		if err != nil || strings.Count(out, " Ready ") != 2 {
			return fmt.Errorf("grown by two nodes, the nodes are %w\n%s", err, out)
		}
		return nil
	})
	b.run("kill", "c1")            // the founder
	eventually(b.t, func() error { // a founder that is gone leads no more, in a moment
		out, err := b.try("exec", "client", "--", "wherry", "create", "namespace", "grown")
		if err != nil && strings.Contains(out, "already exists") {
			err = nil
		}
		return err
	})
	if out := b.run("status"); !strings.Contains(out, "c1") || !strings.Contains(out, "SIGKILL") {
		b.t.Errorf("status after kill: %s", out)
	}
	if out, err := b.try("start", "c9"); err == nil || !strings.Contains(out, "c9") {
		b.t.Errorf("start of a host that is not there: %v %s", err, out)
	}
	b.run("start", "c1")
	b.run("power-off", "n1")
	if out, err := b.try("exec", "n1", "--", "true"); err == nil || !strings.Contains(out, "testbed power-on") {
		b.t.Errorf("exec on a host that is off: %v %s", err, out)
	}
	b.run("power-on", "n1")
	if out := b.run("logs", "c2"); !strings.Contains(out, "controld serves") {
		b.t.Errorf("logs of c2: %s", out)
	}
	b.gone(before)
}

func (b bedCommand) before() *traces.Traces {
	b.t.Helper()
	tr, err := traces.Before(b.dir, "tb")
	if err != nil {
		b.t.Fatal(err)
	}
	return tr
}

// gone takes the testbed down and looks for what is left.
func (b bedCommand) gone(tr *traces.Traces) {
	b.t.Helper()
	if err := tr.Look(); err != nil {
		b.t.Fatal(err)
	}
	if left, err := tr.Left(); err != nil || len(left) < 20 {
		b.t.Fatalf("the look for traces of a testbed that is up finds only %v, %v", left, err)
	}
	b.run("down")
	if err := tr.AwaitGone(context.Background()); err != nil {
		b.t.Errorf("of %s: %v", tr, err)
	}
}

// bedCommand runs `wherry testbed` for one testbed.
type bedCommand struct {
	t   *testing.T
	dir string
}

func (b bedCommand) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	b.t.Cleanup(cancel)
	return exec.CommandContext(ctx, filepath.Join(os.Getenv("WHERRY_BIN"), "wherry"), append([]string{"testbed", "--name", "tb", "--testbed-dir", b.dir}, args...)...)
}

func (b bedCommand) try(args ...string) (string, error) {
	out, err := b.command(args...).CombinedOutput()
	return string(out), err
}

func (b bedCommand) run(args ...string) string {
	b.t.Helper()
	out, err := b.try(args...)
	if err != nil {
		b.t.Fatalf("testbed %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}
