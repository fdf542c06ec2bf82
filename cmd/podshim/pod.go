package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/shim"
)

// prepare makes what the pod's containers share. The UTS and IPC namespaces are
// this process's own already: noded started it in new ones.
func (s *server) prepare() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("become child subreaper: %w", errno)
	}
	me, err := shim.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := shim.WriteFile(shim.ProcessFile(s.pod.RunDir), me, false); err != nil {
		return err
	}
	if s.pod.Hostname != "" {
		if err := syscall.Sethostname([]byte(s.pod.Hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", s.pod.Hostname, err)
		}
	}
	shm := shim.ShmDir(s.pod.RunDir)
	if err := os.MkdirAll(shm, 0o755); err != nil {
		return err
	}
	opts := "mode=1777,size=" + strconv.FormatInt(s.pod.ShmSize, 10)
	if err := syscall.Mount("shm", shm, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, opts); err != nil {
		return fmt.Errorf("mount %s: %w", shm, err)
	}
	if err := s.setSysctls(); err != nil {
		return err
	}
	if s.pod.SharePID {
		return s.startPause()
	}
	return nil
}

const prSetChildSubreaper = 36

// setSysctls writes the pod's sysctls: those of the network from inside its
// network namespace, on a thread that ends with the goroutine.
func (s *server) setSysctls() error {
	if len(s.pod.Sysctls) == 0 {
		return nil
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if s.pod.NetNS != "" {
				ns, err := os.Open(s.pod.NetNS)
				if err != nil {
					return err
				}
				defer ns.Close()
				if _, _, errno := syscall.RawSyscall(sysSetns, ns.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
					return fmt.Errorf("enter network namespace %s: %w", s.pod.NetNS, errno)
				}
			}
			for name, value := range s.pod.Sysctls {
				path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
				if err := os.WriteFile(path, []byte(value), 0); err != nil {
					return fmt.Errorf("set sysctl %s to %q: %w", name, value, err)
				}
			}
			return nil
		}()
	}()
	return <-done
}

// pauseArg makes this program process 1 of a process namespace that the pod's
// containers share.
const pauseArg = "pause"

func (s *server) startPause() error {
	pid, ended, err := s.reaper.start("/proc/self/exe", []string{"podshim", pauseArg}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"},
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("start the pod's process 1: %w", err)
	}
	s.pause, s.pauseEnded = pid, ended
	return nil
}

// pause reaps what is orphaned in the pod, until it is killed.
func pause() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	child := make(chan os.Signal, 1)
	signal.Notify(child, syscall.SIGCHLD)
	for {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != syscall.EINTR && pid <= 0 {
				break
			}
		}
		<-child
	}
}

// cleanUp undoes prepare. Everything else of the pod is noded's to remove.
func (s *server) cleanUp() error {
	if s.pause > 0 {
		s.reaper.kill(s.pause, syscall.SIGKILL)
		select {
		case <-s.pauseEnded:
		case <-time.After(stopWithin):
		}
	}
	shm := shim.ShmDir(s.pod.RunDir)
	if err := syscall.Unmount(shm, mntDetach); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
		return fmt.Errorf("unmount %s: %w", shm, err)
	}
	return nil
}

const (
	mntDetach  = 2
	stopWithin = 10 * time.Second
)
