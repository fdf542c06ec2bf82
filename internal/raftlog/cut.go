package raftlog

import (
	"fmt"
	"path/filepath"
)

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
// come back; on an error that is not ErrFull they may be gone when the log is
// opened again.
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
	if NoRoom(err) { // then it may not make room for itself first
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
