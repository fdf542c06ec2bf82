package runc

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/runtime/runtimetest"
	"github.com/wherry-project/wherry/internal/testkit"
)

// helperEnv makes the test program play noded: it opens a runtime, starts what
// the environment says and waits to be killed.
const helperEnv = "WHERRY_RUNC_TEST_NODED"

func TestMain(m *testing.M) {
	if job := os.Getenv(helperEnv); job != "" {
		if err := playNoded(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if dir := built.dir; dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// programs are what the tests run, built once.
type programs struct {
	once                 sync.Once
	err                  error
	dir                  string
	podshim, podrun, img string
}

var built programs

func build(t testing.TB) *programs {
	t.Helper()
	testkit.NeedsRoot(t)
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "wherry-runc-"); built.err != nil {
			return
		}
		built.podshim = filepath.Join(built.dir, "podshim")
		built.podrun = filepath.Join(built.dir, "podrun")
		built.img = filepath.Join(built.dir, "img")
		const module = "github.com/wherry-project/wherry/"
		for _, b := range []struct {
			cgo, out, pkg string
			flags         []string
		}{
			{"0", built.podshim, module + "cmd/podshim", []string{"-ldflags", "-s -w"}},
			{"1", built.podrun, module + "cmd/podrun", []string{"-tags", "seccomp netgo osusergo", "-ldflags", `-s -w -extldflags "-static"`}},
			{"0", filepath.Join(built.img, runtimetest.Path), module + "internal/runtime/runtimetest/testdata/prog", nil},
		} {
			args := append(append([]string{"build", "-trimpath", "-o", b.out}, b.flags...), b.pkg)
			cmd := exec.Command("go", args...)
			cmd.Env = append(os.Environ(), "CGO_ENABLED="+b.cgo)
			if out, err := cmd.CombinedOutput(); err != nil {
				built.err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
				return
			}
		}
		etc := filepath.Join(built.img, "etc")
		built.err = os.MkdirAll(etc, 0o755)
		for name, text := range map[string]string{
			"passwd": "root:x:0:0::/root:/bin/sh\nanna:x:1001:1002::/home/anna:/bin/sh\n",
			"group":  "root:x:0:\nstaff:x:1002:\naudio:x:63:anna\n",
		} {
			if built.err == nil {
				built.err = os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644)
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return &built
}

var hosts atomic.Int32

// newConfig returns a configuration for a runtime of the test's own, whose
// directories and cgroups must be gone by its end.
func newConfig(t testing.TB) Config {
	t.Helper()
	p := build(t)
	dir, err := os.MkdirTemp("", "wr") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		CgroupRoot: fmt.Sprintf("/wherry-runc-test-%d-%d", os.Getpid(), hosts.Add(1)),
		Podshim:    p.podshim, Podrun: p.podrun,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	t.Cleanup(func() {
		r := mustOpen(t, cfg)
		all, _ := r.List(context.Background())
		for _, s := range all {
			if err := r.RemoveSandbox(context.Background(), s.ID); err != nil {
				t.Error(err)
			}
		}
		r.Close()
		nothingLeft(t, cfg)
		if err := r.groups.Kill(cfg.CgroupRoot, patience); err != nil {
			t.Error(err)
		}
		if err := r.groups.Remove(cfg.CgroupRoot); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			os.RemoveAll(dir)
		} else {
			t.Log("left for a look:", dir)
		}
	})
	return cfg
}

// nothingLeft checks that no process, mount, cgroup or file of any sandbox is.
func nothingLeft(t testing.TB, cfg Config) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, filepath.Dir(cfg.StateDir)+"/") {
			t.Errorf("mount left: %s", line)
		}
	}
	for _, dir := range []string{cfg.StateDir, cfg.RunDir} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "seccomp-") {
				t.Errorf("left in %s: %s", dir, e.Name())
			}
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + cfg.CgroupRoot + "/*")
	if err != nil {
		t.Fatal(err)
	}
	unified, _ := filepath.Glob("/sys/fs/cgroup" + cfg.CgroupRoot + "/*")
	for _, g := range append(groups, unified...) {
		if info, err := os.Stat(g); err == nil && info.IsDir() && filepath.Base(g) != "shims" {
			t.Errorf("cgroup left: %s", g)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), filepath.Dir(cfg.StateDir)+"/") && !strings.Contains(string(b), ".test") {
			t.Errorf("process left: %s %q", p, b)
		}
	}
}

func mustOpen(t testing.TB, cfg Config) *Runtime {
	t.Helper()
	r, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConformance(t *testing.T) {
	runtimetest.Run(t, func(t *testing.T) runtimetest.Host {
		cfg := newConfig(t)
		return runtimetest.Host{
			Open:   func(t *testing.T) runtime.Runtime { return mustOpen(t, cfg) },
			Layers: []string{build(t).img},
		}
	})
}

// job is what a played noded does.
type job struct {
	Config    Config
	Sandbox   runtime.SandboxConfig
	Container runtime.ContainerConfig
}

func playNoded(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	r, err := Open(context.Background(), j.Config)
	if err != nil {
		return err
	}
	if _, err := r.StartSandbox(context.Background(), j.Sandbox); err != nil {
		return err
	}
	c, err := r.StartContainer(context.Background(), j.Sandbox.ID, j.Container)
	if err != nil {
		return err
	}
	fmt.Println(c.PID)
	select {} // until killed
}
