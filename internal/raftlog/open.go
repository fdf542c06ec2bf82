package raftlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Found says what there was when a log was opened.
type Found struct {
	// Cut is set if something was being written when the process or the machine
	// stopped and is not whole: how the log ends is said in it.
	Cut string
	// Entries and Bytes are what is in the log.
	Entries, Bytes uint64
}

// Open opens the log in a directory, or makes an empty one. All of it is read:
// damage shows now, not when an entry is needed.
func Open(fs FS, dir string, options Options) (*Log, Found, error) {
	if options.SegmentBytes == 0 {
		options.SegmentBytes = 8 << 20
	}
	l := &Log{fs: fs, dir: dir, options: options}
	found, err := l.open()
	if err != nil {
		return nil, found, errors.Join(fmt.Errorf("log in %s: %w", dir, err), l.release())
	}
	return l, found, nil
}

func (l *Log) open() (found Found, err error) {
	fs, dir := l.fs, l.dir
	if err = fs.MkdirAll(dir); err != nil {
		return found, err
	}
	if err = fs.SyncDir(filepath.Dir(dir)); err != nil {
		return found, err
	}
	if l.lock, err = fs.Lock(dir); err != nil {
		return found, err
	}
	seqs, err := l.list()
	if err != nil {
		return found, err
	}
	// The names that a killed process left are seen, and must stay so.
	if err = fs.SyncDir(dir); err != nil {
		return found, err
	}
	for _, seq := range seqs {
		s, err := openSegment(fs, dir, segmentName(seq), seq)
		if err != nil {
			return found, err
		}
		l.segments = append(l.segments, s)
	}
	if l.options.Must && len(l.segments) == 0 {
		return found, fmt.Errorf("%w: its segments are gone", ErrDamaged)
	}
	torn, err := l.replay(&found)
	if err != nil {
		return found, err
	}
	if len(l.segments) == 0 {
		return found, l.rotate(0)
	}
	// What a process that was killed had written is in the log now, and must
	// stay there.
	now := l.current()
	if err = now.file.Sync(); err != nil {
		return found, err
	}
	if torn {
		found.Cut = fmt.Sprintf("%s was cut off at byte %d, behind entry %d", now.name, now.end, l.last)
		l.dirty = true
		if err = l.rotate(0); errors.Is(err, ErrFull) {
			err = nil // it can be read, and written when there is room
		}
		return found, err
	}
	return found, nil
}

// list gives the segments there are, and removes what was never one.
func (l *Log) list() (seqs []uint64, err error) {
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		seq, ok := segmentSeq(name)
		switch {
		case ok && len(seqs) > 0 && seq != seqs[len(seqs)-1]+1:
			return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, segmentName(seqs[len(seqs)-1]+1))
		case ok:
			seqs = append(seqs, seq)
		case name == spare || name == fresh:
			if err := l.fs.Remove(filepath.Join(l.dir, name)); err != nil {
				return nil, err
			}
		}
	}
	return seqs, nil
}

// replay reads all segments. It reports whether the last one ends torn.
func (l *Log) replay(found *Found) (torn bool, err error) {
	for i, s := range l.segments {
		if i > 0 && s.follows != 0 && l.last != 0 && s.follows != l.last+1 {
			return false, fmt.Errorf("%s: %w: it follows entry %d, but the log goes up to %d", s.name, ErrDamaged, s.follows-1, l.last)
		}
		limit := int64(-1)
		if i+1 < len(l.segments) {
			limit = l.segments[i+1].before
		}
		torn, err = s.scan(&l.buffer, limit, func(at int64, r record) error { return l.replayed(s, at, r) })
		if err != nil {
			return false, err
		}
	}
	l.buffer = nil
	for _, s := range l.segments {
		from := max(s.base, l.first)
		if at, _, ok := s.find(from); ok {
			found.Entries += s.next() - from
			found.Bytes += uint64(s.end - at)
		}
	}
	return torn, nil
}

func (l *Log) replayed(s *segment, at int64, r record) error {
	i := r.entry.Index
	switch r.kind {
	case kindEntry:
		if l.last != 0 && i != l.last+1 || i == 0 {
			return fmt.Errorf("%w: entry %d stands behind entry %d", ErrDamaged, i, l.last)
		}
		if l.last == 0 {
			l.first = i
		}
		l.last = i
		s.add(i, at)
	case kindCut:
		l.cutMemory(i)
	case kindFront:
		if l.last != 0 && i <= l.last {
			l.first = max(l.first, i)
		}
	}
	return nil
}

// rotate begins a new segment that has room for so many bytes of records.
func (l *Log) rotate(need int64) (err error) {
	h := head{seq: 1}
	if err := binary.Read(rand.Reader, binary.LittleEndian, &h.mark); err != nil {
		return err
	}
	h.mark |= 1 // never zero
	var old *segment
	if len(l.segments) > 0 {
		old = l.current()
		if old.end > old.synced {
			if err := old.file.Sync(); err != nil {
				return err
			}
			l.setSynced(old, old.end)
		}
		h.seq, h.before = old.seq+1, old.end
		if l.last != 0 {
			h.follows = l.last + 1
		}
	}
	h.room = max(l.options.SegmentBytes, headBytes+need)
	s, err := l.newSegment(h)
	if err != nil {
		err = full(err)
		l.full.Store(errors.Is(err, ErrFull))
		return err
	}
	l.mu.Lock()
	l.segments = append(l.segments, s)
	l.mu.Unlock()
	l.dirty = false
	if old != nil && old.room > old.end {
		// What was not used goes back. If this is lost or fails, nothing is: all
		// behind old.end is ignored.
		_ = old.file.Truncate(old.end)
	}
	return nil
}

// newSegment makes a segment that is there, whole, after a power cut.
func (l *Log) newSegment(h head) (s *segment, err error) {
	f := l.spare
	l.spare = nil
	from := filepath.Join(l.dir, spare)
	if f == nil {
		from = filepath.Join(l.dir, fresh)
		if f, err = l.fs.Open(from, os.O_CREATE|os.O_TRUNC); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), l.fs.Remove(from))
		}
	}()
	if err = f.Allocate(h.room); err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(h.encode(), 0); err != nil {
		return nil, err
	}
	if err = f.Sync(); err != nil {
		return nil, err
	}
	// From here on a segment may be there that says where this one ends, so
	// that nothing may be put behind that.
	l.dirty = true
	name := segmentName(h.seq)
	if err = l.fs.Rename(from, filepath.Join(l.dir, name)); err != nil {
		return nil, err
	}
	if err = l.fs.SyncDir(l.dir); err != nil {
		from = filepath.Join(l.dir, name)
		return nil, err
	}
	return &segment{head: h, name: name, file: f, end: headBytes, synced: headBytes}, nil
}

// makeSpare gets room for the next segment, so that a full disk shows while
// there is still some in this one.
func (l *Log) makeSpare() (err error) {
	if l.spare != nil {
		return nil
	}
	name := filepath.Join(l.dir, spare)
	f, err := l.fs.Open(name, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return full(err)
	}
	if err := f.Allocate(l.options.SegmentBytes); err != nil {
		return full(errors.Join(err, f.Close(), l.fs.Remove(name)))
	}
	l.spare = f
	return nil
}
