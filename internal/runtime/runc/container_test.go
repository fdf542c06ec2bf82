package runc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/runtime/runtimetest"
	"github.com/wherry-project/wherry/internal/testkit"
)

// pod is a runtime with one sandbox, for tests of what containers are like.
type pod struct {
	*testing.T
	r    *Runtime
	logs string
	n    int
}

func newPod(t *testing.T, sb runtime.SandboxConfig) *pod {
	t.Helper()
	r := mustOpen(t, newConfig(t))
	t.Cleanup(func() { r.Close() })
	p := &pod{T: t, r: r, logs: t.TempDir()}
	sb.ID, sb.LogDir = "p", p.logs
	if _, err := r.StartSandbox(t.Context(), sb); err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs a program to its end and returns what it wrote.
func (p *pod) run(change func(*runtime.ContainerConfig), args ...string) (string, runtime.Container) {
	p.Helper()
	p.n++
	cfg := ctr(p, fmt.Sprint("c", p.n), args...)
	if change != nil {
		change(&cfg)
	}
	if _, err := p.r.StartContainer(p.Context(), "p", cfg); err != nil {
		p.Fatal(err)
	}
	for {
		select {
		case e := <-p.r.Events():
			if e.Container.ID == cfg.ID {
				return strings.TrimSuffix(logText(p.T, filepath.Join(p.logs, cfg.LogPath)), "\n"), e.Container
			}
		case <-time.After(patience):
			p.Fatalf("%v does not end", args)
		}
	}
}

// start starts a program that stays.
func (p *pod) start(change func(*runtime.ContainerConfig), args ...string) runtime.Container {
	p.Helper()
	p.n++
	cfg := ctr(p, fmt.Sprint("c", p.n), args...)
	if change != nil {
		change(&cfg)
	}
	c, err := p.r.StartContainer(p.Context(), "p", cfg)
	if err != nil {
		p.Fatal(err)
	}
	return c
}

func (p *pod) exec(id string, x runtime.ExecConfig) string {
	p.Helper()
	var out bytes.Buffer
	x.Args[0] = runtimetest.Path
	if _, err := p.r.Exec(p.Context(), "p", id, x, runtime.Streams{Stdout: &out, Stderr: &out}); err != nil {
		p.Fatal(err)
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func args(a ...string) []string { return append([]string{""}, a...) }

func TestUser(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{})
	for _, test := range []struct {
		user runtime.User
		want string
	}{
		{runtime.User{}, "0 0 [0]"},
		{runtime.User{Name: "anna"}, "1001 1002 [63 1002]"},
		{runtime.User{Name: "1001"}, "1001 1002 [63 1002]"},
		{runtime.User{Name: "anna:audio"}, "1001 63 [63]"},
		{runtime.User{Name: "77:88", Groups: []int{99}}, "77 88 [88 99]"},
		{runtime.User{Name: "anna", Groups: []int{5}, OnlyGroups: true}, "1001 1002 [5 1002]"},
	} {
		got, c := p.run(func(c *runtime.ContainerConfig) { c.User = test.user }, "id")
		// Whether the own group is among the further ones is the kernel's matter.
		norm := func(s string) string { return strings.NewReplacer("[", " ", "]", " ").Replace(s) }
		for _, f := range strings.Fields(norm(test.want))[:2] {
			if !strings.Contains(norm(got), f) {
				t.Errorf("%+v: %q, want %q (%+v)", test.user, got, test.want, c)
			}
		}
		if !strings.HasPrefix(got, test.want[:strings.Index(test.want, "[")]) {
			t.Errorf("%+v: %q, want %q", test.user, got, test.want)
		}
		t.Logf("%+v: %s", test.user, got)
	}
	cfg := ctr(t, "x", "id")
	cfg.User.Name = "nobody-knows"
	if _, err := p.r.StartContainer(t.Context(), "p", cfg); !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), "nobody-knows") {
		t.Errorf("unknown user: %v", err)
	}
	c := p.start(func(c *runtime.ContainerConfig) { c.User.Name = "anna" }, "stubborn")
	if got := p.exec(c.ID, runtime.ExecConfig{Args: args("id")}); !strings.HasPrefix(got, "1001 1002") {
		t.Errorf("exec runs as %s", got)
	}
	if got := p.exec(c.ID, runtime.ExecConfig{Args: args("id"), User: &runtime.User{Name: "root"}}); !strings.HasPrefix(got, "0 0") {
		t.Errorf("exec as root runs as %s", got)
	}
}

func TestSeccompAndCapabilities(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{})
	mount := func(change func(*runtime.ContainerConfig)) string {
		t.Helper()
		out, _ := p.run(change, "mount")
		return out
	}
	const eperm = "operation not permitted"
	adminNoFilter := func(c *runtime.ContainerConfig) {
		c.CapAdd, c.Seccomp = []string{"SYS_ADMIN"}, runtime.SeccompUnconfined
	}
	for range 2 { // with the filter built, and from the cache
		if got, _ := p.run(nil, "status", "Seccomp"); got != "2" {
			t.Errorf("default filter: mode %q", got)
		}
		if got := mount(nil); got != eperm {
			t.Errorf("mount under the filter: %q", got)
		}
		if got, _ := p.run(nil, "syscall"); got != "function not implemented" {
			t.Errorf("unknown system call: %q", got)
		}
		if got, _ := p.run(func(c *runtime.ContainerConfig) { c.NoNewPrivileges = true }, "syscall"); got != "function not implemented" {
			t.Errorf("with no_new_privs: %q", got)
		}
	}
	if got, _ := p.run(adminNoFilter, "status", "Seccomp"); got != "0" {
		t.Errorf("unconfined: mode %q", got)
	}
	if got := mount(adminNoFilter); got == eperm {
		t.Errorf("mount with SYS_ADMIN: %q", got)
	}
	if got, _ := p.run(nil, "status", "CapEff"); got != "00000000a80425fb" {
		t.Errorf("default capabilities %s", got)
	}
	if got, _ := p.run(func(c *runtime.ContainerConfig) { c.CapDrop, c.CapAdd = []string{"ALL"}, []string{"net_bind_service"} }, "status", "CapBnd"); got != "0000000000000400" {
		t.Errorf("drop all, add one: %s", got)
	}
	if got, _ := p.run(func(c *runtime.ContainerConfig) { c.NoNewPrivileges = true }, "status", "NoNewPrivs"); got != "1" {
		t.Errorf("no_new_privs: %s", got)
	}
	if got, _ := p.run(func(c *runtime.ContainerConfig) { c.Privileged = true }, "status", "Seccomp"); got != "0" {
		t.Errorf("privileged: mode %s", got)
	}
	if out, _ := p.run(func(c *runtime.ContainerConfig) { c.Privileged = true }, "mount"); out == eperm {
		t.Errorf("privileged mount: %q", out)
	}
	c := p.start(nil, "stubborn")
	for field, want := range map[string]string{"Seccomp": "2", "CapEff": "00000000a80425fb"} {
		if got := p.exec(c.ID, runtime.ExecConfig{Args: args("status", field)}); got != want {
			t.Errorf("exec has %s %s", field, got)
		}
	}
	cfg := ctr(t, "x", "id")
	cfg.CapAdd = []string{"FLY"}
	if _, err := p.r.StartContainer(t.Context(), "p", cfg); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("unknown capability: %v", err)
	}
}

func TestFileSystem(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{Hostname: "box"})
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("from the host"), 0o644))
	bind := func(ro bool) func(*runtime.ContainerConfig) {
		return func(c *runtime.ContainerConfig) {
			c.Mounts = []runtime.Mount{{Source: dir, Target: "/data", ReadOnly: ro}}
		}
	}
	if got, _ := p.run(bind(true), "read", "/data/f"); got != "from the host" {
		t.Errorf("bind mount: %q", got)
	}
	if got, c := p.run(bind(true), "write", "/data/g", "x"); c.ExitCode == 0 || !strings.Contains(got, "read-only") {
		t.Errorf("read-only bind mount: %q", got)
	}
	if got, c := p.run(bind(false), "write", "/data/g", "x"); c.ExitCode != 0 {
		t.Errorf("bind mount: %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "g")); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	if got, c := p.run(func(c *runtime.ContainerConfig) { c.ReadOnlyRoot = true }, "write", "/new", "x"); c.ExitCode == 0 {
		t.Errorf("read-only root: %q", got)
	}
	if got, c := p.run(nil, "write", "/new", "x"); c.ExitCode != 0 {
		t.Errorf("root: %q", got)
	} else if b, err := os.ReadFile(filepath.Join(c.Upper, "new")); err != nil || string(b) != "x" {
		t.Errorf("writable layer: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(build(t).img, "new")); err == nil {
		t.Error("the image was written to")
	}
	file := func(c *runtime.ContainerConfig) {
		c.Mounts = []runtime.Mount{{Source: filepath.Join(dir, "f"), Target: "/etc/deep/hosts"}}
	}
	if got, _ := p.run(file, "read", "/etc/deep/hosts"); got != "from the host" {
		t.Errorf("file mount: %q", got)
	}
	tmpfs := func(c *runtime.ContainerConfig) {
		c.Mounts = []runtime.Mount{{Type: "tmpfs", Source: "tmpfs", Target: "/scratch", Options: []string{"size=1m"}}}
	}
	if got, c := p.run(tmpfs, "write", "/scratch/x", "y"); c.ExitCode != 0 {
		t.Errorf("tmpfs: %q", got)
	}
	// /dev/shm is the pod's, the rest of /dev is not.
	if got, c := p.run(nil, "write", "/dev/shm/note", "shared"); c.ExitCode != 0 {
		t.Errorf("shm: %q", got)
	}
	if got, _ := p.run(nil, "read", "/dev/shm/note"); got != "shared" {
		t.Errorf("shm: %q", got)
	}
	if got, _ := p.run(nil, "pid"); got != "1 0" {
		t.Errorf("process %s", got)
	}
	if got, c := p.run(nil, "read", "/proc/interrupts"); got != "" || c.ExitCode != 0 {
		t.Errorf("/proc/interrupts is not masked: %d bytes", len(got))
	}
	missing := ctr(t, "x", "id")
	missing.Mounts = []runtime.Mount{{Source: "/no/such/source", Target: "/data"}}
	_, err := p.r.StartContainer(t.Context(), "p", missing)
	var start *runtime.StartError
	if !errors.As(err, &start) || start.NoCommand || !strings.Contains(err.Error(), "/no/such/source") {
		t.Errorf("missing source: %v", err)
	}
	missing = ctr(t, "y", "id")
	missing.Layers = []string{"/no/such/layer"}
	if _, err := p.r.StartContainer(t.Context(), "p", missing); err == nil || !strings.Contains(err.Error(), "/no/such/layer") {
		t.Errorf("missing layer: %v", err)
	}
	// Nothing of a running container is mounted on the host.
	p.start(bind(false), "stubborn")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, p.r.cfg.StateDir) {
			t.Errorf("mounted on the host: %s", line)
		}
	}
}

func TestSharedLayersAreStacked(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{})
	base := t.TempDir()
	layers := []string{}
	for i := range 60 { // more than fit a page with long names
		dir := filepath.Join(base, strings.Repeat("x", 55)+fmt.Sprint(i), "fs")
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "who"), fmt.Append(nil, i), 0o644))
		layers = append(layers, dir)
	}
	layers = append(layers[:55], build(t).img)
	got, _ := p.run(func(c *runtime.ContainerConfig) { c.Layers = layers }, "read", "/who")
	if got != "0" {
		t.Errorf("topmost layer: %q", got)
	}
}

func TestNamespaces(t *testing.T) {
	ns := testkit.ScratchNetNS(t)
	p := newPod(t, runtime.SandboxConfig{NetNS: ns.Path, Hostname: "box", Sysctls: map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "7", "kernel.shm_rmid_forced": "1",
	}})
	if got, _ := p.run(nil, "interfaces"); got != "lo" {
		t.Errorf("interfaces %q", got)
	}
	if got, _ := p.run(nil, "read", "/proc/sys/net/ipv4/ip_unprivileged_port_start"); got != "7" {
		t.Errorf("network sysctl %q", got)
	}
	if got, _ := p.run(nil, "read", "/proc/sys/kernel/shm_rmid_forced"); got != "1" {
		t.Errorf("IPC sysctl %q", got)
	}
	if host, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); strings.TrimSpace(string(host)) == "7" {
		t.Error("the host's sysctl was changed")
	}
	if host, _ := os.Hostname(); host == "box" {
		t.Error("the host's name was changed")
	}
}

func TestSharedProcessNamespace(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{SharePID: true})
	c := p.start(nil, "stubborn")
	if got, _ := p.run(nil, "pid"); strings.HasPrefix(got, "1 ") {
		t.Errorf("process %q is not beside the pod's", got)
	}
	if got, _ := p.run(nil, "read", "/proc/1/comm"); got != "podshim" && got != "exe" {
		t.Errorf("process 1 is %q", got)
	}
	awaitLog(t, filepath.Join(p.logs, c.ID+".log"), "waiting") // it does not end by SIGTERM from now on
	if c, err := p.r.StopContainer(t.Context(), "p", c.ID, 0, 50*time.Millisecond); err != nil || c.ExitCode != 137 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestTerminal(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{})
	got, _ := p.run(func(c *runtime.ContainerConfig) { c.TTY = true }, "tty")
	if strings.TrimSpace(got) != "true" {
		t.Errorf("container has a terminal: %q", got)
	}
	c := p.start(nil, "stubborn")
	if got := p.exec(c.ID, runtime.ExecConfig{Args: args("tty"), TTY: true}); strings.TrimSpace(got) != "true" {
		t.Errorf("exec has a terminal: %q", got)
	}
	if got := p.exec(c.ID, runtime.ExecConfig{Args: args("tty")}); strings.TrimSpace(got) != "true" {
		// /dev/null is a character device too.
		t.Errorf("exec's input: %q", got)
	}
	var out bytes.Buffer
	code, err := p.r.Exec(t.Context(), "p", c.ID, runtime.ExecConfig{Args: []string{runtimetest.Path, "cat"}, TTY: true},
		runtime.Streams{Stdin: strings.NewReader("typed\n"), Stdout: &out})
	if err != nil || code != 0 || !strings.Contains(out.String(), "typed") {
		t.Errorf("typed into a terminal: %q, %d, %v", out.String(), code, err)
	}
}

func TestLimits(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{Resources: runtime.Resources{CPUShares: 512, Memory: 256 << 20, Pids: 500}})
	out, c := p.run(func(c *runtime.ContainerConfig) { c.Resources.Memory = 24 << 20 }, "eat")
	if !c.OOMKilled || c.ExitCode != 137 || c.Signal != syscall.SIGKILL {
		t.Errorf("%+v %s", c, out)
	}
	c = p.start(func(c *runtime.ContainerConfig) {
		c.Resources = runtime.Resources{CPUShares: 204, CPUQuota: 50_000, Memory: 64 << 20, Pids: 100}
	}, "stubborn")
	for file, want := range limitFiles(p.r, map[string]string{"cpu": "50000", "memory": "67108864", "pids": "100"}) {
		if b, err := os.ReadFile(filepath.Join(file[0], c.Cgroup, file[1])); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%v of the container: %q, %v", file, b, err)
		}
	}
	if err := p.r.UpdateContainer(t.Context(), "p", c.ID, runtime.Resources{Memory: 80 << 20, Pids: 200, CPUQuota: 70_000}); err != nil {
		t.Fatal(err)
	}
	for file, want := range limitFiles(p.r, map[string]string{"cpu": "70000", "memory": "83886080", "pids": "200"}) {
		if b, err := os.ReadFile(filepath.Join(file[0], c.Cgroup, file[1])); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%v after the update: %q, %v", file, b, err)
		}
	}
	if err := p.r.UpdateSandbox(t.Context(), "p", runtime.Resources{Pids: 600}); err != nil {
		t.Fatal(err)
	}
	all, _ := p.r.List(t.Context())
	for file, want := range limitFiles(p.r, map[string]string{"memory": "268435456", "pids": "600"}) {
		if b, err := os.ReadFile(filepath.Join(file[0], all[0].Cgroup, file[1])); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%v of the sandbox: %q, %v", file, b, err)
		}
	}
}

// TestJoinProcesses starts a container that sees another's processes.
func TestJoinProcesses(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{})
	first := p.start(func(*runtime.ContainerConfig) {}, "stubborn")
	out, c := p.run(func(c *runtime.ContainerConfig) { c.PIDOf = first.ID }, "pid")
	if pid, _, _ := strings.Cut(out, " "); c.ExitCode != 0 || pid == "1" || pid == "" {
		t.Errorf("runs as process %s, %+v", out, c)
	}
	if out := p.exec(first.ID, runtime.ExecConfig{Args: []string{runtimetest.Path, "pid"}}); out == "" {
		t.Error("the first one is gone")
	}
	if out, c := p.run(func(*runtime.ContainerConfig) {}, "pid"); !strings.HasPrefix(out, "1 ") {
		t.Errorf("one that joins nobody runs as process %s, %+v", out, c)
	}
}

// limitFiles turns controllers into the files of this machine's hierarchies.
func limitFiles(r *Runtime, want map[string]string) map[[2]string]string {
	out := map[[2]string]string{}
	for _, h := range r.groups.Hierarchies {
		for controller, value := range want {
			if !contains(h.Controllers, controller) {
				continue
			}
			file := map[string]string{"cpu": "cpu.cfs_quota_us", "memory": "memory.limit_in_bytes", "pids": "pids.max"}[controller]
			if h.V2 {
				file = map[string]string{"cpu": "cpu.max", "memory": "memory.max", "pids": "pids.max"}[controller]
			}
			out[[2]string{h.Mount, file}] = value
		}
	}
	return out
}

func TestLackOfPrivilegeIsAWarning(t *testing.T) {
	p := newPod(t, runtime.SandboxConfig{})
	low, high := -500, 700
	_, c := p.run(func(c *runtime.ContainerConfig) { c.OOMScoreAdj = &low }, "exit", "0")
	t.Log(c.Warnings)
	if got, _ := p.run(func(c *runtime.ContainerConfig) { c.OOMScoreAdj = &high }, "read", "/proc/self/oom_score_adj"); got != "700" {
		t.Errorf("raised oom_score_adj: %q", got)
	}
	_, c = p.run(func(c *runtime.ContainerConfig) {
		c.Rlimits = []runtime.Rlimit{{Name: "nofile", Soft: 1 << 30, Hard: 1 << 30}}
	}, "exit", "0")
	if c.ExitCode != 0 {
		t.Errorf("%+v", c)
	}
	t.Log(c.Warnings)
}
