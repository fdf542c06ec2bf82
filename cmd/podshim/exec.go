package main

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/shim"
)

// exec runs a further program in a container and joins its streams with the
// connection. If the connection ends first the program is killed.
func (s *server) exec(f *os.File, conn *shim.Conn, req *shim.Request) {
	run, err := s.startExec(req)
	if answer(conn, shim.Response{}, err) != nil && err == nil {
		s.reaper.killGroup(run.launched.PID, syscall.SIGKILL)
	}
	if err != nil {
		return
	}
	x := &execution{run: run, file: f, conn: conn, over: make(chan struct{})}
	if run.console != nil {
		run.stdin = run.console
		x.pump(run.console, shim.FrameStdout)
	} else {
		x.pump(run.stdout, shim.FrameStdout)
		x.pump(run.stderr, shim.FrameStderr)
	}
	go func() {
		x.input()
		s.reaper.killGroup(run.launched.PID, syscall.SIGKILL) // no effect after its end
	}()
	exit := exitOf(<-run.ended)
	close(x.over)
	for _, f := range x.sources {
		_ = f.SetReadDeadline(time.Now().Add(drainWithin))
	}
	x.pumps.Wait()
	_ = conn.WriteJSON(shim.FrameExit, exit)
	x.closeInput()
}

func (s *server) startExec(req *shim.Request) (*launched, error) {
	if req.Exec == nil {
		return nil, shim.Errorf(shim.KindInvalid, "a request to exec without what to execute")
	}
	c, err := s.container(req.Container)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return nil, shim.Errorf(shim.KindNotRunning, "container %q is not running", c.id)
	default:
	}
	rec, err := shim.ReadRecord(c.dir)
	if err != nil {
		return nil, err
	}
	l := rec.Create.Launch
	l.Op, l.Exec, l.Size, l.Result = shim.OpExec, req.Exec.Config, req.Exec.Size, &rec.Launched
	return s.launch(&l, req.Exec.TTY, req.Exec.Stdin)
}

// execution is a program run by exec, and its connection.
type execution struct {
	run     *launched
	file    *os.File
	conn    *shim.Conn
	over    chan struct{} // closed when the program ended
	sources []*os.File
	pumps   sync.WaitGroup
	inMu    sync.Mutex
}

func (x *execution) pump(f *os.File, kind shim.FrameKind) {
	x.sources = append(x.sources, f)
	x.pumps.Add(1)
	go func() {
		defer x.pumps.Done()
		defer x.closeOutput(f)
		buf := make([]byte, shim.MaxChunk)
		for {
			n, err := f.Read(buf)
			if n > 0 && x.conn.Write(kind, buf[:n]) != nil {
				return
			}
			if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && n > 0) {
				return
			}
			select {
			case <-x.over:
				_ = f.SetReadDeadline(time.Now().Add(drainWithin))
			default:
			}
		}
	}()
}

// closeOutput leaves a terminal open, whose other direction may be in use.
func (x *execution) closeOutput(f *os.File) {
	if f != x.run.console {
		f.Close()
	}
}

// input takes what comes over the connection to the program, until the
// connection ends.
func (x *execution) input() {
	for {
		kind, data, err := x.conn.Read()
		if err != nil {
			return
		}
		switch {
		case kind == shim.FrameResize:
			resize(x.run.console, data)
		case kind == shim.FrameStdin && len(data) == 0:
			x.endInput()
		case kind == shim.FrameStdin:
			x.inMu.Lock()
			in := x.run.stdin
			x.inMu.Unlock()
			if in != nil && !write(in, data, x.file) {
				return
			}
		}
	}
}

func (x *execution) endInput() {
	x.inMu.Lock()
	defer x.inMu.Unlock()
	if x.run.stdin != nil {
		endInput(x.run.stdin, x.run.stdin == x.run.console)
		x.run.stdin = nil
	}
}

func (x *execution) closeInput() {
	x.inMu.Lock()
	defer x.inMu.Unlock()
	if x.run.console != nil {
		x.run.console.Close()
	} else if x.run.stdin != nil {
		x.run.stdin.Close()
	}
	x.run.stdin = nil
}
