package diskfault

import (
	"io"
	"os"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// memFile is an open file of Mem.
type memFile struct {
	m      *Mem
	f      *inode
	life   int
	name   string
	closed bool
}

var _ raftlog.File = (*memFile)(nil)

func (f *memFile) usable() error {
	switch {
	case f.closed:
		return os.ErrClosed
	case f.m.cut || f.life != f.m.life:
		return ErrCut
	}
	return nil
}

// ReadAt implements raftlog.File.
func (f *memFile) ReadAt(b []byte, at int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable(); err != nil {
		return 0, err
	}
	if at > int64(len(f.f.now)) {
		return 0, io.EOF
	}
	n := copy(b, f.f.now[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements raftlog.File.
func (f *memFile) WriteAt(b []byte, at int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable(); err != nil {
		return 0, err
	}
	if err := f.grow(at + int64(len(b))); err != nil {
		return 0, err
	}
	if err := f.m.change(); err != nil {
		return 0, err
	}
	data := append([]byte{}, b...)
	f.f.now = write(f.f.now, data, at)
	f.f.pending = append(f.f.pending, dataChange{at, data})
	if f.m.cut {
		return 0, ErrCut
	}
	return len(b), nil
}

func (f *memFile) grow(size int64) error {
	if more := size - int64(len(f.f.now)); f.m.room > 0 && more > 0 && f.m.taken()+more > f.m.room {
		return &os.PathError{Op: "write", Path: f.name, Err: errNoSpace}
	}
	return nil
}

// Size implements raftlog.File.
func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.f.now)), f.usable()
}

// Truncate implements raftlog.File.
func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.truncate(size)
}

func (f *memFile) truncate(size int64) error {
	if err := f.usable(); err != nil {
		return err
	}
	if err := f.grow(size); err != nil {
		return err
	}
	if err := f.m.change(); err != nil {
		return err
	}
	f.f.now = resize(f.f.now, size)
	f.f.pending = append(f.f.pending, dataChange{off: size})
	return nil
}

// Allocate implements raftlog.File.
func (f *memFile) Allocate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if size <= int64(len(f.f.now)) {
		return f.usable()
	}
	return f.truncate(size)
}

// Sync implements raftlog.File.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable(); err != nil {
		return err
	}
	if err := f.m.change(); err != nil {
		return err
	}
	if f.m.cut {
		return ErrCut // on its way when the power went
	}
	f.f.sure = append(f.f.sure[:0], f.f.now...)
	f.f.pending = nil
	return nil
}

// Close implements raftlog.File.
func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	return nil
}
