package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/shim"
)

// container is one container of the pod, from its start until it is removed.
type container struct {
	id      string
	dir     string
	cgroup  string
	ownPIDs bool
	once    bool // StdinOnce

	log     *shim.Log
	out     fanout
	pumps   sync.WaitGroup
	console *os.File // the terminal's other end, or nil
	stdinMu sync.Mutex
	stdin   *os.File // where its input is written, or nil

	done    chan struct{} // closed when exit is set
	cleaned chan struct{} // closed when nothing of it is left in the kernel

	// Guarded by the server's lock.
	pid  int // 0 while it is being started
	exit *shim.Exit
	seq  int // the server's when this last changed
}

// create starts a container and returns what is left of it on disk.
func (s *server) create(req *shim.Request) (*shim.Record, error) {
	if req.Create == nil || req.Container == "" {
		return nil, shim.Errorf(shim.KindInvalid, "a request to create without what to create")
	}
	cr := req.Create
	c := &container{
		id: req.Container, dir: cr.Launch.Dir, cgroup: cr.Launch.Cgroup, ownPIDs: cr.OwnPIDs, once: cr.StdinOnce,
		done: make(chan struct{}), cleaned: make(chan struct{}),
	}
	s.mu.Lock()
	switch {
	case s.stopping:
		s.mu.Unlock()
		return nil, shim.Errorf(shim.KindInvalid, "the pod is being stopped")
	case s.containers[c.id] != nil:
		s.mu.Unlock()
		return nil, shim.Errorf(shim.KindExists, "container %q already exists", c.id)
	}
	s.containers[c.id] = c
	s.mu.Unlock()

	rec, ended, err := s.start(c, cr)
	if err != nil {
		if c.log != nil {
			c.log.Close()
		}
		s.cleanContainer(c)
		s.mu.Lock()
		delete(s.containers, c.id)
		s.changedLocked(c)
		s.mu.Unlock()
		return nil, err
	}
	s.mu.Lock()
	c.pid = rec.Launched.PID
	s.changedLocked(c)
	stopping := s.stopping
	s.mu.Unlock()
	go s.await(c, ended)
	if stopping {
		_ = s.signal(c, syscall.SIGKILL)
	}
	return rec, nil
}

// start runs podrun and takes over the streams of what it leaves behind.
func (s *server) start(c *container, cr *shim.Create) (*shim.Record, <-chan syscall.WaitStatus, error) {
	if cr.LogPath != "" {
		log, err := shim.OpenLog(cr.LogPath, cr.LogMaxSize, cr.LogMaxFiles)
		if err != nil {
			return nil, nil, err
		}
		c.log = log
	}
	cr.Launch.Op = shim.OpCreate
	run, err := s.launch(&cr.Launch, cr.TTY, cr.Stdin)
	if err != nil {
		return nil, nil, err
	}
	if run.console != nil {
		c.console = run.console
		if cr.Stdin {
			c.stdin = run.console
		}
		c.pump(run.console, shim.Stdout)
	} else {
		c.stdin = run.stdin
		c.pump(run.stdout, shim.Stdout)
		c.pump(run.stderr, shim.Stderr)
	}
	rec := &shim.Record{ID: c.id, StartedAt: time.Now(), Create: *cr, Launched: run.launched}
	if err := shim.WriteRecord(c.dir, *rec); err != nil {
		// It runs, but nobody would find it again.
		s.reaper.kill(run.launched.PID, syscall.SIGKILL)
		<-run.ended
		return nil, nil, err
	}
	return rec, run.ended, nil
}

// await sees a container to its end.
func (s *server) await(c *container, ended <-chan syscall.WaitStatus) {
	ws := <-ended
	exit := exitOf(ws)
	if !c.ownPIDs {
		// Others of the pod's process namespace are not its business, but
		// what is left of this container is.
		_ = s.pod.Cgroups.Kill(c.cgroup, stopWithin)
	}
	if exit.Code != 0 && s.pod.Cgroups.OOMKills(c.cgroup) > 0 {
		exit.OOMKilled = true
	}
	c.drain()
	if err := shim.WriteExit(c.dir, exit); err != nil {
		// Told on the socket all the same; only a loss of this process
		// would lose it.
		os.Stderr.WriteString("podshim: " + err.Error() + "\n")
	}
	s.mu.Lock()
	c.exit = &exit
	close(c.done)
	s.changedLocked(c)
	s.mu.Unlock()
	s.cleanContainer(c)
	close(c.cleaned)
}

// cleanContainer removes what the kernel and libcontainer keep of a container.
func (s *server) cleanContainer(c *container) {
	err := s.pod.Cgroups.Kill(c.cgroup, stopWithin)
	err = errors.Join(err, s.pod.Cgroups.Remove(c.cgroup))
	err = errors.Join(err, os.RemoveAll(filepath.Join(shim.StateRoot(s.pod.RunDir), c.id)))
	if err != nil { // noded tries again with the pod
		os.Stderr.WriteString("podshim: clean up container " + c.id + ": " + err.Error() + "\n")
	}
}

func exitOf(ws syscall.WaitStatus) shim.Exit {
	e := shim.Exit{Format: shim.Format, Code: ws.ExitStatus(), FinishedAt: time.Now()}
	if ws.Signaled() {
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
	}
	return e
}

// signal signals a container's process 1, or with SIGKILL all in it.
func (s *server) signal(c *container, sig syscall.Signal) error {
	if !s.reaper.kill(c.pid, sig) {
		return shim.Errorf(shim.KindNotRunning, "container %q is not running", c.id)
	}
	// Of a container with its own process namespace the kernel kills the rest;
	// of others await does, once process 1 is gone.
	return nil
}

// remove ends a container if need be and forgets it.
func (s *server) remove(c *container) error {
	_ = s.signal(c, syscall.SIGKILL) // it may have ended
	select {
	case <-c.cleaned:
	case <-time.After(stopWithin):
		return shim.Errorf(shim.KindInternal, "container %q (process %d) does not die", c.id, c.pid)
	}
	s.mu.Lock()
	delete(s.containers, c.id)
	s.mu.Unlock()
	return nil
}

func (s *server) pidNS() string {
	if s.pause == 0 {
		return ""
	}
	return "/proc/" + strconv.Itoa(s.pause) + "/ns/pid"
}
