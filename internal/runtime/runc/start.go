package runc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// StartSandbox makes a sandbox.
func (r *Runtime) StartSandbox(ctx context.Context, cfg runtime.SandboxConfig) (runtime.Sandbox, error) {
	if err := cfg.Validate(); err != nil {
		return runtime.Sandbox{}, err
	}
	if n := len(socketPath(r.cfg.RunDir, cfg.ID)); n > maxSocket {
		return runtime.Sandbox{}, fmt.Errorf("sandbox id %q is too long for a socket in %s: %w", cfg.ID, r.cfg.RunDir, runtime.ErrInvalid)
	}
	defer r.lockID(cfg.ID)()
	switch s, err := r.ready(cfg.ID); {
	case err == nil:
		return s.snapshot(), nil
	case errors.Is(err, runtime.ErrLost):
		if err := r.remove(ctx, cfg.ID); err != nil {
			return runtime.Sandbox{}, err
		}
	}
	r.wake()
	s := r.newSandbox(cfg.ID)
	if err := s.start(ctx, cfg); err != nil {
		// Known from here on, as lost, so that removing it finds it.
		s.lose()
		r.mu.Lock()
		r.sandboxes[cfg.ID] = s
		r.mu.Unlock()
		if rerr := r.remove(context.WithoutCancel(ctx), cfg.ID); rerr != nil {
			r.log.Warn("half a sandbox is left", "sandbox", cfg.ID, "err", rerr)
		}
		return runtime.Sandbox{}, err
	}
	r.mu.Lock()
	r.sandboxes[cfg.ID] = s
	r.mu.Unlock()
	return s.snapshot(), nil
}

func (s *sandbox) start(ctx context.Context, cfg runtime.SandboxConfig) error {
	raw, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	shm := cfg.ShmSize
	if shm == 0 {
		shm = 64 << 20
	}
	s.cfg = cfg
	s.pod = shim.Pod{
		Format: shim.Format, ID: s.id, StartedAt: time.Now(), Dir: s.dir, RunDir: s.runDir, Podrun: s.r.cfg.Podrun,
		Hostname: cfg.Hostname, NetNS: cfg.NetNS, Sysctls: cfg.Sysctls, ShmSize: shm, SharePID: cfg.SharePID,
		Cgroup: s.r.cgroupOf(cfg), Cgroups: s.r.groups, Config: raw,
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := shim.WriteFile(shim.PodFile(s.dir), s.pod, false); err != nil {
		return err
	}
	if err := os.MkdirAll(shim.StateRoot(s.runDir), 0o700); err != nil {
		return err
	}
	if err := s.r.groups.Create(s.pod.Cgroup); err != nil {
		return fmt.Errorf("make the sandbox's cgroup: %w", err)
	}
	if err := s.r.groups.Set(s.pod.Cgroup, limits(cfg.Resources)); err != nil {
		return err
	}
	if err := s.startShim(); err != nil {
		return fmt.Errorf("start the sandbox's shim: %w", err)
	}
	if err := s.connect(ctx); err != nil {
		return fmt.Errorf("start sandbox %s: %w%s", s.id, err, s.shimLog())
	}
	return nil
}

// startShim starts the shim on a socket that can be dialled at once: calls wait
// until it comes to accept them.
func (s *sandbox) startShim() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(s.r.cfg.RunDir, s.id), Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		return err
	}
	defer socket.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	log, err := os.OpenFile(s.shimLogPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()

	if err := s.r.groups.Create(s.r.shimsCgroup()); err != nil {
		return err
	}
	pidfd := -1
	// Its own session, so that no signal to noded's reaches it. The pod's UTS
	// and IPC namespaces are the shim's.
	sys := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if s.cfg.Hostname != "" {
		sys.Cloneflags |= syscall.CLONE_NEWUTS
	}
	if !s.cfg.HostIPC {
		sys.Cloneflags |= syscall.CLONE_NEWIPC
	}
	attr := &syscall.ProcAttr{
		Dir: "/",
		// Nothing of noded's environment: no NOTIFY_SOCKET above all.
		Env:   []string{"GOMAXPROCS=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{null.Fd(), null.Fd(), log.Fd(), socket.Fd()},
		Sys:   sys,
	}
	args := []string{"podshim", s.dir}
	home, v2 := s.r.groups.Home(s.r.shimsCgroup())
	if v2 { // started there, since being moved costs 10 ms
		dir, err := os.Open(home)
		if err != nil {
			return err
		}
		defer dir.Close()
		sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
		pid, err := syscall.ForkExec(s.r.cfg.Podshim, args, attr)
		if err == nil {
			s.r.reap(pid, pidfd)
			return nil
		}
		sys.UseCgroupFD = false // a kernel before 5.7 cannot
	}
	pid, err := syscall.ForkExec(s.r.cfg.Podshim, args, attr)
	if err != nil {
		return &os.PathError{Op: "execute", Path: s.r.cfg.Podshim, Err: err}
	}
	s.r.reap(pid, pidfd)
	return s.r.groups.Join(s.r.shimsCgroup(), pid)
}

// reap waits for a shim, as long as the runtime is open: later nobody needs to,
// since the shim then is somebody else's child.
func (r *Runtime) reap(pid, pidfd int) {
	_ = syscall.SetNonblock(pidfd, true)
	f := os.NewFile(uintptr(pidfd), "shim")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return
	}
	stop := context.AfterFunc(r.ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	r.wg.Go(func() {
		defer f.Close()
		defer stop()
		_ = raw.Read(func(uintptr) bool {
			var ws syscall.WaitStatus
			got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
			return got == pid || err != nil && err != syscall.EINTR
		})
	})
}

func (s *sandbox) shimLogPath() string { return filepath.Join(s.dir, "shim.log") }

// shimLog is what a shim that failed said last.
func (s *sandbox) shimLog() string {
	b, err := os.ReadFile(s.shimLogPath())
	if b = bytes.TrimSpace(b); err != nil || len(b) == 0 {
		return ""
	}
	return " (" + string(b[max(0, len(b)-500):]) + ")"
}

// RemoveSandbox removes a sandbox and all in it.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	defer r.lockID(id)()
	return r.remove(ctx, id)
}

// remove undoes start, from whatever step it or an earlier remove came to.
func (r *Runtime) remove(ctx context.Context, id string) error {
	s, err := r.sandbox(id)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	s.mu.Lock()
	s.removing = true
	lost := s.lost
	s.mu.Unlock()
	clean := false
	if !lost {
		// The shim does it best: it waits for its own children.
		within, cancel := context.WithTimeout(ctx, r.stopWithin)
		_, err := s.call(within, shim.Request{Op: shim.OpStop})
		cancel()
		if ctx.Err() != nil {
			s.mu.Lock()
			s.removing = false
			s.mu.Unlock()
			return ctx.Err()
		}
		if clean = err == nil; !clean {
			r.log.Warn("sandbox's shim does not stop its containers, they are killed", "sandbox", id, "err", err)
		}
	}
	s.disconnect()
	if err := s.removeRest(clean); err != nil {
		s.lose() // whatever is left, it is no sandbox any more
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	s.lose()
	r.mu.Lock()
	delete(r.sandboxes, id)
	r.mu.Unlock()
	return nil
}

// removeRest removes all that can be left of a sandbox; clean says that its shim
// stopped all by itself.
func (s *sandbox) removeRest(clean bool) error {
	group := s.pod.Cgroup
	if group == "" {
		group = s.r.cgroupOf(runtime.SandboxConfig{ID: s.id, CgroupParent: s.cfg.CgroupParent})
	}
	if err := s.killShim(); err != nil {
		return err
	}
	if err := s.r.groups.Kill(group, killWithin); err != nil {
		return err
	}
	if err := s.r.groups.Remove(group); err != nil {
		return err
	}
	if !clean {
		if err := unmountBelow(s.runDir, s.dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(s.runDir); err != nil {
		return err
	}
	return os.RemoveAll(s.dir)
}

// killShim kills the shim, also one that came not as far as to say which process
// it is.
func (s *sandbox) killShim() error {
	var p shim.Process
	if err := shim.ReadFile(shim.ProcessFile(s.runDir), &p); err == nil {
		return p.Kill(killWithin)
	}
	pids, err := s.r.groups.Pids(s.r.shimsCgroup())
	if err != nil {
		return err
	}
	for _, pid := range pids {
		p, err := shim.FindProcess(pid)
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err == nil && strings.TrimSuffix(string(line), "\x00") == "podshim\x00"+s.dir {
			if err := p.Kill(killWithin); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmountBelow detaches what is mounted in the directories, so that removing them
// does not reach into it.
func unmountBelow(dirs ...string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		at := unescapeMount(fields[4])
		for _, dir := range dirs {
			if at == dir || strings.HasPrefix(at, dir+"/") {
				if err := syscall.Unmount(at, 2 /* detach */); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
					return fmt.Errorf("unmount %s: %w", at, err)
				}
			}
		}
	}
	return nil
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
