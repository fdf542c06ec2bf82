package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// request is one thing asked of a host's init: a JSON value on a connection of
// its own, answered by one reply. Hanging up ends the wait, not the deed.
type request struct {
	Op     string   `json:"op"` // start, signal, status
	Daemon string   `json:"daemon,omitempty"`
	Argv   []string `json:"argv,omitempty"`
	Signal int      `json:"signal,omitempty"`
	// Wait makes start wait for readiness, and signal for the end.
	Wait bool `json:"wait,omitempty"`
}

type reply struct {
	Error   string         `json:"error,omitempty"`
	Daemons []DaemonStatus `json:"daemons,omitempty"`
}

// DaemonStatus tells of a daemon of a host since the host was powered on.
type DaemonStatus struct {
	Name    string    `json:"name"`
	Running bool      `json:"running"`
	Ready   bool      `json:"ready"`
	Exit    string    `json:"exit,omitempty"` // how it ended
	Since   time.Time `json:"since"`
	// Pid is the process id within the host.
	Pid int `json:"pid"`
}

// shortPath lets a socket have a path longer than a socket address can hold.
func shortPath(dir, name string) (path string, done func(), err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), func() { unix.Close(fd) }, nil
}

func (t *Testbed) listen(host string) (*os.File, error) {
	path, done, err := shortPath(t.hostPath(host), "control")
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(t.hostPath(host, "control")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}

// ask sends a request to the init of a host that is on.
func (t *Testbed) ask(ctx context.Context, host string, r request) (reply, error) {
	path, done, err := shortPath(t.hostPath(host), "control")
	if err != nil {
		return reply{}, err
	}
	defer done()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		if ctx.Err() == nil {
			return reply{}, t.offError(host)
		}
		return reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var answer reply
	if err = json.NewEncoder(conn).Encode(r); err == nil {
		err = json.NewDecoder(conn).Decode(&answer)
	}
	switch {
	case ctx.Err() != nil:
		return reply{}, fmt.Errorf("%s %s on %s: %w", r.Op, r.Daemon, host, ctx.Err())
	case err != nil:
		return reply{}, fmt.Errorf("host %s lost its power meanwhile (%w)", host, err)
	case answer.Error != "":
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

func (t *Testbed) offError(host string) error {
	return fmt.Errorf("host %s is off; `wherry testbed power-on %s` starts it", host, host)
}
