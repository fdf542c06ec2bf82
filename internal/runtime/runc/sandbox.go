package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

// sandbox is what is known of one sandbox, kept current by its shim's watch.
type sandbox struct {
	r           *Runtime
	id          string
	dir, runDir string

	mu         sync.Mutex
	pod        shim.Pod
	cfg        runtime.SandboxConfig
	shim       int    // the shim's pid
	pidns      string // the shared process namespace
	lost       bool
	removing   bool
	watching   net.Conn // the shim's events
	containers map[string]*container
}

type container struct {
	runtime.Container
	stopSignal syscall.Signal
	done       chan struct{} // closed when it is no longer running
}

func (r *Runtime) newSandbox(id string) *sandbox {
	return &sandbox{
		r: r, id: id,
		dir: filepath.Join(r.cfg.StateDir, id), runDir: filepath.Join(r.cfg.RunDir, id),
		containers: map[string]*container{},
	}
}

func socketPath(runDir, id string) string { return filepath.Join(runDir, id, "sock") }

// cgroupOf is where a sandbox's cgroup is.
func (r *Runtime) cgroupOf(cfg runtime.SandboxConfig) string {
	return path.Join(r.cfg.CgroupRoot, cfg.CgroupParent, "pod"+cfg.ID)
}

func (r *Runtime) shimsCgroup() string { return path.Join(r.cfg.CgroupRoot, "shims") }

// load takes what the disk tells: all containers as if they ran, but those of
// which it is known how they ended.
func (s *sandbox) load(pod shim.Pod) {
	s.pod = pod
	_ = json.Unmarshal(pod.Config, &s.cfg) // empty where pod could not be read
	entries, _ := os.ReadDir(filepath.Join(s.dir, "containers"))
	for _, e := range entries {
		c, err := s.loadContainer(e.Name())
		if err != nil {
			// It was never started, or nobody knows that it was.
			continue
		}
		s.containers[c.ID] = c
	}
}

func (s *sandbox) loadContainer(id string) (*container, error) {
	dir := shim.ContainerDir(s.dir, id)
	rec, err := shim.ReadRecord(dir)
	if err != nil {
		return nil, err
	}
	c, err := s.fromRecord(rec)
	if err != nil {
		return nil, err
	}
	if exit, err := shim.ReadExit(dir); err == nil {
		c.end(exit)
	}
	return c, nil
}

func (s *sandbox) fromRecord(rec shim.Record) (*container, error) {
	var cfg runtime.ContainerConfig
	if err := json.Unmarshal(rec.Create.Launch.Config, &cfg); err != nil {
		return nil, err
	}
	return &container{
		done: make(chan struct{}), stopSignal: cfg.StopSignal,
		Container: runtime.Container{
			ID: rec.ID, SandboxID: s.id, Name: cfg.Name, Attempt: cfg.Attempt, Labels: cfg.Labels,
			State: runtime.Running, PID: rec.Launched.PID, StartedAt: rec.StartedAt,
			LogPath: rec.Create.LogPath, Cgroup: rec.Create.Launch.Cgroup, Upper: filepath.Join(rec.Create.Launch.Dir, "upper"),
			UID: rec.Launched.UID, GID: rec.Launched.GID, Groups: rec.Launched.Groups, Warnings: rec.Launched.Warnings,
		},
	}, nil
}

func (c *container) end(e shim.Exit) {
	c.State, c.ExitCode, c.Signal = runtime.Exited, e.Code, syscall.Signal(e.Signal)
	c.OOMKilled, c.FinishedAt = e.OOMKilled, e.FinishedAt
	close(c.done)
}

// connect asks the shim who it is and begins to follow what happens in it. When
// it returns, the containers are as the shim knows them.
func (s *sandbox) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	nc, err := s.dial(ctx)
	if err != nil {
		return translate(err)
	}
	conn := shim.NewConn(nc)
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	hello, err := conn.Call(shim.Request{Op: shim.OpHello})
	var all *shim.Response
	if err == nil {
		all, err = conn.Call(shim.Request{Op: shim.OpWatch})
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return translate(err)
	}
	s.mu.Lock()
	s.shim, s.pidns, s.watching = hello.PID, hello.PIDNS, nc
	known := map[string]bool{}
	for _, p := range all.Containers {
		known[p.ID] = true
		s.progressLocked(p, false)
	}
	for id, c := range s.containers {
		if c.State == runtime.Running && !known[id] {
			// The shim removed it, and noded died before the rest went.
			delete(s.containers, id)
			close(c.done)
		}
	}
	s.mu.Unlock()
	s.r.wg.Go(func() { s.follow(conn, nc) })
	return nil
}

const answerWithin = 20 * time.Second

// follow takes in what the shim tells until it is gone, or the runtime is closed.
func (s *sandbox) follow(conn *shim.Conn, nc net.Conn) {
	defer nc.Close()
	for {
		resp, err := conn.ReadResponse()
		if err != nil {
			s.mu.Lock()
			expected := s.removing || s.r.ctx.Err() != nil || s.watching != nc
			s.mu.Unlock()
			if !expected {
				s.r.log.Warn("sandbox's shim is gone", "sandbox", s.id, "err", err)
				s.lose()
				s.r.events.push(runtime.Event{Kind: runtime.SandboxLost, SandboxID: s.id})
			}
			return
		}
		s.mu.Lock()
		for _, p := range resp.Containers {
			s.progressLocked(p, true)
		}
		s.mu.Unlock()
	}
}

// progressLocked takes in where a container stands.
func (s *sandbox) progressLocked(p shim.Progress, tell bool) {
	c := s.containers[p.ID]
	if c == nil {
		// Started on behalf of an earlier noded, or the answer to our own
		// start is still under way.
		var err error
		if c, err = s.loadContainer(p.ID); err != nil {
			s.r.log.Warn("container cannot be read", "sandbox", s.id, "container", p.ID, "err", err)
			return
		}
		s.containers[p.ID] = c
		if c.State == runtime.Exited { // the disk knew first
			if tell {
				s.r.events.push(runtime.Event{Kind: runtime.ContainerExited, SandboxID: s.id, Container: c.Container})
			}
			return
		}
	}
	if p.Exit == nil || c.State != runtime.Running {
		return
	}
	c.end(*p.Exit)
	if tell {
		s.r.events.push(runtime.Event{Kind: runtime.ContainerExited, SandboxID: s.id, Container: c.Container})
	}
}

// lose marks the sandbox and what ran in it as lost, but for containers whose
// end the shim had still written down.
func (s *sandbox) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	for _, c := range s.containers {
		if c.State != runtime.Running {
			continue
		}
		if exit, err := shim.ReadExit(shim.ContainerDir(s.dir, c.ID)); err == nil {
			c.end(exit)
			continue
		}
		c.State, c.ExitCode, c.FinishedAt = runtime.Lost, runtime.ExitLost, time.Now()
		close(c.done)
	}
}

func (s *sandbox) disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watching != nil {
		s.watching.Close()
		s.watching = nil
	}
}

func (s *sandbox) isLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

func (s *sandbox) snapshot() runtime.Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := runtime.Sandbox{
		ID: s.id, Name: s.cfg.Name, State: runtime.SandboxReady, StartedAt: s.pod.StartedAt, PID: s.shim,
		NetNS: s.cfg.NetNS, Cgroup: s.pod.Cgroup, Dir: s.dir, Labels: s.cfg.Labels,
	}
	if s.lost {
		out.State = runtime.SandboxGone
	}
	for _, c := range s.containers {
		out.Containers = append(out.Containers, c.Container)
	}
	slices.SortFunc(out.Containers, func(a, b runtime.Container) int { return a.StartedAt.Compare(b.StartedAt) })
	return out
}

func (s *sandbox) container(id string) (runtime.Container, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok {
		return runtime.Container{}, false
	}
	return c.Container, true
}

func (s *sandbox) doneOf(id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.containers[id]; ok {
		return c.done
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

func (s *sandbox) stopSignal(id string) syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.containers[id]; ok {
		return c.stopSignal
	}
	return 0
}

// startContainer has the shim start a container.
func (s *sandbox) startContainer(ctx context.Context, cfg runtime.ContainerConfig) (runtime.Container, error) {
	none := runtime.Container{}
	if _, ok := s.container(cfg.ID); ok {
		return none, fmt.Errorf("container %q: %w", cfg.ID, runtime.ErrExists)
	}
	s.mu.Lock()
	pod, sandboxCfg, pidns := s.pod, s.cfg, s.pidns
	s.mu.Unlock()
	ownPIDs := !sandboxCfg.HostPID && !sandboxCfg.SharePID
	if cfg.PIDOf != "" && ownPIDs {
		with, ok := s.container(cfg.PIDOf)
		if !ok {
			return none, runtime.NotFound("container", cfg.PIDOf)
		}
		if with.State != runtime.Running {
			return none, fmt.Errorf("container %q: %w", cfg.PIDOf, runtime.ErrNotRunning)
		}
		pidns, ownPIDs = fmt.Sprintf("/proc/%d/ns/pid", with.PID), false
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return none, err
	}
	dir := shim.ContainerDir(s.dir, cfg.ID)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return none, err
	}
	// What an earlier attempt left under this id is of no use to anyone.
	if err = os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		if err = os.RemoveAll(dir); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err != nil {
		return none, err
	}
	log := cfg.LogPath
	if log != "" && !filepath.IsAbs(log) {
		log = filepath.Join(sandboxCfg.LogDir, log)
	}
	resp, err := s.call(ctx, shim.Request{Op: shim.OpCreate, Container: cfg.ID, Create: &shim.Create{
		TTY: cfg.TTY, Stdin: cfg.Stdin, StdinOnce: cfg.StdinOnce,
		LogPath: log, LogMaxSize: sandboxCfg.LogMaxSize, LogMaxFiles: sandboxCfg.LogMaxFiles,
		OwnPIDs: ownPIDs,
		Launch: shim.Launch{
			Op: shim.OpCreate, ID: cfg.ID, Dir: dir, RunDir: s.runDir, Cgroup: path.Join(pod.Cgroup, cfg.ID),
			NetNS: sandboxCfg.NetNS, PIDNS: pidns, HostPID: sandboxCfg.HostPID, Shm: shim.ShmDir(s.runDir),
			Cache: s.r.cfg.RunDir, Config: raw,
		},
	}})
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, runtime.ErrExists) && !errors.Is(err, runtime.ErrLost) {
			_ = os.RemoveAll(dir) // the shim undid its part; with the sandbox goes the rest
		}
		return none, err
	}
	c, err := s.fromRecord(*resp.Container)
	if err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.containers[cfg.ID]; known != nil { // the watch was faster
		return known.Container, nil
	}
	if s.lost {
		return none, fmt.Errorf("sandbox %q: %w", s.id, runtime.ErrLost)
	}
	s.containers[cfg.ID] = c
	for _, w := range c.Warnings {
		s.r.log.Warn("container runs with less than was asked for", "sandbox", s.id, "container", cfg.ID, "warning", w)
	}
	return c.Container, nil
}

func (s *sandbox) removeContainer(ctx context.Context, id string) error {
	c, ok := s.container(id)
	if s.isLost() {
		if ok {
			// Nobody but us is left to do it.
			if err := s.r.groups.Kill(c.Cgroup, killWithin); err != nil {
				return err
			}
			if err := s.r.groups.Remove(c.Cgroup); err != nil {
				return err
			}
			if err := os.RemoveAll(filepath.Join(shim.StateRoot(s.runDir), id)); err != nil {
				return err
			}
		}
	} else if _, err := s.call(ctx, shim.Request{Op: shim.OpRemove, Container: id}); err != nil {
		return err
	}
	if id != "" {
		if err := os.RemoveAll(shim.ContainerDir(s.dir, id)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		if c.State == runtime.Running { // the watch has not told yet
			c.State = runtime.Exited
			close(c.done)
		}
		delete(s.containers, id)
	}
	return nil
}

const killWithin = 10 * time.Second
