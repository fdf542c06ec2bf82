package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/wherry-project/wherry/internal/shim"
)

// launched is a program that podrun left behind, with this side of its streams.
type launched struct {
	launched       shim.Launched
	ended          <-chan syscall.WaitStatus
	console        *os.File // instead of the other three
	stdin          *os.File // nil if not asked for
	stdout, stderr *os.File
}

// launch runs podrun, which starts a program in a container and goes away. An
// error of podrun's own, and of the program's start, is a *shim.Error.
func (s *server) launch(l *shim.Launch, tty, stdin bool) (_ *launched, err error) {
	l.Format = shim.Format
	var run launched
	var mine, theirs files
	defer func() {
		theirs.close()
		if err != nil {
			mine.close()
		}
	}()

	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, null)
	child := []uintptr{null.Fd(), null.Fd(), null.Fd(), 0, 0}
	// pipe makes a pipe of which podrun gets one end as fd.
	pipe := func(fd int, weRead bool) (*os.File, error) {
		var p [2]int
		if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
			return nil, os.NewSyscallError("pipe2", err)
		}
		our, their := p[0], p[1]
		if !weRead {
			our, their = their, our
		}
		theirs = append(theirs, os.NewFile(uintptr(their), "pipe"))
		child[fd] = uintptr(their)
		f := pollable(our)
		mine = append(mine, f)
		return f, nil
	}
	request, err := pipe(3, false)
	if err != nil {
		return nil, err
	}
	result, err := pipe(4, true)
	if err != nil {
		return nil, err
	}
	var console *os.File
	if tty {
		p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socketpair", err)
		}
		console = os.NewFile(uintptr(p[0]), "console")
		theirs = append(theirs, os.NewFile(uintptr(p[1]), "console"))
		mine = append(mine, console)
		child = append(child, uintptr(p[1]))
	} else {
		if stdin {
			if run.stdin, err = pipe(0, false); err != nil {
				return nil, err
			}
		}
		if run.stdout, err = pipe(1, true); err != nil {
			return nil, err
		}
		if run.stderr, err = pipe(2, true); err != nil {
			return nil, err
		}
	}

	s.reaper.begin()
	defer s.reaper.end()
	_, podrun, err := s.reaper.start(s.pod.Podrun, []string{"podrun"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOGC=off", "GOMAXPROCS=2"},
		Files: child,
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, err
	}
	theirs.close()
	theirs = nil

	b, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	_, werr := request.Write(b)
	request.Close()
	b, err = io.ReadAll(result)
	result.Close()
	ws := <-podrun
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &run.launched); err != nil {
		return nil, shim.Errorf(shim.KindInternal, "podrun ended (%s) without a result: %v", ended(ws), errors.Join(werr, err))
	}
	if run.launched.Error != nil {
		return nil, run.launched.Error
	}
	run.ended = s.reaper.claim(run.launched.PID)
	if tty {
		if run.console, err = receiveFile(console); err != nil {
			s.reaper.kill(run.launched.PID, syscall.SIGKILL)
			return nil, err
		}
		console.Close()
	}
	return &run, nil
}

func ended(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return ws.Signal().String()
	}
	return "exit code " + itoa(ws.ExitStatus())
}

// receiveFile takes the terminal that was sent over a socket.
func receiveFile(socket *os.File) (*os.File, error) {
	buf, oob := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	// Sent before the program was started, so it is there.
	_, n, _, _, err := syscall.Recvmsg(int(socket.Fd()), buf, oob, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, errors.New("podrun sent no terminal")
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("podrun sent no terminal")
	}
	return pollable(fds[0]), nil
}

// pollable makes a file that waits in the runtime's poller and not on a thread.
func pollable(fd int) *os.File {
	_ = syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "stream")
}

type files []*os.File

func (fs files) close() {
	for _, f := range fs {
		f.Close()
	}
}
