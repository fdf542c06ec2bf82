// Package netns makes, pins, enters and deletes network namespaces.
//
// A namespace lives as long as something holds it. Here that is a bind mount
// of it at a path, so it outlives this process and is known by that path
// alone. Everything is idempotent: Make of a namespace that is there keeps it,
// Delete of one that is gone, or half made, succeeds.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNS is the network namespace of the calling thread; /proc/self would
// be that of the process's first thread.
const threadNS = "/proc/thread-self/ns/net"

// Make makes a new, empty network namespace and pins it at path, whose folder
// is made if need be. A namespace that is pinned there already is kept and
// made is false; a plain file left there by a Make that was cut off, or by a
// reboot, is used.
func Make(path string) (made bool, err error) {
	return MakeWith(path, nil)
}

// MakeWith is Make, and calls inside within the new namespace before it is
// pinned, on a locked thread: what a killed Make leaves is never a pinned
// namespace that inside has not finished. inside must not start goroutines.
// It is not called when a namespace is pinned at path already.
func MakeWith(path string, inside func() error) (made bool, err error) {
	if ok, err := Pinned(path); err != nil || ok {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("make network namespace: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o444)
	if err != nil {
		return false, fmt.Errorf("make network namespace: %w", err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		if inside != nil {
			if err := inside(); err != nil {
				return err
			}
		}
		if err := unix.Mount(threadNS, path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin network namespace at %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return false, errors.Join(err, Delete(path))
	}
	return true, nil
}

// Pinned reports whether a namespace is pinned at path.
func Pinned(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, fmt.Errorf("look at network namespace %s: %w", path, err)
	}
	return st.Type == unix.NSFS_MAGIC, nil
}

// Do runs fn inside the network namespace at path, which may be a pin or a
// /proc/PID/ns/net; the empty path is the caller's own. fn runs on a locked
// thread and must not start goroutines: they would be elsewhere. Sockets that
// fn opens stay in that namespace and may be used anywhere afterwards.
func Do(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	target, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(target)
	return onThread(func() error {
		if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return fn()
	})
}

// Delete takes the pin at path away, and with it the namespace unless
// processes, sockets or other mounts hold it. What is not there is no error.
func Delete(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not, or no longer, a mount
		} else if err != nil {
			return fmt.Errorf("unpin network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete network namespace: %w", err)
	}
	return nil
}

// Same reports whether two paths name one network namespace; the empty path
// is the caller's own.
func Same(a, b string) (bool, error) {
	sa, err := identify(a)
	if err != nil {
		return false, err
	}
	sb, err := identify(b)
	return sa == sb, err
}

type identity struct{ dev, ino uint64 }

func identify(path string) (identity, error) {
	if path == "" {
		path = threadNS
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, fmt.Errorf("identify network namespace %s: %w", path, err)
	}
	return identity{st.Dev, st.Ino}, nil
}

// onThread runs fn, which may change the thread's network namespace, on a
// locked thread and moves the thread back. A thread that cannot be moved back
// is never given back to Go: it ends with its goroutine.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		back, err := unix.Open(threadNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer unix.Close(back)
		err = errors.New("function left its network namespace by Goexit") // as testing's FailNow does
		defer func() {
			if unix.Setns(back, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			done <- err
		}()
		err = fn()
	}()
	return <-done
}
