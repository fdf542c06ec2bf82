package chaos

import (
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// faultyDisk is the machine's disk with faults. Slow makes every sync take
// longer. When it is full, files cannot become larger, and what they have
// already can be written again.
type faultyDisk struct {
	raftlog.Disk
	slow atomic.Int64 // ns
	full atomic.Bool
}

type faultyFile struct {
	raftlog.File
	d *faultyDisk
}

// Open implements raftlog.FS.
func (d *faultyDisk) Open(name string, flag int) (raftlog.File, error) {
	f, err := d.Disk.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return faultyFile{f, d}, nil
}

// room refuses to make a file larger than it is.
func (f faultyFile) room(end int64) error {
	if !f.d.full.Load() {
		return nil
	}
	size, err := f.File.Size()
	if err != nil || end <= size {
		return err
	}
	return syscall.ENOSPC
}

// WriteAt implements raftlog.File.
func (f faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.room(at + int64(len(b))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

// Allocate implements raftlog.File.
func (f faultyFile) Allocate(size int64) error {
	if err := f.room(size); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

// Sync implements raftlog.File.
func (f faultyFile) Sync() error {
	time.Sleep(time.Duration(f.d.slow.Load())) // the fault itself
	return f.File.Sync()
}
