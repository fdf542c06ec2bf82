package diskfault

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// Faulty makes another disk slow, full or broken, at any moment.
type Faulty struct {
	under raftlog.FS
	delay atomic.Int64
	full  atomic.Bool
	syncs atomic.Int64

	mu     sync.Mutex
	broken error         // what a sync gives
	writes error         // what a write gives that was done
	awake  chan struct{} // closed when the delay changes
}

var _ raftlog.FS = (*Faulty)(nil)

// NewFaulty makes a disk without faults so far.
func NewFaulty(under raftlog.FS) *Faulty {
	return &Faulty{under: under, awake: make(chan struct{})}
}

// SetDelay makes each sync take so much longer. One that waits goes on when it
// is set again.
func (f *Faulty) SetDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay.Store(int64(d))
	close(f.awake)
	f.awake = make(chan struct{})
}

// SetFull says whether there is no room for anything more.
func (f *Faulty) SetFull(full bool) { f.full.Store(full) }

// SetBroken says what a sync fails with; nil mends it.
func (f *Faulty) SetBroken(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

// SetWrites says what a write fails with although all of it is written, as one
// may be whose process cannot know; nil mends it.
func (f *Faulty) SetWrites(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes = err
}

// Syncs is how many syncs there were.
func (f *Faulty) Syncs() int64 { return f.syncs.Load() }

// sync waits as long as it takes and reports the fault there is.
func (f *Faulty) sync() error {
	f.syncs.Add(1)
	f.mu.Lock()
	awake, err := f.awake, f.broken
	f.mu.Unlock()
	if d := time.Duration(f.delay.Load()); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-awake:
		}
	}
	return err
}

func (f *Faulty) noRoom(op, name string) error {
	if f.full.Load() {
		return &os.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
	}
	return nil
}

// Open implements raftlog.FS.
func (f *Faulty) Open(name string, flag int) (raftlog.File, error) {
	file, err := f.under.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: file, f: f, name: name}, nil
}

// Rename implements raftlog.FS.
func (f *Faulty) Rename(from, to string) error { return f.under.Rename(from, to) }

// Remove implements raftlog.FS.
func (f *Faulty) Remove(name string) error { return f.under.Remove(name) }

// MkdirAll implements raftlog.FS.
func (f *Faulty) MkdirAll(name string) error { return f.under.MkdirAll(name) }

// ReadDir implements raftlog.FS.
func (f *Faulty) ReadDir(name string) ([]string, error) { return f.under.ReadDir(name) }

// SyncDir implements raftlog.FS.
func (f *Faulty) SyncDir(name string) error {
	return errors.Join(f.sync(), f.under.SyncDir(name))
}

// Lock implements raftlog.FS.
func (f *Faulty) Lock(name string) (io.Closer, error) { return f.under.Lock(name) }

type faultyFile struct {
	raftlog.File
	f    *Faulty
	name string
}

// Allocate implements raftlog.File.
func (f *faultyFile) Allocate(size int64) error {
	if now, err := f.Size(); err != nil || now >= size {
		return errors.Join(err, f.File.Allocate(size))
	}
	if err := f.f.noRoom("fallocate", f.name); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

// WriteAt implements raftlog.File.
func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if now, err := f.Size(); err == nil && at+int64(len(b)) > now {
		if err := f.f.noRoom("write", f.name); err != nil {
			return 0, err
		}
	}
	n, err := f.File.WriteAt(b, at)
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if err == nil && f.f.writes != nil {
		return 0, &os.PathError{Op: "write", Path: f.name, Err: f.f.writes}
	}
	return n, err
}

// Sync implements raftlog.File.
func (f *faultyFile) Sync() error {
	if err := f.f.sync(); err != nil {
		return err
	}
	return f.File.Sync()
}
