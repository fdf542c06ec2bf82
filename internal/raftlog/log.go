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
	// ErrFull says that there is no room on the disk. Nothing was written.
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

// NoRoom reports whether an error says that the disk is full.
func NoRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// full marks an error that says that the disk is full, and nothing was written.
func full(err error) error {
	if NoRoom(err) {
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
