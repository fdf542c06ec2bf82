package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/shim"
)

// Program is what runs in a container of a Fake: a function for a program, its
// result the exit code.
type Program func(p *Proc) int

// Proc is a Program's process.
type Proc struct {
	Args     []string
	Env      []string
	Cwd      string
	Hostname string
	TTY      bool
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	// Signals brings the signals sent to it, but not SIGKILL.
	Signals <-chan syscall.Signal
	// Killed is closed when it is killed: it should return, and whatever it
	// returns does not count.
	Killed <-chan struct{}
}

// Machine keeps the state of a Fake runtime, as a real machine would: it stays
// when the Fake is closed. The zero value is not usable; see NewMachine.
type Machine struct {
	mu        sync.Mutex
	programs  map[string]Program
	fail      func(SandboxConfig) error
	sandboxes map[string]*fakeSandbox
	listeners map[*Fake]struct{}
	pids      int
	now       func() time.Time
}

// NewMachine returns a machine on which the programs can be run, by the paths
// that ContainerConfig.Args and ExecConfig.Args begin with.
func NewMachine(programs map[string]Program) *Machine {
	return &Machine{
		programs: programs, sandboxes: map[string]*fakeSandbox{}, listeners: map[*Fake]struct{}{},
		pids: 100, now: time.Now,
	}
}

// FailSandboxes makes StartSandbox return what f returns, unless nil.
func (m *Machine) FailSandboxes(f func(SandboxConfig) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// LoseSandbox does what the death of a sandbox's shim does.
func (m *Machine) LoseSandbox(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sandboxes[id]
	if !ok || s.lost {
		return
	}
	s.lost = true
	for _, c := range s.containers {
		if c.State == Running {
			c.State, c.ExitCode, c.FinishedAt = Lost, ExitLost, m.now()
			c.proc.kill()
			close(c.ended)
		}
	}
	m.tellLocked(Event{Kind: SandboxLost, SandboxID: id})
}

func (m *Machine) tellLocked(e Event) {
	for f := range m.listeners {
		f.push(e)
	}
}

type fakeSandbox struct {
	Sandbox
	cfg        SandboxConfig
	lost       bool
	containers map[string]*fakeContainer
}

type fakeContainer struct {
	Container
	cfg   ContainerConfig
	proc  *fakeProc
	log   *shim.Log
	ended chan struct{} // closed when it is no longer Running
}

// fakeProc is a running Program.
type fakeProc struct {
	signals chan syscall.Signal
	killed  chan struct{}
	once    sync.Once
	mu      sync.Mutex
	by      syscall.Signal // what killed it
	stdin   *io.PipeWriter // nil without input
	out     fakeOutput
	done    chan struct{}
	code    int
}

func (p *fakeProc) kill() {
	p.once.Do(func() {
		p.mu.Lock()
		p.by = syscall.SIGKILL
		p.mu.Unlock()
		close(p.killed)
		if p.stdin != nil {
			p.stdin.Close()
		}
	})
}

func (p *fakeProc) signal(sig syscall.Signal) {
	if sig == syscall.SIGKILL {
		p.kill()
		return
	}
	select {
	case p.signals <- sig:
	default: // like a pending signal that is sent again
	}
}

// exec starts a program; output goes to w besides those attached, of whom st is
// the first.
func (m *Machine) exec(args []string, proc Proc, stdin bool, w func(shim.Stream, []byte), st ...Streams) (*fakeProc, error) {
	program, ok := m.programs[args[0]]
	if !ok {
		if strings.Contains(args[0], "/") {
			return nil, &StartError{NoCommand: true, Message: fmt.Sprintf("exec: %q: stat %s: no such file or directory", args[0], args[0])}
		}
		return nil, &StartError{NoCommand: true, Message: fmt.Sprintf("exec: %q: executable file not found in $PATH", args[0])}
	}
	p := &fakeProc{signals: make(chan syscall.Signal, 8), killed: make(chan struct{}), done: make(chan struct{})}
	p.out.to = map[*fakeAttached]struct{}{}
	p.out.write = w
	for _, s := range st {
		p.out.join(s)
	}
	proc.Args, proc.Signals, proc.Killed = args, p.signals, p.killed
	proc.Stdin = bytes.NewReader(nil)
	if stdin {
		r, w := io.Pipe()
		proc.Stdin, p.stdin = r, w
	}
	proc.Stdout = writerFunc(func(b []byte) (int, error) { return p.out.send(shim.Stdout, b) })
	proc.Stderr = writerFunc(func(b []byte) (int, error) { return p.out.send(shim.Stderr, b) })
	if proc.TTY {
		proc.Stderr = proc.Stdout
	}
	go func() { // ends with the program; whoever started it waits for done
		code := program(&proc)
		p.mu.Lock()
		if p.code = code; p.by != 0 {
			p.code = 128 + int(p.by)
		}
		p.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// fakeOutput brings a program's output to its log and to those attached.
type fakeOutput struct {
	mu    sync.Mutex
	write func(shim.Stream, []byte)
	to    map[*fakeAttached]struct{}
}

type fakeAttached struct{ io Streams }

func (o *fakeOutput) send(s shim.Stream, b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.write != nil {
		o.write(s, b)
	}
	for a := range o.to {
		w := a.io.Stdout
		if s == shim.Stderr {
			w = a.io.Stderr
		}
		if w != nil {
			if _, err := w.Write(b); err != nil {
				delete(o.to, a)
			}
		}
	}
	return len(b), nil
}

func (o *fakeOutput) join(st Streams) (leave func()) {
	a := &fakeAttached{st}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to[a] = struct{}{}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.to, a)
	}
}

// startContainer is StartContainer of every Fake on the machine.
func (m *Machine) startContainer(sandboxID string, cfg ContainerConfig) (Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.readyLocked(sandboxID)
	if err != nil {
		return Container{}, err
	}
	if _, ok := s.containers[cfg.ID]; ok {
		return Container{}, fmt.Errorf("container %q: %w", cfg.ID, ErrExists)
	}
	if cfg.PIDOf != "" {
		with, ok := s.containers[cfg.PIDOf]
		if !ok {
			return Container{}, NotFound("container", cfg.PIDOf)
		}
		if with.State != Running {
			return Container{}, fmt.Errorf("container %q: %w", cfg.PIDOf, ErrNotRunning)
		}
	}
	c := &fakeContainer{cfg: cfg, ended: make(chan struct{})}
	c.Container = Container{
		ID: cfg.ID, SandboxID: sandboxID, Name: cfg.Name, Attempt: cfg.Attempt, Labels: cfg.Labels,
		State: Running, StartedAt: m.now(), LogPath: cfg.LogPath, Cgroup: s.Cgroup + "/" + cfg.ID,
	}
	if cfg.LogPath != "" && !filepath.IsAbs(cfg.LogPath) {
		c.LogPath = filepath.Join(s.cfg.LogDir, cfg.LogPath)
	}
	var write func(shim.Stream, []byte)
	if c.LogPath != "" {
		if c.log, err = shim.OpenLog(c.LogPath, s.cfg.LogMaxSize, s.cfg.LogMaxFiles); err != nil {
			return Container{}, err
		}
		lines := map[shim.Stream]*shim.Lines{shim.Stdout: shim.NewLines(shim.Stdout), shim.Stderr: shim.NewLines(shim.Stderr)}
		write = func(st shim.Stream, b []byte) {
			at := m.now()
			if b != nil {
				_, _ = c.log.Write(lines[st].Append(b, at))
			} else if rest := lines[st].Flush(at); len(rest) > 0 {
				_, _ = c.log.Write(rest)
			}
		}
	}
	proc := Proc{Env: cfg.Env, Cwd: cfg.Cwd, Hostname: s.cfg.Hostname, TTY: cfg.TTY}
	if c.proc, err = m.exec(cfg.Args, proc, cfg.Stdin, write); err != nil {
		if c.log != nil {
			c.log.Close()
		}
		return Container{}, err
	}
	m.pids++
	c.PID = m.pids
	s.containers[cfg.ID] = c
	go m.await(c, write) // ends with the program
	return c.Container, nil
}

// await sees a container to its end.
func (m *Machine) await(c *fakeContainer, write func(shim.Stream, []byte)) {
	<-c.proc.done
	if write != nil {
		write(shim.Stdout, nil)
		write(shim.Stderr, nil)
		c.log.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.State != Running { // lost
		return
	}
	c.proc.mu.Lock()
	c.State, c.ExitCode, c.Signal, c.FinishedAt = Exited, c.proc.code, c.proc.by, m.now()
	c.proc.mu.Unlock()
	close(c.ended)
	m.tellLocked(Event{Kind: ContainerExited, SandboxID: c.SandboxID, Container: c.Container})
}

func (m *Machine) readyLocked(id string) (*fakeSandbox, error) {
	s, ok := m.sandboxes[id]
	if !ok {
		return nil, NotFound("sandbox", id)
	}
	if s.lost {
		return nil, fmt.Errorf("sandbox %q: %w", id, ErrLost)
	}
	return s, nil
}

func (m *Machine) find(sandboxID, containerID string) (*fakeContainer, Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sandboxes[sandboxID]
	if !ok {
		return nil, Container{}, NotFound("sandbox", sandboxID)
	}
	c, ok := s.containers[containerID]
	if !ok {
		return nil, Container{}, NotFound("container", containerID)
	}
	return c, c.Container, nil
}

func (s *fakeSandbox) snapshot() Sandbox {
	out := s.Sandbox
	out.State = SandboxReady
	if s.lost {
		out.State = SandboxGone
	}
	for _, c := range s.containers {
		out.Containers = append(out.Containers, c.Container)
	}
	slices.SortFunc(out.Containers, func(a, b Container) int { return a.StartedAt.Compare(b.StartedAt) })
	return out
}

// removeContainer kills a container, waits for its end and forgets it.
func (m *Machine) removeContainer(ctx context.Context, sandboxID, containerID string) error {
	c, _, err := m.find(sandboxID, containerID)
	if err != nil {
		return nil
	}
	c.proc.kill()
	select {
	case <-c.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.sandboxes[sandboxID]; ok {
		delete(s.containers, containerID)
	}
	return nil
}
