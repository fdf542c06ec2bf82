package runc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"encoding/json"

	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/shim"
)

func (s *sandbox) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", socketPath(s.r.cfg.RunDir, s.id))
}

// call asks the shim for something and returns its answer. If ctx ends first the
// shim goes on with it all the same.
func (s *sandbox) call(ctx context.Context, req shim.Request) (*shim.Response, error) {
	nc, err := s.dial(ctx)
	if err != nil {
		return nil, translate(err)
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	resp, err := shim.NewConn(nc).Call(req)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return resp, translate(err)
}

// Exec runs a further program in a container.
func (r *Runtime) Exec(ctx context.Context, sandboxID, containerID string, cfg runtime.ExecConfig, io runtime.Streams) (int, error) {
	if len(cfg.Args) == 0 {
		return 0, fmt.Errorf("exec without a program: %w", runtime.ErrInvalid)
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return 0, err
	}
	return r.stream(ctx, sandboxID, containerID, io, shim.Request{
		Op: shim.OpExec, Container: containerID,
		Exec: &shim.Exec{Config: raw, TTY: cfg.TTY, Stdin: io.Stdin != nil},
	})
}

// Attach joins a container's streams.
func (r *Runtime) Attach(ctx context.Context, sandboxID, containerID string, io runtime.Streams) error {
	_, err := r.stream(ctx, sandboxID, containerID, io, shim.Request{Op: shim.OpAttach, Container: containerID})
	return err
}

// stream carries streams to and from the shim until the program ends, and returns
// its exit code.
func (r *Runtime) stream(ctx context.Context, sandboxID, containerID string, st runtime.Streams, req shim.Request) (int, error) {
	s, c, err := r.find(sandboxID, containerID)
	if err != nil {
		return 0, err
	}
	if c.State != runtime.Running {
		return 0, fmt.Errorf("container %q: %w", containerID, runtime.ErrNotRunning)
	}
	nc, err := s.dial(ctx)
	if err != nil {
		return 0, translate(err)
	}
	// Closing the connection is how the shim learns that nobody waits any more.
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	conn := shim.NewConn(nc)
	over := make(chan struct{})
	defer close(over)
	code, err := func() (int, error) {
		if _, err := conn.Call(req); err != nil {
			return 0, err
		}
		if st.Stdin != nil {
			go sendInput(conn, st.Stdin) // ends with Stdin, or at its first write after the connection's end
		}
		if st.Resize != nil {
			go sendSizes(conn, st.Resize, over)
		}
		return receive(conn, st)
	}()
	if err != nil && ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return code, translate(err)
}

func receive(conn *shim.Conn, st runtime.Streams) (int, error) {
	for {
		kind, data, err := conn.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		switch kind {
		case shim.FrameStdout:
			err = write(st.Stdout, data)
		case shim.FrameStderr:
			err = write(st.Stderr, data)
		case shim.FrameExit:
			var e shim.Exit
			err := json.Unmarshal(data, &e)
			return e.Code, err
		case shim.FrameError:
			var e shim.Error
			if err := json.Unmarshal(data, &e); err != nil {
				return 0, err
			}
			return 0, &e
		}
		if err != nil {
			return 0, err
		}
	}
}

func write(w io.Writer, data []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(data)
	return err
}

func sendInput(conn *shim.Conn, in io.Reader) {
	buf := make([]byte, shim.MaxChunk)
	for {
		n, err := in.Read(buf)
		if n > 0 && conn.Write(shim.FrameStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = conn.Write(shim.FrameStdin, nil)
			return
		}
	}
}

func sendSizes(conn *shim.Conn, sizes <-chan runtime.Size, over <-chan struct{}) {
	for {
		select {
		case sz, ok := <-sizes:
			if !ok || conn.WriteJSON(shim.FrameResize, shim.Size(sz)) != nil {
				return
			}
		case <-over:
			return
		}
	}
}
