package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockAll keeps every other command away from the testbed. Its file lies
// beside the testbed's directory, so that it outlives the directory.
func (t *Testbed) lockAll(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(t.dir), 0o755); err != nil {
		return nil, err
	}
	return t.lock(ctx, t.lockFile(), unix.LOCK_EX)
}

// lockHost keeps others away from one host; different hosts may be worked on
// at once.
func (t *Testbed) lockHost(ctx context.Context, host string) (unlock func(), err error) {
	shared, err := t.lock(ctx, t.lockFile(), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	own, err := t.lock(ctx, t.hostPath(host, "lock"), unix.LOCK_EX)
	if err != nil {
		shared()
		return nil, err
	}
	return func() { own(); shared() }, nil
}

func (t *Testbed) lockFile() string {
	return filepath.Join(filepath.Dir(t.dir), "."+t.name+".lock")
}

// lock takes a flock, which ends with the process however that ends. It waits
// until ctx ends.
func (t *Testbed) lock(ctx context.Context, path string, how int) (func(), error) {
	told := false
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil && sameFile(f, path) {
			if how == unix.LOCK_EX {
				f.Truncate(0)
				f.WriteAt(fmt.Appendf(nil, "pid %d (%s)", os.Getpid(), strings.Join(os.Args, " ")), 0)
			}
			return func() { f.Close() }, nil
		}
		holder, _ := os.ReadFile(path)
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			t.progress(fmt.Sprintf("waiting for another command on testbed %s: %s", t.name, holder))
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("testbed %s is in use by another command: %s: %w", t.name, holder, ctx.Err())
		case <-time.After(20 * time.Millisecond): // flock cannot be awaited with a deadline
		}
	}
}

// sameFile reports whether path still names f: Down removes lock files.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
