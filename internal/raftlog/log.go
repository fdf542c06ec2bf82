package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
)

// Entry is one entry of the log.
type Entry struct {
	Index, Term uint64
	Type        uint8
	Data        []byte
}

var (
	// ErrNotFound says that the log does not have an entry.
	ErrNotFound = errors.New("not in the log")
	// ErrDamaged says that something which was synced is not whole any more.
	ErrDamaged = errors.New("the log is damaged")
	// ErrNewer says that a newer version wrote the log.
	ErrNewer = errors.New("the log was written by a newer version")
	// ErrGap says that an entry does not follow the last one.
	ErrGap = errors.New("the entry does not follow the last one")
	// ErrClosed says that the log has been closed.
	ErrClosed = errors.New("the log is closed")
	// ErrFull says that there is no room on the disk. Nothing was appended.
	ErrFull = errors.New("no room on the disk for the log")
)

// Options tune a log; zero fields have defaults.
type Options struct {
	// SegmentBytes is the size of a segment: 8 MiB. It is larger for a batch
	// that would not fit.
	SegmentBytes int64
	// Must says that there is a log, so that one whose files are gone is not
	// taken for a new one.
	Must bool
}

// Log is an open log. Entries may be read while others are written. Each is
// where it is for life; in memory there are four bytes for it.
type Log struct {
	fs      FS
	dir     string
	options Options
	lock    io.Closer

	// removing is held by whoever removes segments, before writing.
	removing sync.Mutex
	// writing is held by whoever changes the log: one at a time.
	writing sync.Mutex
	buffer  []byte
	spare   File // room for the next segment
	// dirty says that there may be something behind the end of the current
	// segment; then it is not gone on with.
	dirty  bool
	broken error
	closed bool
	full   atomic.Bool

	// syncing is held by whoever syncs what Write has written.
	syncing sync.Mutex

	mu          sync.RWMutex // guards what follows, and no disk but for reads
	segments    []*segment
	first, last uint64 // 0 when there are no entries
}

// full marks an error that says that the disk is full.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func (l *Log) current() *segment { return l.segments[len(l.segments)-1] }

// First is the index of the first entry, 0 if there is none.
func (l *Log) First() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first
}

// Last is the index of the last entry, 0 if there is none.
func (l *Log) Last() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last
}

// Full reports whether there is no room for the next segment. What fits into
// the one in use can still be appended.
func (l *Log) Full() bool { return l.full.Load() }

// Get reads an entry.
func (l *Log) Get(index uint64) (Entry, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if index < l.first || index > l.last || index == 0 {
		return Entry{}, fmt.Errorf("entry %d: %w", index, ErrNotFound)
	}
	for i := len(l.segments) - 1; i >= 0; i-- {
		s := l.segments[i]
		at, until, ok := s.find(index)
		if !ok {
			continue
		}
		b := make([]byte, until-at)
		if _, err := s.file.ReadAt(b, at); err != nil {
			return Entry{}, fmt.Errorf("read entry %d: %w", index, err)
		}
		r, ok := readRecord(b, s.mark)
		if !ok || r.entry.Index != index || r.kind != kindEntry {
			return Entry{}, fmt.Errorf("%s: %w: entry %d at byte %d is not whole", s.name, ErrDamaged, index, at)
		}
		return r.entry, nil
	}
	return Entry{}, fmt.Errorf("entry %d: %w", index, ErrNotFound)
}

// Append adds entries, which must follow the last one, or may begin anywhere
// if there is none. When it returns nil they survive a power cut; on an error
// the log is as it was.
func (l *Log) Append(entries []Entry) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	before := l.Last()
	if err := l.write(entries); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		// Whether it is on the disk nobody knows. It is given up, and with it
		// all of this segment behind what was synced.
		l.takeBack(before)
		return fmt.Errorf("sync the log: %w", err)
	}
	return nil
}

// Write adds entries as Append does, but they survive a power cut only when
// Sync has been called.
func (l *Log) Write(entries []Entry) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.write(entries)
}

// Sync makes all entries that were written before the call survive a power
// cut. If it fails, the log takes no more entries: what is on the disk is not
// known any more.
func (l *Log) Sync() error {
	err := l.sync()
	if err == nil {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.broken == nil {
		l.broken = fmt.Errorf("sync the log: %w", err)
	}
	return l.broken
}

func (l *Log) sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.RLock()
	s, end := l.current(), l.current().end
	done := s.synced >= end
	l.mu.RUnlock()
	if done {
		return nil
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	l.setSynced(s, end)
	return nil
}

func (l *Log) setSynced(s *segment, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.synced = max(s.synced, end)
}

func (l *Log) check() error {
	if l.closed {
		return ErrClosed
	}
	return l.broken
}

// write puts entries behind the last one.
func (l *Log) write(entries []Entry) error {
	if err := l.check(); err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	next := l.Last() + 1
	if next == 1 {
		next = entries[0].Index
	}
	need := int64(0)
	for _, e := range entries {
		if e.Index != next || e.Index == 0 {
			return fmt.Errorf("entry %d behind entry %d: %w", e.Index, next-1, ErrGap)
		}
		next++
		need += recordSize(len(e.Data))
	}
	return l.put(need, func(s *segment, synced uint32) {
		for _, e := range entries {
			l.buffer = appendRecord(l.buffer, s.mark, synced, kindEntry, e)
		}
	}, func(s *segment, at int64) {
		for _, e := range entries {
			if l.last == 0 {
				l.first = e.Index
			}
			l.last = e.Index
			s.add(e.Index, at)
			at += recordSize(len(e.Data))
		}
	})
}

// maxBuffer is how much memory is kept for the next batch.
const maxBuffer = 1 << 20

// put writes records into the current segment or a new one, and then notes
// them under the lock.
func (l *Log) put(need int64, encode func(*segment, uint32), note func(*segment, int64)) error {
	s := l.current()
	if l.dirty || s.end+need > s.room {
		if err := l.rotate(need); err != nil {
			return fmt.Errorf("begin a segment of the log: %w", err)
		}
		s = l.current()
	}
	l.mu.RLock()
	at, synced := s.end, s.synced
	l.mu.RUnlock()
	l.buffer = l.buffer[:0]
	encode(s, uint32(synced))
	_, err := s.file.WriteAt(l.buffer, at)
	if cap(l.buffer) > maxBuffer {
		l.buffer = nil
	}
	if err != nil {
		l.dirty = true
		return full(fmt.Errorf("write to the log: %w", err))
	}
	l.mu.Lock()
	note(s, at)
	s.end = at + need
	l.mu.Unlock()
	if s.end > s.room/2 {
		l.prepare()
	}
	return nil
}

// prepare gets room for the next segment; if there is none, that is known.
func (l *Log) prepare() {
	l.full.Store(errors.Is(l.makeSpare(), ErrFull))
}

// Prepare looks again whether there is room for the next segment.
func (l *Log) Prepare() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.check() == nil && l.full.Load() {
		l.prepare()
	}
}

// takeBack forgets what a failed sync leaves open.
func (l *Log) takeBack(last uint64) {
	l.dirty = true
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.current()
	l.cutMemory(last + 1)
	s.end = s.synced
}

// cutMemory forgets the entries from index on.
func (l *Log) cutMemory(index uint64) {
	if index <= l.first {
		index = 0 // those before are no entries any more
		l.first, l.last = 0, 0
	} else {
		l.last = min(l.last, index-1)
	}
	for _, s := range l.segments {
		s.cut(index)
	}
}

// CutBack removes the entries from index on. When it returns nil they do not
// come back.
func (l *Log) CutBack(index uint64) error {
	l.removing.Lock()
	defer l.removing.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.cutBack(index)
}

func (l *Log) cutBack(index uint64) error {
	if err := l.check(); err != nil {
		return err
	}
	if l.Last() < index || l.Last() == 0 {
		return nil
	}
	err := l.put(recordSize(0), func(s *segment, synced uint32) {
		l.buffer = appendRecord(l.buffer, s.mark, synced, kindCut, Entry{Index: index})
	}, func(*segment, int64) { l.cutMemory(index) })
	if err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		// They are gone from memory, and perhaps not from the disk.
		l.broken = fmt.Errorf("cut the log: %w", err)
		return l.broken
	}
	if l.First() == 0 {
		return l.removeFront()
	}
	return nil
}

// CutFront removes the entries up to index. The room that they take is given
// back a whole segment at a time. After a power cut some may be back.
func (l *Log) CutFront(index uint64) error {
	l.removing.Lock()
	defer l.removing.Unlock()
	if all, err := l.forgetFront(index); all || err != nil {
		return err
	}
	return l.removeFront() // others may append meanwhile
}

func (l *Log) forgetFront(index uint64) (all bool, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.check(); err != nil {
		return false, err
	}
	if index >= l.Last() {
		// The log may go on anywhere, which must be known when it is opened
		// again.
		return true, l.cutBack(l.First())
	}
	if index < l.First() {
		return false, nil
	}
	err = l.put(recordSize(0), func(s *segment, synced uint32) {
		l.buffer = appendRecord(l.buffer, s.mark, synced, kindFront, Entry{Index: index + 1})
	}, func(*segment, int64) { l.first = index + 1 })
	if errors.Is(err, ErrFull) { // then it may not make room for itself first
		l.mu.Lock()
		l.first = index + 1
		l.mu.Unlock()
		err = nil
	}
	return false, err
}

// removeFront removes segments without entries, oldest first: one after the
// other, so that after a power cut none is missing between others.
func (l *Log) removeFront() error {
	for {
		l.mu.RLock()
		s := l.segments[0]
		keep := len(l.segments) == 1 || len(s.offs) > 0 && s.next() > l.first
		l.mu.RUnlock()
		if keep {
			return nil
		}
		if err := l.fs.Remove(filepath.Join(l.dir, s.name)); err != nil {
			return fmt.Errorf("remove a segment of the log: %w", err)
		}
		if err := l.fs.SyncDir(l.dir); err != nil {
			return fmt.Errorf("remove a segment of the log: %w", err)
		}
		l.syncing.Lock() // it may be being synced
		l.mu.Lock()
		l.segments = l.segments[1:]
		err := s.file.Close()
		l.mu.Unlock()
		l.syncing.Unlock()
		if err != nil {
			return err
		}
	}
}

// Close syncs what has been written and lets go of the files.
func (l *Log) Close() error {
	l.removing.Lock()
	defer l.removing.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.closed {
		return nil
	}
	var err error
	if l.broken == nil {
		if err = l.sync(); err == nil {
			err = l.closeRecord()
		}
	}
	l.closed = true
	return errors.Join(err, l.release())
}

// closeRecord says that all before it was synced, so that damage there shows.
func (l *Log) closeRecord() error {
	s := l.current()
	if l.dirty || s.end+recordSize(0) > s.room || s.end == headBytes {
		return nil // it would need a segment of its own
	}
	err := l.put(recordSize(0), func(s *segment, synced uint32) {
		l.buffer = appendRecord(l.buffer, s.mark, synced, kindClosed, Entry{})
	}, func(*segment, int64) {})
	if err != nil {
		return err
	}
	return l.sync()
}

// release closes all files.
func (l *Log) release() error {
	var err error
	for _, s := range l.segments {
		err = errors.Join(err, s.file.Close())
	}
	if l.spare != nil {
		err = errors.Join(err, l.spare.Close(), l.fs.Remove(filepath.Join(l.dir, spare)))
		l.spare = nil
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}
