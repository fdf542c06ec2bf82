package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/netns"
)

const (
	bridge     = "switch"
	offTimeout = 15 * time.Second // for the kernel to end a host's processes
)

func (t *Testbed) switchPin() string { return t.path("switch") }

// PowerOn starts a host that is off, with the daemon that belongs on it. It
// does not wait for the daemon to be ready: whether it can be may depend on
// other hosts. A host that is on stays as it is.
func (t *Testbed) PowerOn(ctx context.Context, host string) error {
	return t.withHost(ctx, host, func(s *state, h hostState) error {
		if t.isOn(host) {
			return nil
		}
		t.progress("power on " + host)
		if err := t.boot(ctx, s, h); err != nil {
			return err
		}
		if !h.Joined {
			return nil
		}
		_, err := t.ask(ctx, host, request{Op: "start", Daemon: h.Role.Daemon(), Argv: s.daemon(h.Role)})
		return err
	})
}

// PowerOff pulls a host's plug: all in it ends at once, and nothing is
// written back that was not on its disk.
func (t *Testbed) PowerOff(ctx context.Context, host string) error {
	return t.withHost(ctx, host, func(*state, hostState) error {
		t.progress("power off " + host)
		return t.halt(ctx, host)
	})
}

func (t *Testbed) withHost(ctx context.Context, host string, fn func(*state, hostState) error) error {
	if _, err := t.readState(); err != nil {
		return err
	}
	if _, _, err := t.machine(host); err != nil {
		return err
	}
	unlock, err := t.lockHost(ctx, host)
	if err != nil {
		return err
	}
	defer unlock()
	s, h, err := t.machine(host)
	if err != nil {
		return err
	}
	return fn(s, h)
}

// boot starts a host's init and plugs in its cable. What a boot that failed
// half-way left is removed first.
func (t *Testbed) boot(ctx context.Context, s *state, h hostState) error {
	if err := t.halt(ctx, h.Name); err != nil {
		return err
	}
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	own := t.hostCgroup(h.Name)
	if err := makeCgroup(trees, "", own, true); err != nil {
		return err
	}
	for _, leaf := range []string{initCgroup, execCgroup} { // the init hands down, once it is in its leaf
		if err := makeCgroup(trees, own, leaf, false); err != nil {
			return err
		}
	}
	for _, dir := range []string{"etc", "etc.work", "var", "var.work", "data", "pods", "log"} {
		if err := os.MkdirAll(t.hostPath(h.Name, dir), 0o755); err != nil {
			return err
		}
	}
	spec := hostSpec{
		Name: h.Name, MachineID: h.MachineID, Disk: t.hostPath(h.Name),
		HostsFile: s.hostsFile(), Path: s.searchPath(), Cgroup: t.hostCgroup(h.Name), Hierarchies: trees,
	}
	pid, ready, err := t.startInit(s, spec)
	if err != nil {
		return fmt.Errorf("start host %s: %w", h.Name, err)
	}
	defer ready.Close()
	p, err := t.readPower(h.Name)
	if err == nil {
		p.Pid = pid
		p.Start, err = startTime(pid)
	}
	if err == nil {
		err = t.writePower(h.Name, p)
	}
	if err == nil {
		err = t.plug(h, pid, p.Cut)
	}
	if err == nil {
		err = awaitReady(ctx, ready)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), offTimeout)
		defer cancel()
		return errors.Join(fmt.Errorf("start host %s: %w", h.Name, err), t.halt(undo, h.Name))
	}
	return nil
}

func awaitReady(ctx context.Context, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Now()) })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(ready, 64<<10))
	switch {
	case string(said) == "ready":
		return nil
	case len(said) > 0:
		return errors.New(string(said))
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	}
	return errors.New("its init ended without a word; is it a program that calls testbed.Host?")
}

// startInit forks the init into new namespaces and the host's cgroup.
func (t *Testbed) startInit(s *state, spec hostSpec) (pid int, ready *os.File, err error) {
	b, err := json.Marshal(spec)
	if err != nil {
		return 0, nil, err
	}
	specPath := t.hostPath(spec.Name, "spec.json")
	if err := writeFile(specPath, b, 0o600); err != nil {
		return 0, nil, err
	}
	specFile, err := os.Open(specPath)
	if err != nil {
		return 0, nil, err
	}
	defer specFile.Close()
	control, err := t.listen(spec.Name)
	if err != nil {
		return 0, nil, err
	}
	defer control.Close()
	log, err := os.OpenFile(t.hostPath(spec.Name, "log", "host.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return 0, nil, err
	}
	defer log.Close()
	ready, tell, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer tell.Close()
	cmd := &exec.Cmd{
		Path: s.Init, Args: []string{hostArg0, t.name + "/" + spec.Name}, Dir: "/", Env: hostEnv(spec.Path),
		Stdout: log, Stderr: log, ExtraFiles: []*os.File{specFile, control, tell},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS |
			unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNET},
	}
	if err := startIn(cmd, spec.Hierarchies, spec.Cgroup, nil); err != nil {
		ready.Close()
		return 0, nil, err
	}
	go func() { _ = cmd.Wait() }() // reaped here if this process outlives the host; ends with the host
	return cmd.Process.Pid, ready, nil
}

// halt kills a host's processes and removes what they leave in the kernel. A
// host that is off, wholly or in part, is no error.
func (t *Testbed) halt(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, offTimeout)
	defer cancel()
	p, err := t.readPower(host)
	if err != nil {
		return err
	}
	if alive(p) { // first, because all else in the host dies with it
		if err := unix.Kill(p.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill the init of %s: %w", host, err)
		}
	}
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	if err := killMembers(ctx, trees, t.hostCgroup(host)); err != nil {
		return fmt.Errorf("power off %s: %w", host, err)
	}
	if err := removeCgroup(ctx, trees, t.hostCgroup(host)); err != nil {
		return fmt.Errorf("power off %s: %w", host, err)
	}
	if err := t.unplug(host); err != nil {
		return err
	}
	if err := os.Remove(t.hostPath(host, "control")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if p.Pid != 0 {
		p.Pid, p.Start = 0, 0
		return t.writePower(host, p)
	}
	return nil
}

// makeSwitch makes the bridge that joins the hosts, in a namespace of its own.
func (t *Testbed) makeSwitch() error {
	if _, err := netns.Make(t.switchPin()); err != nil {
		return err
	}
	l, err := link.Open(t.switchPin())
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.AddBridge(bridge); err != nil {
		return err
	}
	return errors.Join(l.SetUp("lo"), l.SetUp(bridge))
}

// plug joins a host to the switch: the port has the host's name, the host's
// end is eth0. The cable of a host that is cut off is left unconnected.
func (t *Testbed) plug(h hostState, pid int, cut bool) error {
	inside, err := link.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer inside.Close()
	l, err := link.Open(t.switchPin())
	if err != nil {
		return err
	}
	defer l.Close()
	a := h.Address.As4()
	mac := net.HardwareAddr{0x02, 0x57, a[0], a[1], a[2], a[3]} // the same after each power-on
	if _, err := l.AddVeth(link.Veth{Name: h.Name, Peer: "eth0", PeerMAC: mac, PeerNetNSHandle: inside}); err != nil {
		return err
	}
	if err := l.SetMaster(h.Name, bridge); err != nil {
		return err
	}
	eth0, ok, err := inside.Find("eth0")
	if err != nil || !ok {
		return errors.Join(errors.New("the host's end of its cable is gone"), err)
	}
	if err := inside.AddAddress(link.Address{Link: eth0.Index, Prefix: netip.PrefixFrom(h.Address, switchBits)}); err != nil {
		return err
	}
	if err := errors.Join(inside.SetUp("lo"), inside.SetUp("eth0")); err != nil {
		return err
	}
	if cut {
		return nil
	}
	return l.SetUp(h.Name)
}

// unplug removes a host's cable. The kernel does so too when the host's
// namespace ends, but later.
func (t *Testbed) unplug(host string) error {
	if ok, err := netns.Pinned(t.switchPin()); err != nil || !ok {
		return err
	}
	l, err := link.Open(t.switchPin())
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Delete(host)
}

// Cut takes a host off the network; Heal puts it back. The host's own end
// stays up, without a carrier. Both hold across power-off and power-on.
func (t *Testbed) Cut(ctx context.Context, host string) error {
	return t.setCable(ctx, host, "cut off "+host, true)
}

// Heal undoes Cut.
func (t *Testbed) Heal(ctx context.Context, host string) error {
	return t.setCable(ctx, host, "put "+host+" back on the network", false)
}

func (t *Testbed) setCable(ctx context.Context, host, step string, cut bool) error {
	return t.withHost(ctx, host, func(*state, hostState) error {
		t.progress(step)
		p, err := t.readPower(host)
		if err != nil {
			return err
		}
		p.Cut = cut
		if err := t.writePower(host, p); err != nil || !alive(p) {
			return err
		}
		l, err := link.Open(t.switchPin())
		if err != nil {
			return err
		}
		defer l.Close()
		if cut {
			return l.SetDown(host)
		}
		return l.SetUp(host)
	})
}

func (t *Testbed) isOn(host string) bool {
	p, err := t.readPower(host)
	return err == nil && alive(p)
}

// alive reports whether the process is still the one that was started.
func alive(p power) bool {
	if p.Pid == 0 {
		return false
	}
	start, err := startTime(p.Pid)
	return err == nil && start == p.Start
}

// startTime returns when a process that has not ended began, in ticks since
// the machine did: with the pid it names a process for ever.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("process %d: odd stat", pid)
	}
	if fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// searchPath is PATH in the hosts: the cluster's programs, then the machine's.
func (s *state) searchPath() string {
	return s.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func (s *state) daemon(r Role) []string {
	return []string{filepath.Join(s.Bin, r.Daemon())}
}
