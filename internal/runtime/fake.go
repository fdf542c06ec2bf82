package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Fake is a Runtime on a Machine that is made of memory. Its containers run
// Programs, their logs are real files.
type Fake struct {
	m      *Machine
	out    chan Event
	wake   chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	waiting []Event
	resized map[string]Resources // by container id
}

var _ Runtime = (*Fake)(nil)

// Open returns a Fake on the machine, which finds there what others left.
func (m *Machine) Open() *Fake {
	ctx, cancel := context.WithCancel(context.Background()) // lives until Close
	f := &Fake{
		m: m, out: make(chan Event), wake: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{}),
		resized: map[string]Resources{},
	}
	m.mu.Lock()
	m.listeners[f] = struct{}{}
	m.mu.Unlock()
	go f.run(ctx)
	return f
}

// Close lets go of the machine.
func (f *Fake) Close() error {
	f.m.mu.Lock()
	delete(f.m.listeners, f)
	f.m.mu.Unlock()
	f.cancel()
	<-f.ended
	return nil
}

// Events is where exits and losses are told.
func (f *Fake) Events() <-chan Event { return f.out }

func (f *Fake) push(e Event) {
	f.mu.Lock()
	f.waiting = append(f.waiting, e)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *Fake) run(ctx context.Context) {
	defer close(f.ended)
	defer close(f.out)
	for {
		f.mu.Lock()
		batch := f.waiting
		f.waiting = nil
		f.mu.Unlock()
		for _, e := range batch {
			select {
			case f.out <- e:
			case <-ctx.Done():
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return
		}
	}
}

// StartSandbox makes a sandbox.
func (f *Fake) StartSandbox(ctx context.Context, cfg SandboxConfig) (Sandbox, error) {
	if err := cfg.Validate(); err != nil {
		return Sandbox{}, err
	}
	m := f.m
	m.mu.Lock()
	old, ok := m.sandboxes[cfg.ID]
	fail := m.fail
	if ok && !old.lost {
		defer m.mu.Unlock()
		return old.snapshot(), nil
	}
	m.mu.Unlock()
	if ok {
		if err := f.RemoveSandbox(ctx, cfg.ID); err != nil {
			return Sandbox{}, err
		}
	}
	if fail != nil {
		if err := fail(cfg); err != nil {
			return Sandbox{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.sandboxes[cfg.ID]; ok {
		return s.snapshot(), nil
	}
	m.pids++
	s := &fakeSandbox{cfg: cfg, containers: map[string]*fakeContainer{}}
	s.Sandbox = Sandbox{
		ID: cfg.ID, Name: cfg.Name, StartedAt: m.now(), PID: m.pids, NetNS: cfg.NetNS,
		Cgroup: path.Join("/fake", cfg.CgroupParent, "pod"+cfg.ID), Labels: cfg.Labels,
	}
	m.sandboxes[cfg.ID] = s
	return s.snapshot(), nil
}

// StartContainer starts a container's Program.
func (f *Fake) StartContainer(_ context.Context, sandboxID string, cfg ContainerConfig) (Container, error) {
	if err := cfg.Validate(); err != nil {
		return Container{}, err
	}
	return f.m.startContainer(sandboxID, cfg)
}

// Signal hands a signal to a container's Program.
func (f *Fake) Signal(_ context.Context, sandboxID, containerID string, sig syscall.Signal) error {
	c, now, err := f.m.find(sandboxID, containerID)
	if err != nil {
		return err
	}
	switch now.State {
	case Exited:
		return fmt.Errorf("container %q: %w", containerID, ErrNotRunning)
	case Lost:
		return fmt.Errorf("container %q: %w", containerID, ErrLost)
	}
	c.proc.signal(sig)
	return nil
}

// StopContainer ends a container, gracefully if it lets itself be.
func (f *Fake) StopContainer(ctx context.Context, sandboxID, containerID string, sig syscall.Signal, grace time.Duration) (Container, error) {
	c, now, err := f.m.find(sandboxID, containerID)
	if err != nil || now.State != Running {
		return now, err
	}
	if sig == 0 {
		if sig = c.cfg.StopSignal; sig == 0 {
			sig = syscall.SIGTERM
		}
	}
	if grace > 0 {
		c.proc.signal(sig)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-c.ended:
		case <-t.C:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
	c.proc.kill()
	select {
	case <-c.ended:
	case <-ctx.Done():
		return now, ctx.Err()
	}
	_, now, err = f.m.find(sandboxID, containerID)
	return now, err
}

// RemoveContainer removes a container.
func (f *Fake) RemoveContainer(ctx context.Context, sandboxID, containerID string) error {
	return f.m.removeContainer(ctx, sandboxID, containerID)
}

// UpdateContainer keeps the limits, for Resized.
func (f *Fake) UpdateContainer(_ context.Context, sandboxID, containerID string, r Resources) error {
	_, now, err := f.m.find(sandboxID, containerID)
	if err != nil {
		return err
	}
	if now.State != Running {
		return fmt.Errorf("container %q: %w", containerID, ErrNotRunning)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resized[containerID] = r
	return nil
}

// Resized returns what UpdateContainer set last.
func (f *Fake) Resized(containerID string) Resources {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.resized[containerID]
}

// Exec runs a Program beside a container's.
func (f *Fake) Exec(ctx context.Context, sandboxID, containerID string, cfg ExecConfig, st Streams) (int, error) {
	if len(cfg.Args) == 0 {
		return 0, fmt.Errorf("exec without a program: %w", ErrInvalid)
	}
	c, now, err := f.m.find(sandboxID, containerID)
	if err != nil {
		return 0, err
	}
	if now.State != Running {
		return 0, fmt.Errorf("container %q: %w", containerID, ErrNotRunning)
	}
	proc := Proc{Env: append(slices.Clone(c.cfg.Env), cfg.Env...), Cwd: cfg.Cwd, TTY: cfg.TTY}
	if proc.Cwd == "" {
		proc.Cwd = c.cfg.Cwd
	}
	f.m.mu.Lock()
	proc.Hostname = f.m.sandboxes[sandboxID].cfg.Hostname
	p, err := f.m.exec(cfg.Args, proc, st.Stdin != nil, nil, st)
	f.m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if st.Stdin != nil {
		go feed(p, st.Stdin)
	}
	select {
	case <-p.done:
		return p.code, nil
	case <-c.proc.done:
		p.kill()
		<-p.done
		return p.code, nil
	case <-ctx.Done():
		p.kill()
		<-p.done
		return 0, ctx.Err()
	}
}

func feed(p *fakeProc, in io.Reader) {
	_, _ = io.Copy(p.stdin, in)
	p.stdin.Close()
}

// Attach joins the streams of a container's Program.
func (f *Fake) Attach(ctx context.Context, sandboxID, containerID string, st Streams) error {
	c, now, err := f.m.find(sandboxID, containerID)
	if err != nil {
		return err
	}
	if now.State != Running {
		return fmt.Errorf("container %q: %w", containerID, ErrNotRunning)
	}
	defer c.proc.out.join(st)()
	if st.Stdin != nil && c.proc.stdin != nil {
		go func() {
			_, _ = io.Copy(c.proc.stdin, st.Stdin)
			if c.cfg.StdinOnce {
				c.proc.stdin.Close()
			}
		}()
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// UpdateSandbox keeps the limits, for Resized.
func (f *Fake) UpdateSandbox(_ context.Context, id string, r Resources) error {
	f.m.mu.Lock()
	_, ok := f.m.sandboxes[id]
	f.m.mu.Unlock()
	if !ok {
		return NotFound("sandbox", id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resized[id] = r
	return nil
}

// RotateLog goes on in a new log file.
func (f *Fake) RotateLog(_ context.Context, sandboxID, containerID string) error {
	c, now, err := f.m.find(sandboxID, containerID)
	if err != nil {
		return err
	}
	if now.State != Running {
		return fmt.Errorf("container %q: %w", containerID, ErrNotRunning)
	}
	if c.log == nil {
		return nil
	}
	return c.log.Rotate()
}

// RemoveSandbox removes a sandbox and all in it.
func (f *Fake) RemoveSandbox(ctx context.Context, id string) error {
	m := f.m
	m.mu.Lock()
	s, ok := m.sandboxes[id]
	var ids []string
	if ok {
		for c := range s.containers {
			ids = append(ids, c)
		}
	}
	m.mu.Unlock()
	var errs []error
	for _, c := range ids {
		errs = append(errs, m.removeContainer(ctx, id, c))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sandboxes, id)
	return nil
}

// List returns all sandboxes, ordered by id.
func (f *Fake) List(context.Context) ([]Sandbox, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	out := make([]Sandbox, 0, len(f.m.sandboxes))
	for _, s := range f.m.sandboxes {
		out = append(out, s.snapshot())
	}
	slices.SortFunc(out, func(a, b Sandbox) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
