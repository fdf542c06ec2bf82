package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is a program to be run in a host, in its namespaces and cgroup, as a
// child of this process: terminal, signals and exit code are as usual.
type Command struct {
	Argv []string
	// Env is added to the host's few variables; the caller's are not passed.
	Env []string
	// Dir is where it runs; a folder that the host does not have is replaced
	// by /root.
	Dir            string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// ExitError says that a command in a host ended with a failure.
type ExitError struct {
	Host   string
	Argv   []string
	Code   int // as a shell tells it: 128 + n after signal n
	Stderr string
}

// Error quotes what the command said last.
func (e *ExitError) Error() string {
	msg := fmt.Sprintf("%s on %s: exit status %d", strings.Join(e.Argv, " "), e.Host, e.Code)
	if said := strings.TrimSpace(e.Stderr); said != "" {
		msg += ": " + said
	}
	return msg
}

// Exec runs a command in a host and returns its output. A failure is an
// *ExitError with what it wrote to stderr.
func (t *Testbed) Exec(ctx context.Context, host string, argv ...string) (string, error) {
	var out, errs bytes.Buffer
	err := t.Run(ctx, host, Command{Argv: argv, Stdout: &out, Stderr: &errs})
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		exit.Stderr = errs.String()
	}
	return out.String(), err
}

// Run runs a command in a host and waits for its end; when ctx ends first it
// is killed. A command that ran and failed gives an *ExitError, and so does one
// that is not there: 127, as from a shell.
func (t *Testbed) Run(ctx context.Context, host string, c Command) error {
	s, _, err := t.machine(host)
	if err != nil {
		return err
	}
	if len(c.Argv) == 0 {
		return errors.New("no command given: `wherry testbed exec HOST -- COMMAND…`")
	}
	p, err := t.readPower(host)
	if err != nil {
		return err
	}
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	enter, done, err := entrance(p, trees)
	if err != nil {
		return t.offError(host)
	}
	defer done()
	cmd := exec.CommandContext(ctx, "/bin/false") // the path is found inside
	cmd.Args, cmd.Env = c.Argv, hostEnv(s.searchPath(), c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	err = startIn(cmd, trees, t.hostCgroup(host)+"/"+execCgroup, func() (err error) {
		if err := enter(); err != nil {
			return err
		}
		cmd.Dir = c.Dir
		if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() {
			cmd.Dir = "/root"
		}
		cmd.Path, err = lookPath(c.Argv[0], s.searchPath(), cmd.Dir)
		return err
	})
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		if c.Stderr == nil {
			c.Stderr = io.Discard
		}
		_, err = fmt.Fprintf(c.Stderr, "%s: command not found on %s\n", c.Argv[0], host)
		return errors.Join(&ExitError{Host: host, Argv: c.Argv, Code: 127}, err)
	}
	if err != nil {
		return fmt.Errorf("run %s on %s: %w", c.Argv[0], host, err)
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		return &ExitError{Host: host, Argv: c.Argv, Code: exitCode(exit)}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s on %s: %w", strings.Join(c.Argv, " "), host, ctx.Err())
	}
	return err
}

func exitCode(e *exec.ExitError) int {
	if how, ok := e.Sys().(syscall.WaitStatus); ok && how.Signaled() {
		return 128 + int(how.Signal())
	}
	return e.ExitCode()
}

// entrance opens a running host. enter moves the calling thread into it, for
// good; a process forked afterwards is in the host wholly. (With nsdelegate
// it sees cgroup paths as the machine does: it must be born in a cgroup that
// its own namespace would not let it into.)
func entrance(p power, trees []hierarchy) (enter func() error, done func(), err error) {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return nil, nil, err
	}
	if !alive(p) { // asked after the open, so that fd is surely the host's
		unix.Close(fd)
		return nil, nil, errors.New("the host is off")
	}
	kinds := unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWPID
	if !slices.ContainsFunc(trees, func(h hierarchy) bool { return h.Delegating }) {
		kinds |= unix.CLONE_NEWCGROUP
	}
	enter = func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		return unix.Setns(fd, kinds)
	}
	return enter, func() { unix.Close(fd) }, nil
}

// lookPath finds a program as a shell would, in the calling thread's mounts.
func lookPath(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	for d := range strings.SplitSeq(path, ":") {
		file := filepath.Join(d, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", exec.ErrNotFound
}
