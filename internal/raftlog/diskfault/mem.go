// Package diskfault is disks for tests: one in memory whose power can be cut at
// any moment, and one that makes a real disk slow, full or broken.
package diskfault

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"syscall"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// ErrCut is what everything gives once the power is cut.
var ErrCut = errors.New("the power is cut")

// sector is what a disk writes as a whole.
const sector = 512

// Mem is a disk in memory. What is written and not synced is lost at a power
// cut, or some of it: any of its sectors may be there or not, and of the names
// that were made, changed or removed in a directory any may be. (A rename is
// seen as a whole or not at all.)
type Mem struct {
	mu     sync.Mutex
	random *rand.Rand
	dirs   map[string]*memDir
	locks  map[string]bool
	// left is how many more changes are made before the power is cut; below
	// zero there is no such moment.
	left int
	cut  bool
	room int64 // how many bytes the files may take; 0 is no bound
	life int   // goes up with each restart, so that old files are of no use
}

// memDir is a directory: its names, and those that are sure.
type memDir struct {
	names, sure map[string]*inode
	pending     []nameChange
}

// nameChange makes a name stand for a file (nil: for none), and takes another
// name away.
type nameChange struct {
	name, gone string
	file       *inode
}

type inode struct {
	now, sure []byte
	pending   []dataChange
}

// dataChange writes data at off, or sets the size if data is nil.
type dataChange struct {
	off  int64
	data []byte
}

var _ raftlog.FS = (*Mem)(nil)

// NewMem makes an empty disk. What a power cut leaves depends on random alone.
func NewMem(random *rand.Rand) *Mem {
	return &Mem{random: random, dirs: map[string]*memDir{}, locks: map[string]bool{}, left: -1}
}

// CutAfter cuts the power after so many more changes to the disk. The last of
// them may be done in part.
func (m *Mem) CutAfter(changes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = changes
}

// SetRoom bounds how many bytes the files may take; 0 is no bound.
func (m *Mem) SetRoom(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.room = bytes
}

// Cut reports whether the power is cut.
func (m *Mem) Cut() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut
}

// Kill ends the processes that use the disk: their files are closed, and what
// they wrote is there, but not sure until it is synced.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
}

func (m *Mem) begin() {
	m.life++
	m.cut, m.left = false, -1
	clear(m.locks)
}

// Restart turns the power off, if it is not, and on again. All files are
// closed, and what was not synced is lost, or some of it.
func (m *Mem) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
	paths := make([]string, 0, len(m.dirs))
	for path := range m.dirs {
		paths = append(paths, path)
	}
	sort.Strings(paths) // in an order that depends on random alone
	seen := map[*inode]bool{}
	for _, path := range paths {
		d := m.dirs[path]
		for _, c := range d.pending {
			if m.random.IntN(2) == 0 {
				c.apply(d.sure)
			}
		}
		d.pending = nil
		d.names = map[string]*inode{}
		names := make([]string, 0, len(d.sure))
		for name := range d.sure {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			f := d.sure[name]
			d.names[name] = f
			if !seen[f] {
				seen[f] = true
				f.lose(m.random)
			}
		}
	}
}

func (c nameChange) apply(names map[string]*inode) {
	if c.gone != "" {
		delete(names, c.gone)
	}
	if c.name != "" {
		names[c.name] = c.file
	}
}

// lose leaves some of what was not synced. Sometimes it is nothing or all.
func (f *inode) lose(random *rand.Rand) {
	keep := []int{0, 10, 50, 90, 100}[random.IntN(5)] // of a hundred sectors
	for _, c := range f.pending {
		if c.data == nil {
			if random.IntN(100) < keep {
				f.sure = resize(f.sure, c.off)
			}
			continue
		}
		for at := c.off; at < c.off+int64(len(c.data)); {
			until := min(at-at%sector+sector, c.off+int64(len(c.data)))
			if random.IntN(100) < keep {
				f.sure = write(f.sure, c.data[at-c.off:until-c.off], at)
			}
			at = until
		}
	}
	f.pending = nil
	f.now = append([]byte(nil), f.sure...)
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func write(b, data []byte, at int64) []byte {
	if end := at + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[at:], data)
	return b
}

// change says whether one more change may be made.
func (m *Mem) change() error {
	if m.cut {
		return ErrCut
	}
	if m.left == 0 {
		m.cut = true
	} else if m.left > 0 {
		m.left--
	}
	return nil
}

// dir gives a directory that is there.
func (m *Mem) dir(path string) (*memDir, error) {
	if m.cut {
		return nil, ErrCut
	}
	d := m.dirs[path]
	if d == nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	}
	return d, nil
}

func (d *memDir) do(c nameChange) {
	c.apply(d.names)
	d.pending = append(d.pending, c)
}

// Open implements raftlog.FS.
func (m *Mem) Open(name string, flag int) (raftlog.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	f := d.names[filepath.Base(name)]
	switch {
	case f == nil && flag&os.O_CREATE == 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	case f != nil && flag&os.O_EXCL != 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrExist}
	case f == nil:
		if err := m.change(); err != nil {
			return nil, err
		}
		f = &inode{}
		d.do(nameChange{name: filepath.Base(name), file: f})
	}
	file := &memFile{m: m, f: f, life: m.life, name: name}
	if flag&os.O_TRUNC != 0 && len(f.now) > 0 {
		return file, file.truncate(0)
	}
	return file, nil
}

// Rename implements raftlog.FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(filepath.Dir(from))
	if err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return errors.New("this disk renames within a directory only")
	}
	f := d.names[filepath.Base(from)]
	if f == nil {
		return &os.PathError{Op: "rename", Path: from, Err: os.ErrNotExist}
	}
	if err := m.change(); err != nil {
		return err
	}
	d.do(nameChange{name: filepath.Base(to), gone: filepath.Base(from), file: f})
	return nil
}

// Remove implements raftlog.FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(filepath.Dir(name))
	if err != nil {
		return err
	}
	if d.names[filepath.Base(name)] == nil {
		return &os.PathError{Op: "remove", Path: name, Err: os.ErrNotExist}
	}
	if err := m.change(); err != nil {
		return err
	}
	d.do(nameChange{gone: filepath.Base(name)})
	return nil
}

// MkdirAll implements raftlog.FS. Directories are sure at once.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return ErrCut
	}
	for ; m.dirs[name] == nil; name = filepath.Dir(name) {
		m.dirs[name] = &memDir{names: map[string]*inode{}, sure: map[string]*inode{}}
	}
	return nil
}

// ReadDir implements raftlog.FS.
func (m *Mem) ReadDir(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(name)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for n := range d.names {
		names = append(names, n)
	}
	sort.Strings(names)
	return names, nil
}

// SyncDir implements raftlog.FS.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(name)
	if err != nil {
		return err
	}
	if err := m.change(); err != nil {
		return err
	}
	if m.cut {
		return ErrCut // on its way when the power went
	}
	for _, c := range d.pending {
		c.apply(d.sure)
	}
	d.pending = nil
	return nil
}

// Lock implements raftlog.FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, fmt.Errorf("%s: %w", name, raftlog.ErrLocked)
	}
	m.locks[name] = true
	return memLock{m, name, m.life}, nil
}

type memLock struct {
	m    *Mem
	name string
	life int
}

// Close implements io.Closer.
func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.life == l.life {
		delete(l.m.locks, l.name)
	}
	return nil
}

// Damage changes a byte of a file for good.
func (m *Mem) Damage(name string, at int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(filepath.Dir(name))
	if err != nil {
		return err
	}
	f := d.names[filepath.Base(name)]
	if f == nil || at >= int64(len(f.now)) {
		return fmt.Errorf("%s has no byte %d", name, at)
	}
	f.now[at] ^= 0x55
	f.sure = append([]byte(nil), f.now...)
	return nil
}

// taken is how many bytes the files have.
func (m *Mem) taken() (sum int64) {
	for _, d := range m.dirs {
		for _, f := range d.names {
			sum += int64(len(f.now))
		}
	}
	return sum
}

var errNoSpace error = syscall.ENOSPC
