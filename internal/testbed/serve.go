package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where processes are in a host's cgroup tree: every daemon apart, so that
// its use can be measured, and none at the root.
const (
	initCgroup = "system/init"
	execCgroup = "system/exec"
)

// hostInit is process 1 of a host: it starts and stops the daemons when told,
// reaps whatever ends, and never ends itself.
type hostInit struct {
	spec  hostSpec
	trees []hierarchy

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change of daemons
	daemons map[string]*daemonProcess
}

type daemonProcess struct {
	DaemonStatus
	notify *net.UnixConn
}

func serveHost(spec hostSpec, control, ready *os.File) error {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	syscall.CloseOnExec(fdSpec)
	syscall.CloseOnExec(fdControl)
	syscall.CloseOnExec(fdReady)
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	h := &hostInit{spec: spec, trees: trees, changed: make(chan struct{}), daemons: map[string]*daemonProcess{}}
	l, err := net.FileListener(control)
	if err != nil {
		return err
	}
	go func() {
		for range child {
			h.reap()
		}
	}()
	fmt.Fprint(ready, "ready")
	ready.Close()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go h.answer(conn)
	}
}

func (h *hostInit) answer(conn net.Conn) {
	defer conn.Close()
	in := json.NewDecoder(conn)
	var r request
	if in.Decode(&r) != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background()) // process 1 has no other
	defer cancel()
	go func() {
		_ = in.Decode(&struct{}{}) // returns when the asker hangs up
		cancel()
	}()
	var err error
	switch r.Op {
	case "start":
		err = h.start(ctx, r)
	case "signal":
		err = h.signal(ctx, r)
	case "status":
	default:
		err = fmt.Errorf("this host does not know the request %q: it was started by another version", r.Op)
	}
	out := reply{Daemons: h.status()}
	if err != nil {
		out.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(out)
}

func (h *hostInit) status() []DaemonStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []DaemonStatus
	for _, d := range h.daemons {
		out = append(out, d.DaemonStatus)
	}
	slices.SortFunc(out, func(a, b DaemonStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// until waits for ok to hold of a daemon.
func (h *hostInit) until(ctx context.Context, name string, ok func(DaemonStatus) bool) (DaemonStatus, error) {
	for {
		h.mu.Lock()
		d, changed := h.daemons[name].DaemonStatus, h.changed
		h.mu.Unlock()
		if ok(d) {
			return d, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
}

func (h *hostInit) changedLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hostInit) start(ctx context.Context, r request) error {
	if err := h.launch(r); err != nil || !r.Wait {
		return err
	}
	d, err := h.until(ctx, r.Daemon, func(d DaemonStatus) bool { return d.Ready || !d.Running })
	if err == nil && !d.Running {
		return fmt.Errorf("%s on %s ended (%s) before it was ready", r.Daemon, h.spec.Name, d.Exit)
	}
	return err
}

func (h *hostInit) launch(r request) error {
	h.mu.Lock() // held over the fork, so that reap knows every daemon's pid
	defer h.mu.Unlock()
	if d := h.daemons[r.Daemon]; d != nil && d.Running {
		if r.Wait {
			return nil // wait for the one that is there
		}
		return fmt.Errorf("%s runs on %s already", r.Daemon, h.spec.Name)
	}
	if r.Daemon != filepath.Base(r.Daemon) || len(r.Argv) == 0 {
		return errors.New("a daemon has a plain name and a command")
	}
	if err := makeCgroup(h.trees, "", "system/"+r.Daemon, true); err != nil {
		return err
	}
	log, err := os.OpenFile("/var/log/wherry/"+r.Daemon+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	socket := "/run/testbed/" + r.Daemon + ".notify"
	os.Remove(socket)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{Path: r.Argv[0], Args: r.Argv, Dir: "/", Stdout: log, Stderr: log,
		Env: hostEnv(h.spec.Path, "NOTIFY_SOCKET="+socket)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startIn(cmd, h.trees, "system/"+r.Daemon, nil); err != nil {
		notify.Close()
		return err
	}
	d := &daemonProcess{notify: notify}
	d.DaemonStatus = DaemonStatus{Name: r.Daemon, Running: true, Pid: cmd.Process.Pid, Since: time.Now()}
	_ = cmd.Process.Release() // reap waits for it
	h.daemons[r.Daemon] = d
	h.changedLocked()
	go h.hear(d)
	return nil
}

// hear waits for the daemon's word that it serves.
func (h *hostInit) hear(d *daemonProcess) {
	b := make([]byte, 4096)
	for {
		n, err := d.notify.Read(b)
		if err != nil {
			return // it has ended
		}
		if slices.Contains(strings.Split(string(b[:n]), "\n"), "READY=1") {
			h.mu.Lock()
			d.Ready = true
			h.changedLocked()
			h.mu.Unlock()
		}
	}
}

func (h *hostInit) signal(ctx context.Context, r request) error {
	h.mu.Lock()
	d := h.daemons[r.Daemon]
	if d == nil || !d.Running {
		h.mu.Unlock()
		return nil // what is wanted holds
	}
	err := unix.Kill(d.Pid, syscall.Signal(r.Signal)) // not reaped: reap takes the lock to mark it
	h.mu.Unlock()
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s: %w", r.Daemon, err)
	}
	if r.Wait {
		_, err = h.until(ctx, r.Daemon, func(d DaemonStatus) bool { return !d.Running })
		return err
	}
	return nil
}

// reap collects every ended child, the host's orphans too.
func (h *hostInit) reap() {
	for {
		var how unix.WaitStatus
		h.mu.Lock() // a pid is not free for another before the daemon is marked
		pid, err := unix.Wait4(-1, &how, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			h.mu.Unlock()
			continue
		}
		if err != nil || pid <= 0 {
			h.mu.Unlock()
			return
		}
		for _, d := range h.daemons {
			if d.Running && d.Pid == pid {
				d.Running, d.Ready, d.Since, d.Exit = false, false, time.Now(), describe(how)
				d.notify.Close()
				h.changedLocked()
			}
		}
		h.mu.Unlock()
	}
}

func describe(how unix.WaitStatus) string {
	if how.Signaled() {
		return "by signal " + unix.SignalName(how.Signal())
	}
	return fmt.Sprintf("with status %d", how.ExitStatus())
}
