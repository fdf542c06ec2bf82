package main

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/shim"
)

// server answers noded.
type server struct {
	pod        shim.Pod
	failed     error // of prepare: the pod cannot be used
	reaper     *reaper
	pause      int // process 1 of the shared process namespace, or 0
	pauseEnded <-chan syscall.WaitStatus
	stopped    chan struct{} // closed once serve may return

	mu         sync.Mutex
	containers map[string]*container
	stopping   bool
	changed    chan struct{} // closed and replaced with each change
	seq        int           // changes so far
}

func newServer(pod shim.Pod) *server {
	return &server{
		pod:        pod,
		reaper:     newReaper(),
		containers: map[string]*container{},
		changed:    make(chan struct{}),
		stopped:    make(chan struct{}),
	}
}

// listen returns the listening socket that was inherited as fd, as a file that
// waits in the runtime's poller and not on a thread.
func listen(fd int) (*os.File, error) {
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, errors.New("no listening socket as file descriptor 3")
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// serve accepts connections until the pod is stopped.
func (s *server) serve(l *os.File) error {
	failed := make(chan error, 1)
	go func() {
		for {
			conn, err := accept(l)
			if err != nil {
				failed <- err
				return
			}
			go s.handle(conn)
		}
	}()
	select {
	case <-s.stopped:
		return nil
	case err := <-failed:
		return err
	}
}

func accept(l *os.File) (*os.File, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var conn int
	var aerr error
	err = raw.Read(func(fd uintptr) bool {
		conn, _, aerr = syscall.Accept4(int(fd), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
		// A caller that went away is no reason to stop listening.
		return aerr != syscall.EAGAIN && aerr != syscall.ECONNABORTED && aerr != syscall.EINTR
	})
	if err == nil {
		err = aerr
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(conn), "conn"), nil
}

func (s *server) handle(f *os.File) {
	defer f.Close()
	conn := shim.NewConn(f)
	for {
		req, err := conn.ReadRequest()
		if err != nil {
			var resp shim.Response
			if req != nil { // understood so far that an answer helps
				resp = shim.Response{Format: shim.Format, Error: shim.AsError(err)}
				_ = conn.WriteJSON(shim.FrameMessage, resp)
			}
			return
		}
		if s.failed != nil && req.Op != shim.OpStop {
			_ = answer(conn, shim.Response{}, s.failed)
			continue
		}
		switch req.Op {
		case shim.OpWatch:
			s.watch(conn)
			return
		case shim.OpExec:
			s.exec(f, conn, req)
			return
		case shim.OpAttach:
			s.attach(f, conn, req)
			return
		case shim.OpStop:
			err := s.stop()
			_ = answer(conn, shim.Response{}, err)
			close(s.stopped)
			return
		}
		resp, err := s.do(req)
		if answer(conn, resp, err) != nil {
			return
		}
	}
}

func answer(conn *shim.Conn, resp shim.Response, err error) error {
	resp.Format, resp.Error = shim.Format, shim.AsError(err)
	return conn.WriteJSON(shim.FrameMessage, resp)
}

// do carries out the requests that are answered by one response.
func (s *server) do(req *shim.Request) (shim.Response, error) {
	switch req.Op {
	case shim.OpHello:
		return shim.Response{PID: os.Getpid(), PIDNS: s.pidNS()}, nil
	case shim.OpCreate:
		rec, err := s.create(req)
		return shim.Response{Container: rec}, err
	}
	c, err := s.container(req.Container)
	if err != nil {
		if req.Op == shim.OpRemove {
			err = nil // removed before
		}
		return shim.Response{}, err
	}
	switch req.Op {
	case shim.OpSignal:
		return shim.Response{}, s.signal(c, syscall.Signal(req.Signal))
	case shim.OpRemove:
		return shim.Response{}, s.remove(c)
	case shim.OpRotate:
		if c.log == nil {
			return shim.Response{}, nil
		}
		return shim.Response{}, c.log.Rotate()
	}
	return shim.Response{}, shim.Errorf(shim.KindInvalid, "this shim does not know the request %q", req.Op)
}

func (s *server) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok || c.pid == 0 {
		return nil, shim.Errorf(shim.KindNotFound, "container %q not found", id)
	}
	return c, nil
}

// watch tells all containers, then those that started or ended since, until
// nobody listens.
func (s *server) watch(conn *shim.Conn) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, _, err := conn.Read(); err != nil {
				return
			}
		}
	}()
	told := -1
	for {
		s.mu.Lock()
		var list []shim.Progress
		for id, c := range s.containers {
			if c.pid != 0 && c.seq > told {
				list = append(list, shim.Progress{ID: id, Exit: c.exit})
			}
		}
		first := told < 0
		told = s.seq
		changed := s.changed
		s.mu.Unlock()
		if first || len(list) > 0 {
			if answer(conn, shim.Response{Containers: list}, nil) != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-gone:
			return
		}
	}
}

// changedLocked wakes those who watch.
func (s *server) changedLocked(c *container) {
	s.seq++
	c.seq = s.seq
	close(s.changed)
	s.changed = make(chan struct{})
}

// stop ends everything in the pod.
func (s *server) stop() error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return shim.Errorf(shim.KindInvalid, "the pod is being stopped")
	}
	s.stopping = true
	var all []*container
	for _, c := range s.containers {
		all = append(all, c)
	}
	s.mu.Unlock()
	// Whatever is just being started is stopped by noded with the pod's cgroup.
	deadline := time.After(stopWithin)
	for _, c := range all {
		if c.pid != 0 {
			_ = s.signal(c, syscall.SIGKILL) // it may have ended
		}
	}
	for _, c := range all {
		if c.pid == 0 {
			continue
		}
		select {
		case <-c.cleaned:
		case <-deadline:
			return errors.New("containers do not die")
		}
	}
	return s.cleanUp()
}

// quitWhenIdle ends the shim once no container runs, and lets none be started:
// the machine is going down.
func (s *server) quitWhenIdle() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	for {
		s.mu.Lock()
		busy := false
		for _, c := range s.containers {
			busy = busy || c.exit == nil
		}
		changed := s.changed
		s.mu.Unlock()
		if !busy {
			close(s.stopped)
			return
		}
		<-changed
	}
}
