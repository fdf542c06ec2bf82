package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/testkit"
)

// The test binary is its own host init, and the daemons too.
func TestMain(m *testing.M) {
	if IsHost(os.Args) {
		fmt.Fprintln(os.Stderr, Host(os.Args))
		os.Exit(1)
	}
	switch filepath.Base(os.Args[0]) {
	case Controld, Noded:
		os.Exit(fakeDaemon())
	case "up":
		_, err := Up(context.Background(), Options{Name: "t", Dir: os.Args[1], Init: "/proc/self/exe", Controls: 1, Nodes: 1, HostsOnly: true})
		fmt.Println(err)
		os.Exit(0)
	case "down":
		fmt.Println(Down(context.Background(), os.Args[1], "t"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeDaemon says READY, notes its start on the host's disk, serves TCP on
// 7443, and ends on SIGTERM with status 3.
func fakeDaemon() int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	f, err := os.OpenFile("/var/lib/wherry/starts", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Fprintln(f, "started")
	f.Close()
	l, err := net.Listen("tcp", ":7443")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _ := os.Hostname()
			fmt.Fprintln(c, host)
			c.Close()
		}
	}()
	if _, err := os.Stat("/etc/wherry/broken"); err == nil {
		fmt.Println("this host is broken")
		return 7
	}
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("the daemon serves") // before it may be killed for being ready
	fmt.Fprint(c, "STATUS=here\nREADY=1\n")
	<-stop
	return 3
}

// newBed makes hosts whose daemons are fakes, marked as joined.
func newBed(t *testing.T, controls, nodes int) *Testbed {
	t.Helper()
	testkit.NeedsRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{Controld, Noded} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Name: "t", Dir: t.TempDir(), Bin: bin, Init: self, Controls: controls, Nodes: nodes, HostsOnly: true,
		ReadyTimeout: time.Minute, Progress: func(s string) { t.Log(s) }}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := Down(ctx, o.Dir, o.Name); err != nil {
			t.Error(err)
		}
		checkClean(t, o.Dir)
	})
	bed, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bed.readState()
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Hosts {
		s.Hosts[i].Joined = s.Hosts[i].Role != RoleClient
	}
	if err := bed.writeState(s); err != nil {
		t.Fatal(err)
	}
	return bed
}

// checkClean asserts that nothing of the testbeds below dir is left.
func checkClean(t *testing.T, dir string) {
	t.Helper()
	bed, _ := at(dir, "t")
	trees, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range trees {
		if _, err := os.Stat(filepath.Join(h.Mount, bed.cgroupBase())); err == nil {
			t.Errorf("cgroup %s is left in %s", bed.cgroupBase(), h.Mount)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), dir) {
		t.Errorf("a mount below %s is left:\n%s", dir, mounts)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v is left in %s", left, dir)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, _ := os.ReadFile(p); strings.Contains(string(b), dir) {
			t.Errorf("process %s is left: %q", p, b)
		}
	}
}

func must(t *testing.T, bed *Testbed, host string, argv ...string) string {
	t.Helper()
	out, err := bed.Exec(t.Context(), host, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestHostsArePrivate(t *testing.T) {
	bed := newBed(t, 1, 1)
	machine, _ := os.Hostname()
	if got := must(t, bed, "c1", "hostname"); got != "c1" || got == machine {
		t.Errorf("host name %q", got)
	}
	for _, file := range []string{"/run/x", "/var/lib/wherry/x", "/etc/wherry/x", "/var/log/pods/x", "/root/.kube/x", "/root/x", "/var/x", "/etc/x", "/dev/shm/x-testbed"} {
		must(t, bed, "c1", "sh", "-c", "echo private >"+file)
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s of c1 is on the machine", file)
		}
		if out, err := bed.Exec(t.Context(), "n1", "cat", file); err == nil {
			t.Errorf("%s of c1 is on n1: %q", file, out)
		}
	}
	for _, id := range []string{"/etc/machine-id", "/proc/sys/kernel/random/boot_id"} {
		a, b := must(t, bed, "c1", "cat", id), must(t, bed, "n1", "cat", id)
		if a == b || len(a) < 32 {
			t.Errorf("%s: %q on c1, %q on n1", id, a, b)
		}
	}
	if got := must(t, bed, "c1", "cat", "/proc/1/comm"); got != filepath.Base(os.Args[0])[:min(15, len(filepath.Base(os.Args[0])))] && got != "exe" {
		t.Errorf("process 1 is %q", got)
	}
	if got := must(t, bed, "c1", "sh", "-c", "ls /sys/class/net | tr '\\n' ' '"); got != "eth0 lo" {
		t.Errorf("links of c1: %q", got)
	}
	if routes := must(t, bed, "c1", "cat", "/proc/net/route"); strings.Contains(routes, "\t00000000\t") && strings.Contains(routes, "eth0\t00000000") {
		t.Errorf("c1 has a default route:\n%s", routes)
	}
	if got := must(t, bed, "c1", "cat", "/etc/hosts"); !strings.Contains(got, "10.99.1.1 api.wherry.test") || !strings.Contains(got, "10.99.2.1 n1") {
		t.Errorf("hosts file:\n%s", got)
	}
	// The host's cgroup is the root of what it sees, and it may make its own.
	if got := must(t, bed, "c1", "sh", "-c", "cat /proc/1/cgroup"); strings.Contains(got, "wherry-testbed") || !strings.Contains(got, ":/system/init") {
		t.Errorf("cgroups of process 1:\n%s", got)
	}
	trees, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range trees {
		must(t, bed, "c1", "mkdir", h.Mount+"/pods")
		if _, err := os.Stat(filepath.Join(h.Mount, bed.hostCgroup("c1"), "pods")); err != nil {
			t.Error(err)
		}
	}
	if got := must(t, bed, "c1", "sh", "-c", "grep cgroup /proc/self/mountinfo | grep -c '/\\.\\.' || true"); got != "0" {
		t.Errorf("c1 sees %s cgroup mounts of the machine", got)
	}
}

func TestExec(t *testing.T) {
	bed := newBed(t, 0, 1)
	var out, errs strings.Builder
	c := Command{Argv: []string{"sh", "-c", "cat; pwd; echo $GREETING; echo bad >&2; exit 5"},
		Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &errs, Dir: "/usr/bin", Env: []string{"GREETING=hi"}}
	err := bed.Run(t.Context(), "n1", c)
	exit := (*ExitError)(nil)
	if !errors.As(err, &exit) || exit.Code != 5 || out.String() != "in\n/usr/bin\nhi\n" || errs.String() != "bad\n" {
		t.Errorf("err %v, out %q, stderr %q", err, out.String(), errs.String())
	}
	if got := must(t, bed, "n1", "sh", "-c", "pwd; echo $KUBECONFIG$HOME"); got != "/root\n/root" {
		t.Errorf("cwd and environment: %q", got)
	}
	if _, err := bed.Exec(t.Context(), "n1", "sh", "-c", "echo why >&2; kill -9 $$"); !errors.As(err, &exit) || exit.Code != 137 || !strings.Contains(err.Error(), "why") {
		t.Errorf("a killed command: %v", err)
	}
	for _, name := range []string{"no-such-program", "/no/such/program"} {
		if _, err := bed.Exec(t.Context(), "n1", name); !errors.As(err, &exit) || exit.Code != 127 || !strings.Contains(err.Error(), name+": command not found on n1") {
			t.Errorf("a missing program: %v", err)
		}
	}
	if _, err := bed.Exec(t.Context(), "n9", "true"); err == nil || !strings.Contains(err.Error(), "client, n1") {
		t.Errorf("a missing host: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := bed.Exec(ctx, "n1", "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that is too slow: %v", err)
	}
}

func TestDaemons(t *testing.T) {
	bed := newBed(t, 1, 1)
	ctx := t.Context()
	if err := bed.Start(ctx, "c1", ""); err != nil {
		t.Fatal(err)
	}
	pid, err := bed.Pid(ctx, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); !strings.Contains(string(b), bed.hostCgroup("c1")+"/system/controld") {
		t.Errorf("cgroups of controld:\n%s", b)
	}
	if err := bed.Start(ctx, "c1", "noded"); err == nil || !strings.Contains(err.Error(), "runs controld") {
		t.Errorf("start of the wrong daemon: %v", err)
	}
	if err := bed.Stop(ctx, "c1", Controld); err != nil {
		t.Fatal(err)
	}
	checkDaemon(t, bed, "c1", false, "with status 3")
	if err := bed.Stop(ctx, "c1", Controld); err != nil {
		t.Errorf("stop of one that is stopped: %v", err)
	}
	if err := bed.Start(ctx, "c1", ""); err != nil {
		t.Fatal(err)
	}
	if err := bed.Kill(ctx, "c1", ""); err != nil {
		t.Fatal(err)
	}
	checkDaemon(t, bed, "c1", false, "by signal SIGKILL")
	must(t, bed, "n1", "touch", "/etc/wherry/broken")
	if err := bed.Start(ctx, "n1", ""); err == nil || !strings.Contains(err.Error(), "with status 7") || !strings.Contains(err.Error(), "this host is broken") {
		t.Errorf("start of a broken daemon: %v", err)
	}
	var log strings.Builder
	if err := bed.Logs("c1", &log); err != nil || strings.Count(log.String(), "the daemon serves") != 2 {
		t.Errorf("log %q, %v", log.String(), err)
	}
	// An orphan is reaped by the host's init.
	must(t, bed, "c1", "sh", "-c", "setsid sh -c 'sleep 0.05 & exit' & exit")
	testkit.Eventually(t, 20*time.Second, func() error {
		if out := must(t, bed, "c1", "sh", "-c", "cat /proc/[0-9]*/stat | grep ' Z ' || true"); out != "" {
			return errors.New(out)
		}
		return nil
	})
}

func checkDaemon(t *testing.T, bed *Testbed, host string, running bool, exit string) {
	t.Helper()
	all, err := bed.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s HostStatus) bool { return s.Name == host })
	if d := all[i].Daemons; len(d) != 1 || d[0].Running != running || d[0].Exit != exit {
		t.Errorf("%s: %+v, want running %v, exit %q", host, d, running, exit)
	}
}

func TestPowerAndCable(t *testing.T) {
	bed := newBed(t, 1, 1)
	ctx := t.Context()
	if err := bed.Start(ctx, "c1", ""); err != nil {
		t.Fatal(err)
	}
	if got, err := greet(t, bed, "c1", 20*time.Second); err != nil || got != "c1\n" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := bed.Cut(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := greet(t, bed, "c1", 300*time.Millisecond); err == nil {
		t.Error("a host that is cut off answers")
	}
	if err := bed.Heal(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 20*time.Second, func() error { _, err := greet(t, bed, "c1", 300*time.Millisecond); return err })

	must(t, bed, "c1", "sh", "-c", "echo kept >/etc/wherry/kept; echo lost >/run/lost; mount -t tmpfs x /mnt; touch /mnt/mark; setsid sleep 1000 >/dev/null 2>&1 & sleep 0")
	boot := must(t, bed, "c1", "cat", "/proc/sys/kernel/random/boot_id")
	if err := bed.PowerOff(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := bed.PowerOff(ctx, "c1"); err != nil {
		t.Errorf("power off twice: %v", err)
	}
	for what, err := range map[string]error{"start": bed.Start(ctx, "c1", ""), "exec": execErr(t, bed, "c1")} {
		if err == nil || !strings.Contains(err.Error(), "power-on c1") {
			t.Errorf("%s on a host that is off: %v", what, err)
		}
	}
	if err := bed.PowerOn(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := bed.Start(ctx, "c1", ""); err != nil { // it is starting: waits
		t.Fatal(err)
	}
	if got, err := greet(t, bed, "c1", 20*time.Second); err != nil || got != "c1\n" {
		t.Errorf("after power-on: %q, %v", got, err)
	}
	if got := must(t, bed, "c1", "sh", "-c", "cat /etc/wherry/kept /run/lost 2>/dev/null; grep -c started /var/lib/wherry/starts; ls /mnt/mark 2>/dev/null; hostname"); got != "kept\n2\nc1" {
		t.Errorf("after power-on: %q", got)
	}
	if again := must(t, bed, "c1", "cat", "/proc/sys/kernel/random/boot_id"); again == boot {
		t.Error("the boot id is the old one")
	}
}

func execErr(t *testing.T, bed *Testbed, host string) error {
	_, err := bed.Exec(t.Context(), host, "true")
	return err
}

// greet asks a control's daemon for its name, from the client.
func greet(t *testing.T, bed *Testbed, host string, within time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	c, err := bed.Dial(ctx, Client, "tcp", host+":7443")
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(within))
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestAdd(t *testing.T) {
	bed := newBed(t, 1, 0)
	m, err := bed.Add(t.Context(), RoleNode)
	if err != nil || m.Name != "n1" {
		t.Fatal(m, err)
	}
	if got := must(t, bed, "c1", "cat", "/etc/hosts"); !strings.Contains(got, m.Address.String()+" n1") {
		t.Errorf("c1 does not know n1:\n%s", got)
	}
	l, err := bed.Listen(t.Context(), "n1", "tcp", ":5000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := bed.Dial(t.Context(), "c1", "tcp", "n1:5000")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestUpAndDownTwice(t *testing.T) {
	start := time.Now()
	bed := newBed(t, 3, 2)
	up := time.Since(start)
	if _, err := Up(t.Context(), Options{Name: "t", Dir: filepath.Dir(bed.Dir()), Init: os.Args[0], HostsOnly: true}); err == nil || !strings.Contains(err.Error(), "testbed down") {
		t.Errorf("up of one that exists: %v", err)
	}
	start = time.Now()
	if err := bed.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("6 hosts up in %v, down in %v", up, time.Since(start))
	if err := bed.Down(t.Context()); err != nil {
		t.Errorf("down twice: %v", err)
	}
}

// A frozen process cannot be killed; Down must see to it.
func TestDownThaws(t *testing.T) {
	bed := newBed(t, 0, 1)
	if _, err := os.Stat("/sys/fs/cgroup/freezer"); err != nil {
		t.Skip("no v1 freezer here; v2 kills what is frozen")
	}
	must(t, bed, "n1", "sh", "-c", `cd /sys/fs/cgroup/freezer && mkdir pod || exit
		setsid sleep 1000 >/dev/null 2>&1 &
		echo $! >pod/cgroup.procs && echo FROZEN >pod/freezer.state`)
	if err := bed.PowerOff(t.Context(), "n1"); err != nil {
		t.Error(err)
	}
}

// Whatever moment an up or a down is killed at, the next down removes all.
func TestDownAfterCrash(t *testing.T) {
	testkit.NeedsRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	crash := func(what, dir string, after time.Duration) {
		cmd := exec.Command(self, dir)
		cmd.Args[0] = what
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after) // the moment is the point
		cmd.Process.Kill()
		cmd.Wait()
	}
	for _, after := range []int{3, 8, 12, 16, 20, 25, 30, 40, 60, 90, 150} {
		dir := t.TempDir()
		crash("up", dir, time.Duration(after)*time.Millisecond)
		for _, after := range []int{5, 12, 20} {
			crash("down", dir, time.Duration(after)*time.Millisecond)
		}
		if err := Down(t.Context(), dir, "t"); err != nil {
			t.Errorf("after %d ms: %v", after, err)
		}
		checkClean(t, dir)
	}
}
