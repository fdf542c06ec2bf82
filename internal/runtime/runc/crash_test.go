package runc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/runtime/runtimetest"
	"github.com/wherry-project/wherry/internal/shim"
	"github.com/wherry-project/wherry/internal/testkit"
)

// patience is for a busy machine.
const patience = time.Minute

// noded starts this program as a noded, which starts a sandbox with a container,
// and returns the container's pid.
func noded(t *testing.T, cfg Config, sb runtime.SandboxConfig, ct runtime.ContainerConfig) (*exec.Cmd, int) {
	t.Helper()
	b, err := json.Marshal(job{cfg, sb, ct})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+string(b), "NOTIFY_SOCKET=/nowhere")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return cmd, pid
}

func kill9(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
}

func ctr(t testing.TB, id string, args ...string) runtime.ContainerConfig {
	return runtime.ContainerConfig{
		ID: id, Name: id, Layers: []string{build(t).img}, LogPath: id + ".log", Args: append([]string{runtimetest.Path}, args...),
	}
}

// logText is what a container wrote to stdout, by its log files.
func logText(t *testing.T, path string) string {
	t.Helper()
	files, err := shim.RotatedLogs(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range append(files, path) {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			l, err := shim.ParseLine(line)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(l.Text)
			if !l.Partial {
				out.WriteByte('\n')
			}
		}
	}
	return out.String()
}

// awaitLog waits until a container has written a line.
func awaitLog(t *testing.T, path, line string) {
	t.Helper()
	testkit.Eventually(t, patience, func() error {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), " "+line+"\n") {
			return fmt.Errorf("the log is %q, %w, without %q", b, err, line)
		}
		return nil
	})
}

func findContainer(t *testing.T, r *Runtime, sandbox, id string) runtime.Container {
	t.Helper()
	all, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if c, ok := s.Container(id); ok && s.ID == sandbox {
			return c
		}
	}
	t.Fatalf("no container %s/%s: %+v", sandbox, id, all)
	return runtime.Container{}
}

func TestKilledNodedLeavesContainerAlone(t *testing.T) {
	cfg := newConfig(t)
	logs := t.TempDir()
	first, pid := noded(t, cfg, runtime.SandboxConfig{ID: "p", Hostname: "p", LogDir: logs}, ctr(t, "c", "wait", "4"))
	kill9(t, first)

	r := mustOpen(t, cfg)
	c := findContainer(t, r, "p", "c")
	if c.PID != pid || c.State != runtime.Running {
		t.Fatalf("started as %d, found %+v", pid, c)
	}
	awaitLog(t, filepath.Join(logs, "c.log"), "waiting") // and so for signals
	var err error
	if c, err = r.StopContainer(t.Context(), "p", "c", 0, patience); err != nil || c.ExitCode != 4 {
		t.Errorf("%+v, %v", c, err)
	}
	r.Close()
}

func TestExitWhileNodedIsDeadIsFound(t *testing.T) {
	cfg := newConfig(t)
	logs := t.TempDir()
	// Much output, written over a time in which noded dies.
	first, pid := noded(t, cfg, runtime.SandboxConfig{ID: "p", LogDir: logs}, ctr(t, "c", "count", "200000", "20"))
	kill9(t, first)
	testkit.Eventually(t, patience, func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			return errors.New("still running")
		}
		_, err := shim.ReadExit(shim.ContainerDir(filepath.Join(cfg.StateDir, "p"), "c"))
		return err
	})
	r := mustOpen(t, cfg)
	defer r.Close()
	if c := findContainer(t, r, "p", "c"); c.State != runtime.Exited || c.ExitCode != 0 || c.FinishedAt.IsZero() {
		t.Errorf("%+v", c)
	}
	var want strings.Builder
	for i := range 200000 {
		fmt.Fprintf(&want, "%020d\n", i)
	}
	if got := logText(t, filepath.Join(logs, "c.log")); got != want.String() {
		t.Errorf("%d bytes of %d in the log", len(got), want.Len())
	}
}

func TestCloseJoinsAll(t *testing.T) {
	testkit.Leaks(t)
	cfg := newConfig(t)
	r := mustOpen(t, cfg)
	if _, err := r.StartSandbox(t.Context(), runtime.SandboxConfig{ID: "p"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartContainer(t.Context(), "p", ctr(t, "c", "stubborn")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Exec(t.Context(), "p", "c", runtime.ExecConfig{Args: []string{runtimetest.Path, "exit", "0"}}, runtime.Streams{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if c := findContainer(t, mustReopen(t, cfg), "p", "c"); c.State != runtime.Running {
		t.Errorf("%+v", c)
	}
}

func mustReopen(t *testing.T, cfg Config) *Runtime {
	r := mustOpen(t, cfg)
	t.Cleanup(func() { r.Close() })
	return r
}

func TestExitAfterNodedCameBackIsTold(t *testing.T) {
	cfg := newConfig(t)
	first, _ := noded(t, cfg, runtime.SandboxConfig{ID: "p"}, ctr(t, "c", "wait", "6"))
	kill9(t, first)
	r := mustOpen(t, cfg)
	defer r.Close()
	c := findContainer(t, r, "p", "c")
	if err := syscall.Kill(c.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-r.Events():
		if e.Kind != runtime.ContainerExited || e.Container.ID != "c" || e.Container.ExitCode != 137 || e.Container.Signal != syscall.SIGKILL {
			t.Errorf("%+v", e)
		}
	case <-time.After(patience):
		t.Error("no event")
	}
}

func TestKilledShimIsALoss(t *testing.T) {
	cfg := newConfig(t)
	r := mustOpen(t, cfg)
	defer r.Close()
	s, err := r.StartSandbox(t.Context(), runtime.SandboxConfig{ID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartContainer(t.Context(), "p", ctr(t, "ended", "exit", "3")); err != nil {
		t.Fatal(err)
	}
	<-r.Events()
	if _, err := r.StartContainer(t.Context(), "p", ctr(t, "c", "stubborn")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-r.Events():
		if e.Kind != runtime.SandboxLost || e.SandboxID != "p" {
			t.Errorf("%+v", e)
		}
	case <-time.After(patience):
		t.Fatal("no event")
	}
	for range 2 { // now, and after noded came back
		if c := findContainer(t, r, "p", "c"); c.State != runtime.Lost || c.ExitCode != runtime.ExitLost {
			t.Errorf("%+v", c)
		}
		if c := findContainer(t, r, "p", "ended"); c.State != runtime.Exited || c.ExitCode != 3 {
			t.Errorf("%+v", c)
		}
		r.Close()
		r = mustOpen(t, cfg)
	}
	if _, err := r.StartContainer(t.Context(), "p", ctr(t, "d", "exit", "0")); !errors.Is(err, runtime.ErrLost) {
		t.Errorf("start in a lost sandbox: %v", err)
	}
	if err := r.RemoveContainer(t.Context(), "p", "c"); err != nil {
		t.Error(err)
	}
	// A new start makes it anew.
	if again, err := r.StartSandbox(t.Context(), runtime.SandboxConfig{ID: "p"}); err != nil || again.State != runtime.SandboxReady || len(again.Containers) != 0 {
		t.Errorf("%+v, %v", again, err)
	}
}

// A start is killed after each of its steps; what is left must be removable.
func TestHalfAStartIsRemoved(t *testing.T) {
	for _, test := range []struct {
		name string
		half func(t *testing.T, s *sandbox)
	}{
		{"directory only", func(t *testing.T, s *sandbox) {
			must(t, os.MkdirAll(s.dir, 0o700))
		}},
		{"torn pod file", func(t *testing.T, s *sandbox) {
			must(t, os.MkdirAll(s.dir, 0o700))
			must(t, os.WriteFile(shim.PodFile(s.dir), []byte(`{"format":1,"i`), 0o600))
		}},
		{"cgroup made", func(t *testing.T, s *sandbox) {
			writePod(t, s)
			must(t, s.r.groups.Create(s.pod.Cgroup))
		}},
		{"shim started, nobody connected", func(t *testing.T, s *sandbox) {
			writePod(t, s)
			must(t, s.r.groups.Create(s.pod.Cgroup))
			must(t, s.startShim())
		}},
		{"shim killed with its mounts", func(t *testing.T, s *sandbox) {
			writePod(t, s)
			must(t, s.r.groups.Create(s.pod.Cgroup))
			must(t, s.startShim())
			must(t, s.connect(context.Background()))
			s.disconnect()
			must(t, syscall.Kill(s.shim, syscall.SIGKILL))
		}},
		{"container's cgroup with a process of its own", func(t *testing.T, s *sandbox) {
			writePod(t, s)
			must(t, s.r.groups.Create(s.pod.Cgroup+"/half"))
			cmd := exec.Command("sleep", "1000")
			must(t, cmd.Start())
			go cmd.Wait()
			for _, h := range s.r.groups.Hierarchies {
				if h.V2 || contains(h.Controllers, "pids") {
					must(t, os.WriteFile(filepath.Join(h.Mount, s.pod.Cgroup, "half", "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0))
				}
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := newConfig(t)
			r := mustOpen(t, cfg)
			test.half(t, r.newSandbox("half"))
			r.Close()
			r = mustOpen(t, cfg)
			defer r.Close()
			all, err := r.List(t.Context())
			if err != nil || len(all) != 1 || all[0].ID != "half" {
				t.Fatalf("%+v, %v", all, err)
			}
			for range 2 {
				if err := r.RemoveSandbox(t.Context(), "half"); err != nil {
					t.Fatal(err)
				}
			}
			nothingLeft(t, cfg)
		})
	}
}

func contains(all []string, s string) bool {
	return strings.Contains(","+strings.Join(all, ",")+",", ","+s+",")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writePod(t *testing.T, s *sandbox) {
	t.Helper()
	s.cfg = runtime.SandboxConfig{ID: s.id}
	s.pod = shim.Pod{
		Format: shim.Format, ID: s.id, Dir: s.dir, RunDir: s.runDir, Podrun: s.r.cfg.Podrun, ShmSize: 1 << 20,
		Cgroup: s.r.cgroupOf(s.cfg), Cgroups: s.r.groups, Config: json.RawMessage(`{"id":"` + s.id + `"}`),
	}
	must(t, os.MkdirAll(s.dir, 0o700))
	must(t, shim.WriteFile(shim.PodFile(s.dir), s.pod, false))
	must(t, os.MkdirAll(shim.StateRoot(s.runDir), 0o700))
}

func TestFailedStartLeavesNothing(t *testing.T) {
	cfg := newConfig(t)
	r := mustOpen(t, cfg)
	defer r.Close()
	for name, sb := range map[string]runtime.SandboxConfig{
		"sysctl":  {ID: "a", Sysctls: map[string]string{"kernel.shm_nosuch": "1"}},
		"net":     {ID: "b", NetNS: "/no/such/netns", Sysctls: map[string]string{"net.core.somaxconn": "1"}},
		"shmsize": {ID: "c", ShmSize: -5},
	} {
		if _, err := r.StartSandbox(t.Context(), sb); err == nil {
			t.Errorf("%s: started", name)
		} else {
			t.Log(err)
		}
		nothingLeft(t, cfg)
	}
	if all, _ := r.List(t.Context()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestRemoveWithUnresponsiveShim(t *testing.T) {
	cfg := newConfig(t)
	r := mustOpen(t, cfg)
	defer r.Close()
	s, err := r.StartSandbox(t.Context(), runtime.SandboxConfig{ID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartContainer(t.Context(), "p", ctr(t, "c", "stubborn")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.RemoveSandbox(ctx, "p"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	r.stopWithin = 100 * time.Millisecond
	if err := r.RemoveSandbox(t.Context(), "p"); err != nil {
		t.Error(err)
	}
	nothingLeft(t, cfg)
}
