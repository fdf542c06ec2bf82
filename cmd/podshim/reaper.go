package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// reaper starts processes and waits for all children, those it started and
// those that were left to it. A pid it knows as running is that process: it
// alone waits, under the lock under which it kills.
type reaper struct {
	mu      sync.Mutex
	running map[int]chan syscall.WaitStatus
	// Orphans that ended before anyone claimed them; kept only while a podrun
	// is under way, which may yet say that one is a container.
	early   map[int]syscall.WaitStatus
	helpers int
}

func newReaper() *reaper {
	r := &reaper{running: map[int]chan syscall.WaitStatus{}, early: map[int]syscall.WaitStatus{}}
	// More than one signal may be lost in one: each makes a full round.
	child := make(chan os.Signal, 1)
	signal.Notify(child, syscall.SIGCHLD)
	go func() {
		for range child {
			r.reap()
		}
	}()
	return r
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ch, ok := r.running[pid]; ok {
			delete(r.running, pid)
			ch <- ws
		} else if r.helpers > 0 {
			r.early[pid] = ws
		}
	}
}

// start starts a process and returns where its end will be told.
func (r *reaper) start(path string, args []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		return 0, nil, &os.PathError{Op: "start", Path: path, Err: err}
	}
	ch := make(chan syscall.WaitStatus, 1)
	r.running[pid] = ch
	return pid, ch, nil
}

// begin and end enclose the time in which a podrun may leave a child behind.
func (r *reaper) begin() {
	r.mu.Lock()
	r.helpers++
	r.mu.Unlock()
}

func (r *reaper) end() {
	r.mu.Lock()
	if r.helpers--; r.helpers == 0 {
		clear(r.early)
	}
	r.mu.Unlock()
}

// claim returns where the end of a process will be told that podrun left behind.
func (r *reaper) claim(pid int) <-chan syscall.WaitStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan syscall.WaitStatus, 1)
	if ws, ok := r.early[pid]; ok {
		delete(r.early, pid)
		ch <- ws
		return ch
	}
	r.running[pid] = ch
	return ch
}

// kill signals a process that has not been waited for. It reports whether there was such a process.
func (r *reaper) kill(pid int, sig syscall.Signal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.running[pid]; !ok {
		return false
	}
	return syscall.Kill(pid, sig) == nil
}

// killGroup signals a process and the group that it leads.
func (r *reaper) killGroup(pid int, sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.running[pid]; ok {
		syscall.Kill(-pid, sig)
		syscall.Kill(pid, sig)
	}
}
