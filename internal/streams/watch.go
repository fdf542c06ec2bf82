package streams

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// watch waits for changes of a file, or of which file has a name (inotify(7)).
type watch struct {
	f       *os.File
	changed chan struct{}
	group   sync.WaitGroup
}

func newWatch(path string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s (see fs.inotify.max_user_instances): %w", path, err)
	}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", filepath.Dir(path), err), unix.Close(fd))
	}
	w := &watch{f: os.NewFile(uintptr(fd), "inotify"), changed: make(chan struct{}, 1)}
	w.group.Go(w.read)
	return w, nil
}

// read turns events into one waiting signal, until close.
func (w *watch) read() {
	buf := make([]byte, 4096)
	for {
		if _, err := w.f.Read(buf); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// wait returns after a change, or when the container has ended (over).
func (w *watch) wait(ctx context.Context, ended <-chan struct{}) (over bool, err error) {
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-w.changed:
		return false, nil
	case <-ended:
		return true, nil
	}
}

func (w *watch) close() {
	_ = w.f.Close() // nothing was written
	w.group.Wait()
}
