package testkit

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// NetNS is a network namespace that a test made. It is known by its path and
// goes with the test.
type NetNS struct {
	// Path is a bind mount in the test's temporary folder.
	Path string
}

// ScratchNetNS makes an empty network namespace with its lo up. The test skips
// when it is not root.
func ScratchNetNS(t testing.TB) NetNS {
	t.Helper()
	NeedsRoot(t)
	n := NetNS{Path: filepath.Join(t.TempDir(), "netns")}
	if err := pin(n.Path); err != nil {
		t.Fatalf("make scratch network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(n.Path, unix.MNT_DETACH); err != nil {
			t.Errorf("remove scratch network namespace: %v", err)
		}
	})
	if err := n.Do(loUp); err != nil {
		t.Fatalf("set lo up: %v", err)
	}
	return n
}

// Do runs fn inside the namespace on a locked thread. fn must not start
// goroutines and must not end the test; sockets it opens stay in the namespace
// and may be used anywhere afterwards.
func (n NetNS) Do(fn func() error) error {
	return onThread(func() error {
		fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", n.Path, err)
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", n.Path, err)
		}
		return fn()
	})
}

func pin(path string) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return err
	}
	unix.Close(fd)
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	})
}

// onThread runs fn on a thread that is never used again: it ends with the
// goroutine, so fn may leave it in any namespace.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

func loUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
