package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// spawner starts processes that the kernel kills when this one ends, however
// it ends. The kernel ties that to the thread that started them, so one thread
// starts them all.
type spawner struct {
	ask  chan func()
	mu   sync.Mutex
	live map[*process]bool
}

// process is one that was started here.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how
}

func newSpawner() *spawner {
	s := &spawner{ask: make(chan func()), live: map[*process]bool{}}
	go func() {
		runtime.LockOSThread()
		for f := range s.ask {
			f()
		}
	}()
	return s
}

// start starts a command and follows it.
func (s *spawner) start(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	failed := make(chan error)
	s.ask <- func() { failed <- cmd.Start() }
	if err := <-failed; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	s.mu.Lock()
	s.live[p] = true
	s.mu.Unlock()
	go func() {
		p.err = cmd.Wait()
		s.mu.Lock()
		delete(s.live, p)
		s.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

// close ends all that still run.
func (s *spawner) close() error {
	s.mu.Lock()
	var live []*process
	for p := range s.live {
		live = append(live, p)
	}
	s.mu.Unlock()
	var err error
	for _, p := range live {
		err = errors.Join(err, p.kill())
	}
	close(s.ask)
	return err
}

// kill ends a process without asking it and waits for its end.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// stop asks a process to end, and kills it if it does not.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		return p.kill()
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }
