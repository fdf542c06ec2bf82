package raftlog

import (
	"errors"
	"fmt"
)

// Write adds entries, which must follow the last one, or may begin anywhere if
// there is none. They survive a power cut when Sync has been called. On an error
// the log is as it was; unless it is ErrFull or ErrGap, though, they may be there
// when it is opened again.
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
		// Whole records may be on the disk. They count when the log is opened
		// again, unless a segment has been begun by then.
		l.dirty = true
		if NoRoom(err) {
			l.prepare()
		}
		return fmt.Errorf("write to the log: %w", err)
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
