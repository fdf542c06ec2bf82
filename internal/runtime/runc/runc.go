// Package runc is the Runtime on libcontainer: a shim process per pod
// (cmd/podshim) is the parent of the pod's containers, and a passing helper
// (cmd/podrun) makes them. This package starts the shims, speaks with them over
// their sockets, and cleans up after those that were killed.
//
// On disk, StateDir/ID of each sandbox is there before anything else of it and is
// removed last, so what a half start left can always be found. In RunDir/ID lie
// the socket, /dev/shm and libcontainer's state. Processes are found by cgroup:
// the pod's below CgroupRoot, all shims in CgroupRoot/shims, so that no limit of
// a pod can kill its shim.
package runc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// Config says where the runtime finds and keeps things. Every path is absolute.
type Config struct {
	// StateDir keeps a directory per sandbox: configuration, exit codes,
	// writable layers. It survives reboots.
	StateDir string
	// RunDir holds the shims' sockets and what is only good until a reboot.
	// Keep it short: a socket's path has at most 107 bytes.
	RunDir string
	// CgroupRoot is the cgroup below which all sandboxes' cgroups are made, as
	// a path below each hierarchy's mount ("/wherry.slice/wherry-pods.service").
	CgroupRoot string
	// Podshim and Podrun are the two programs.
	Podshim, Podrun string
	// Log gets warnings; nil: none.
	Log *slog.Logger `json:"-"`
}

// Validate reports what of the configuration cannot be.
func (c Config) Validate() error {
	for name, p := range map[string]string{
		"state directory": c.StateDir, "run directory": c.RunDir, "cgroup root": c.CgroupRoot,
		"podshim": c.Podshim, "podrun": c.Podrun,
	} {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("%s %q is not an absolute path", name, p)
		}
	}
	if path.Clean(c.CgroupRoot) == "/" {
		return errors.New("the cgroup root is the machine's: name one below it")
	}
	const uid = 36
	if n := len(socketPath(c.RunDir, strings.Repeat("u", uid))); n > maxSocket {
		return fmt.Errorf("run directory %s is too long: a shim's socket in it would need %d bytes of %d", c.RunDir, n, maxSocket)
	}
	for _, p := range []string{c.Podshim, c.Podrun} {
		if info, err := os.Stat(p); err != nil {
			return fmt.Errorf("%w: podshim and podrun lie beside noded, or where its configuration says", err)
		} else if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return fmt.Errorf("%s is not a program", p)
		}
	}
	return nil
}

const maxSocket = 107

// Runtime runs containers by shims. Make one with Open.
type Runtime struct {
	cfg    Config
	groups shim.Cgroups
	events *eventQueue
	log    *slog.Logger
	// stopWithin is how long a shim may take to stop its containers before it
	// is killed with them.
	stopWithin time.Duration

	ctx    context.Context // ends with Close; the readers of shims' events live in it
	cancel context.CancelFunc
	wg     sync.WaitGroup

	waking atomic.Bool

	mu        sync.Mutex
	sandboxes map[string]*sandbox
	ids       map[string]*idLock
}

var _ runtime.Runtime = (*Runtime)(nil)

// Open takes over what an earlier Runtime over the same directories left.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	groups, err := shim.FindCgroups()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.StateDir, cfg.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runtime{
		cfg: cfg, groups: groups, log: cfg.Log, events: newEventQueue(), stopWithin: 15 * time.Second,
		sandboxes: map[string]*sandbox{}, ids: map[string]*idLock{},
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	entries, err := os.ReadDir(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			r.adopt(ctx, e.Name())
		}
	}
	r.wg.Go(func() { r.events.run(r.ctx) })
	return r, nil
}

// adopt takes over one sandbox that is on disk. One whose shim does not answer is
// lost, and so is one of which nothing can be read; both can be removed.
func (r *Runtime) adopt(ctx context.Context, id string) {
	s := r.newSandbox(id)
	pod, err := shim.ReadPod(s.dir)
	if err != nil {
		r.log.Warn("sandbox cannot be read, it counts as lost", "sandbox", id, "err", err)
	}
	s.load(pod)
	if err == nil {
		if err = s.connect(ctx); err != nil {
			r.log.Warn("sandbox's shim does not answer, it counts as lost", "sandbox", id, "err", err)
		}
	}
	if err != nil {
		s.lose()
	}
	r.sandboxes[id] = s
}

// Events is where exits and losses are told.
func (r *Runtime) Events() <-chan runtime.Event { return r.events.out }

// Close lets go of the shims. They and their containers stay.
func (r *Runtime) Close() error {
	r.cancel()
	r.mu.Lock()
	for _, s := range r.sandboxes {
		s.disconnect()
	}
	r.mu.Unlock()
	r.wg.Wait()
	return nil
}

// List returns all sandboxes, ordered by id.
func (r *Runtime) List(context.Context) ([]runtime.Sandbox, error) {
	r.mu.Lock()
	all := make([]*sandbox, 0, len(r.sandboxes))
	for _, s := range r.sandboxes {
		all = append(all, s)
	}
	r.mu.Unlock()
	out := make([]runtime.Sandbox, 0, len(all))
	for _, s := range all {
		out = append(out, s.snapshot())
	}
	slices.SortFunc(out, func(a, b runtime.Sandbox) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// StartContainer creates and starts a container.
func (r *Runtime) StartContainer(ctx context.Context, sandboxID string, cfg runtime.ContainerConfig) (runtime.Container, error) {
	if err := cfg.Validate(); err != nil {
		return runtime.Container{}, err
	}
	s, err := r.ready(sandboxID)
	if err != nil {
		return runtime.Container{}, err
	}
	r.wake()
	return s.startContainer(ctx, cfg)
}

// wake prepares the kernel for the container that podrun will put into its cgroup
// a few milliseconds from now. One at a time is enough for all.
func (r *Runtime) wake() {
	if r.waking.CompareAndSwap(false, true) {
		r.wg.Go(func() {
			r.groups.Wake()
			r.waking.Store(false)
		})
	}
}

// Signal signals a container.
func (r *Runtime) Signal(ctx context.Context, sandboxID, containerID string, sig syscall.Signal) error {
	s, c, err := r.find(sandboxID, containerID)
	if err != nil {
		return err
	}
	switch c.State {
	case runtime.Exited:
		return fmt.Errorf("container %q: %w", containerID, runtime.ErrNotRunning)
	case runtime.Lost:
		return fmt.Errorf("container %q: %w", containerID, runtime.ErrLost)
	}
	_, err = s.call(ctx, shim.Request{Op: shim.OpSignal, Container: containerID, Signal: int(sig)})
	return err
}

// StopContainer ends a container, gracefully if it lets itself be.
func (r *Runtime) StopContainer(ctx context.Context, sandboxID, containerID string, sig syscall.Signal, grace time.Duration) (runtime.Container, error) {
	s, c, err := r.find(sandboxID, containerID)
	if err != nil {
		return runtime.Container{}, err
	}
	done := s.doneOf(containerID)
	if sig == 0 {
		if sig = s.stopSignal(containerID); sig == 0 {
			sig = syscall.SIGTERM
		}
	}
	if grace <= 0 {
		sig = syscall.SIGKILL
	}
	for c.State == runtime.Running {
		if err := r.Signal(ctx, sandboxID, containerID, sig); err != nil && !errors.Is(err, runtime.ErrNotRunning) {
			return c, err
		}
		var overdue <-chan time.Time
		if sig != syscall.SIGKILL {
			t := time.NewTimer(grace)
			defer t.Stop()
			overdue = t.C
		}
		select {
		case <-done:
			_, c, err = r.find(sandboxID, containerID)
			return c, err
		case <-overdue:
			sig = syscall.SIGKILL
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
	return c, nil
}

// RemoveContainer removes a container.
func (r *Runtime) RemoveContainer(ctx context.Context, sandboxID, containerID string) error {
	s, err := r.sandbox(sandboxID)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return s.removeContainer(ctx, containerID)
}

// UpdateContainer sets limits of a running container.
func (r *Runtime) UpdateContainer(_ context.Context, sandboxID, containerID string, res runtime.Resources) error {
	_, c, err := r.find(sandboxID, containerID)
	if err != nil {
		return err
	}
	if c.State != runtime.Running {
		return fmt.Errorf("container %q: %w", containerID, runtime.ErrNotRunning)
	}
	return r.groups.Set(c.Cgroup, limits(res))
}

// UpdateSandbox sets limits of a sandbox.
func (r *Runtime) UpdateSandbox(_ context.Context, id string, res runtime.Resources) error {
	s, err := r.sandbox(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	cgroup := s.pod.Cgroup
	s.mu.Unlock()
	return r.groups.Set(cgroup, limits(res))
}

// RotateLog goes on in a new log file.
func (r *Runtime) RotateLog(ctx context.Context, sandboxID, containerID string) error {
	s, c, err := r.find(sandboxID, containerID)
	if err != nil {
		return err
	}
	if c.State != runtime.Running {
		return fmt.Errorf("container %q: %w", containerID, runtime.ErrNotRunning)
	}
	_, err = s.call(ctx, shim.Request{Op: shim.OpRotate, Container: containerID})
	return err
}

func (r *Runtime) sandbox(id string) (*sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.sandboxes[id]
	if !ok {
		return nil, runtime.NotFound("sandbox", id)
	}
	return s, nil
}

// ready returns a sandbox that has its shim.
func (r *Runtime) ready(id string) (*sandbox, error) {
	s, err := r.sandbox(id)
	if err == nil && s.isLost() {
		err = fmt.Errorf("sandbox %q: %w", id, runtime.ErrLost)
	}
	return s, err
}

func (r *Runtime) find(sandboxID, containerID string) (*sandbox, runtime.Container, error) {
	s, err := r.sandbox(sandboxID)
	if err != nil {
		return nil, runtime.Container{}, err
	}
	c, ok := s.container(containerID)
	if !ok {
		return nil, runtime.Container{}, runtime.NotFound("container", containerID)
	}
	return s, c, nil
}

// idLock lets only one start or remove of an id go on at a time.
type idLock struct {
	mu    sync.Mutex
	users int
}

func (r *Runtime) lockID(id string) (unlock func()) {
	r.mu.Lock()
	l := r.ids[id]
	if l == nil {
		l = &idLock{}
		r.ids[id] = l
	}
	l.users++
	r.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		r.mu.Lock()
		if l.users--; l.users == 0 {
			delete(r.ids, id)
		}
		r.mu.Unlock()
	}
}

func limits(r runtime.Resources) shim.Limits {
	return shim.Limits{
		CPUShares: r.CPUShares, CPUQuota: r.CPUQuota, CPUPeriod: r.CPUPeriod, Memory: r.Memory, Pids: r.Pids,
		CPUs: r.CPUs, Mems: r.Mems, Unified: r.Unified,
	}
}

// translate gives a shim's failure the kind that callers know.
func translate(err error) error {
	var e *shim.Error
	switch {
	case errors.As(err, &e):
		switch e.Kind {
		case shim.KindStart, shim.KindNoCommand:
			return &runtime.StartError{Message: e.Message, NoCommand: e.Kind == shim.KindNoCommand}
		case shim.KindInvalid:
			return fmt.Errorf("%w: %w", runtime.ErrInvalid, e)
		case shim.KindNotFound:
			return fmt.Errorf("%w: %w", runtime.ErrNotFound, e)
		case shim.KindExists:
			return fmt.Errorf("%w: %w", runtime.ErrExists, e)
		case shim.KindNotRunning:
			return fmt.Errorf("%w: %w", runtime.ErrNotRunning, e)
		}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w: %w", runtime.ErrLost, err)
	}
	return err
}
