package main

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/wherry-project/wherry/internal/shim"
)

func itoa(n int) string { return strconv.Itoa(n) }

const (
	chunk = 8 << 10
	// drainWithin is how long an output stays open for after its program's
	// end, should someone else hold it and write nothing.
	drainWithin = 250 * time.Millisecond
)

// pump takes a program's output to the log and to those attached, to its end.
func (c *container) pump(f *os.File, stream shim.Stream) {
	c.pumps.Add(1)
	c.out.sources = append(c.out.sources, f)
	go func() {
		defer c.pumps.Done()
		lines := shim.NewLines(stream)
		buf := make([]byte, chunk)
		for {
			n, err := f.Read(buf)
			if n > 0 {
				if c.log != nil {
					// A log that cannot be written must not hold up the
					// program; it says itself what it lost.
					_, _ = c.log.Write(lines.Append(buf[:n], time.Now()))
				}
				c.out.send(stream, buf[:n])
			}
			if errors.Is(err, os.ErrDeadlineExceeded) && n > 0 {
				continue
			}
			if err != nil { // EOF, EIO of a terminal, or drained
				break
			}
			if c.out.draining() {
				_ = f.SetReadDeadline(time.Now().Add(drainWithin))
			}
		}
		if c.log != nil {
			if rest := lines.Flush(time.Now()); len(rest) > 0 {
				_, _ = c.log.Write(rest)
			}
		}
		f.Close()
	}()
}

// drain waits until all output of the ended program is in the log.
func (c *container) drain() {
	c.out.drain()
	c.pumps.Wait()
	c.stdinMu.Lock()
	if c.stdin != nil && c.stdin != c.console {
		c.stdin.Close()
	}
	c.stdin = nil
	c.stdinMu.Unlock()
	if c.log != nil {
		c.log.Close()
	}
}

// fanout brings a program's output to those who are attached.
type fanout struct {
	sources []*os.File

	mu    sync.Mutex
	ended bool
	to    map[*attached]struct{}
}

// attached is one who follows a program's output. One too slow is cut off: the
// program and its log do not wait for it.
type attached struct {
	frames chan frame
	late   chan struct{} // closed when it was cut off
}

type frame struct {
	kind shim.FrameKind
	data []byte
}

const attachQueue = 64

func (o *fanout) join() *attached {
	a := &attached{frames: make(chan frame, attachQueue), late: make(chan struct{})}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.to == nil {
		o.to = map[*attached]struct{}{}
	}
	o.to[a] = struct{}{}
	return a
}

func (o *fanout) leave(a *attached) {
	o.mu.Lock()
	delete(o.to, a)
	o.mu.Unlock()
}

func (o *fanout) send(stream shim.Stream, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.to) == 0 {
		return
	}
	f := frame{shim.FrameStdout, append([]byte(nil), data...)}
	if stream == shim.Stderr {
		f.kind = shim.FrameStderr
	}
	for a := range o.to {
		select {
		case a.frames <- f:
		default:
			delete(o.to, a)
			close(a.late)
		}
	}
}

func (o *fanout) draining() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended
}

// drain makes the sources end once they are silent for a while.
func (o *fanout) drain() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	for _, f := range o.sources {
		_ = f.SetReadDeadline(time.Now().Add(drainWithin))
	}
}

// attach joins a connection with a container's streams until either ends.
func (s *server) attach(f *os.File, conn *shim.Conn, req *shim.Request) {
	c, err := s.container(req.Container)
	if err == nil {
		select {
		case <-c.done:
			err = shim.Errorf(shim.KindNotRunning, "container %q is not running", c.id)
		default:
		}
	}
	if answer(conn, shim.Response{}, err) != nil || err != nil {
		return
	}
	a := c.out.join()
	defer c.out.leave(a)
	left := make(chan struct{})
	go func() {
		defer close(left)
		c.input(f, conn)
	}()
	for {
		select {
		case f := <-a.frames:
			if conn.Write(f.kind, f.data) != nil {
				return
			}
		case <-a.late:
			_ = conn.WriteJSON(shim.FrameError, shim.Errorf(shim.KindInternal, "attach was too slow for the container's output"))
			return
		case <-c.done:
			for len(a.frames) > 0 { // done is closed after the last output
				f := <-a.frames
				_ = conn.Write(f.kind, f.data)
			}
			_ = conn.WriteJSON(shim.FrameExit, c.exit)
			return
		case <-left:
			return
		}
	}
}

// input takes what comes over a connection to a container's input.
func (c *container) input(f *os.File, conn *shim.Conn) {
	if c.once {
		defer c.closeStdin()
	}
	for {
		kind, data, err := conn.Read()
		if err != nil {
			return
		}
		switch kind {
		case shim.FrameStdin:
			c.stdinMu.Lock()
			in := c.stdin
			c.stdinMu.Unlock()
			if len(data) == 0 {
				// Others may attach yet, unless the input is for one.
				continue
			}
			if in != nil && !write(in, data, f) {
				return
			}
		case shim.FrameResize:
			resize(c.console, data)
		}
	}
}

// write gives data to a program's input, however long that takes, unless the
// connection from hangs up meanwhile: it reports whether it did not. A program
// that closed its input is none of its business.
func write(in *os.File, data []byte, from *os.File) bool {
	for {
		_ = in.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := in.Write(data)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return true
		}
		if data = data[n:]; hungUp(from) {
			return false
		}
	}
}

// hungUp reports whether the other side of a connection has closed it, even if
// there is still something to be read.
func hungUp(conn *os.File) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	up := false
	_ = raw.Control(func(fd uintptr) {
		p := struct {
			fd              int32
			events, revents int16
		}{fd: int32(fd), events: pollRdHup}
		var now syscall.Timespec
		n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		up = n == 1
	})
	return up
}

const pollRdHup = 0x2000

func (c *container) closeStdin() {
	c.stdinMu.Lock()
	defer c.stdinMu.Unlock()
	if c.stdin == nil {
		return
	}
	endInput(c.stdin, c.stdin == c.console)
	c.stdin = nil
}

// endInput ends a program's input: a terminal by its end-of-file character.
func endInput(f *os.File, terminal bool) {
	if terminal {
		_, _ = f.Write([]byte{4})
		return
	}
	f.Close()
}

func resize(console *os.File, size []byte) {
	var sz shim.Size
	if console == nil || json.Unmarshal(size, &sz) != nil {
		return
	}
	raw, err := console.SyscallConn()
	if err != nil {
		return
	}
	w := [4]uint16{sz.Height, sz.Width}
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&w)))
	})
}
