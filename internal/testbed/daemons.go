package testbed

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Start starts a host's daemon and waits until it says that it is ready or
// ctx ends. One that runs is waited for. daemon "" means the host's own.
func (t *Testbed) Start(ctx context.Context, host, daemon string) error {
	return t.start(ctx, host, daemon, true)
}

// Launch starts a host's daemon and does not wait for it to be ready.
func (t *Testbed) Launch(ctx context.Context, host, daemon string) error {
	return t.start(ctx, host, daemon, false)
}

func (t *Testbed) start(ctx context.Context, host, daemon string, wait bool) error {
	s, h, err := t.machine(host)
	if err != nil {
		return err
	}
	if daemon, err = h.daemon(daemon); err != nil {
		return err
	}
	t.progress(fmt.Sprintf("start %s on %s", daemon, host))
	ctx, cancel := context.WithTimeout(ctx, s.ReadyTimeout)
	defer cancel()
	// No lock: the host's init does one thing after the other by itself.
	_, err = t.ask(ctx, host, request{Op: "start", Daemon: daemon, Argv: s.daemon(h.Role), Wait: wait})
	if err != nil && wait {
		return fmt.Errorf("%w\n%s", err, t.tail(host, daemon, 2<<10))
	}
	return err
}

// Stop ends a host's daemon by SIGTERM and waits for its end.
func (t *Testbed) Stop(ctx context.Context, host, daemon string) error {
	return t.signal(ctx, host, daemon, "stop", unix.SIGTERM)
}

// Kill ends a host's daemon by SIGKILL. It stays dead until Start or PowerOn.
func (t *Testbed) Kill(ctx context.Context, host, daemon string) error {
	return t.signal(ctx, host, daemon, "kill", unix.SIGKILL)
}

func (t *Testbed) signal(ctx context.Context, host, daemon, verb string, sig unix.Signal) error {
	s, h, err := t.machine(host)
	if err != nil {
		return err
	}
	if daemon, err = h.daemon(daemon); err != nil {
		return err
	}
	t.progress(fmt.Sprintf("%s %s on %s", verb, daemon, host))
	ctx, cancel := context.WithTimeout(ctx, s.ReadyTimeout)
	defer cancel()
	_, err = t.ask(ctx, host, request{Op: "signal", Daemon: daemon, Signal: int(sig), Wait: true})
	return err
}

// daemon checks a daemon's name against what the host runs.
func (h hostState) daemon(name string) (string, error) {
	own := h.Role.Daemon()
	switch {
	case own == "":
		return "", fmt.Errorf("host %s runs no daemon", h.Name)
	case name == "" || name == own:
		return own, nil
	}
	return "", fmt.Errorf("host %s runs %s, not %s", h.Name, own, name)
}

// Logs writes what a host's daemon has logged, over all its starts.
func (t *Testbed) Logs(host string, w io.Writer) error {
	_, h, err := t.machine(host)
	if err != nil {
		return err
	}
	name := h.Role.Daemon()
	if name == "" {
		name = "host" // the init's own, of use when it fails
	}
	f, err := os.Open(t.LogFile(host, name))
	if os.IsNotExist(err) {
		return fmt.Errorf("%s has not run on %s yet", name, host)
	} else if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// LogFile is where this machine finds the log of a daemon; it stays when the
// host is off. In the host it is /var/log/wherry/DAEMON.log.
func (t *Testbed) LogFile(host, daemon string) string {
	return t.hostPath(host, "log", daemon+".log")
}

// tail quotes the end of a log, whole lines.
func (t *Testbed) tail(host, daemon string, n int) string {
	b, err := os.ReadFile(t.LogFile(host, daemon))
	if err != nil || len(b) == 0 {
		return fmt.Sprintf("(%s on %s has logged nothing)", daemon, host)
	}
	cut := max(0, len(b)-n)
	text := string(b[cut:])
	if _, rest, ok := strings.Cut(text, "\n"); ok && cut > 0 {
		text = rest
	}
	return fmt.Sprintf("the end of its log (`wherry testbed logs %s` has all):\n%s", host, strings.TrimRight(text, "\n"))
}

// Pid returns the process id, on this machine, of a host's daemon.
func (t *Testbed) Pid(ctx context.Context, host string) (int, error) {
	_, h, err := t.machine(host)
	if err != nil {
		return 0, err
	}
	name, err := h.daemon("")
	if err != nil {
		return 0, err
	}
	st, err := t.hostStatus(ctx, h)
	if err != nil {
		return 0, err
	}
	if len(st.Daemons) == 0 || st.MachinePid == 0 {
		return 0, fmt.Errorf("%s does not run on %s", name, host)
	}
	return st.MachinePid, nil
}
