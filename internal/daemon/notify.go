package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// Signals returns a context that ends with the first SIGTERM or SIGINT; the
// second one kills the program as if nobody listened. Call stop when the
// program is done. A closed standard output (a journal that restarts) is an
// error to whoever writes to it and not the program's end.
func Signals(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE) // not Ignore: children would inherit it
	ctx, stop = signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // the next one is fatal again
	return ctx, stop
}

// Notifier tells the service manager (systemd's Type=notify) how the program
// fares. Without a service manager it does nothing.
type Notifier struct{ addr *net.UnixAddr }

// NewNotifier takes the service manager's socket out of the environment, so
// that no container and no helper started later can be taken for the daemon:
// call it before anything is started.
func NewNotifier() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return nil, fmt.Errorf("unset NOTIFY_SOCKET: %w", err)
	}
	if path == "" {
		return &Notifier{}, nil
	}
	return &Notifier{addr: &net.UnixAddr{Name: path, Net: "unixgram"}}, nil
}

// Ready says that the program serves.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Stopping says that the program is on its way out.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Status is one line for `systemctl status`.
func (n *Notifier) Status(line string) error { return n.send("STATUS=" + line) }

func (n *Notifier) send(state string) error {
	if n.addr == nil {
		return nil
	}
	c, err := net.DialUnix(n.addr.Net, nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}
