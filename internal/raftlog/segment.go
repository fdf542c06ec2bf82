package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
)

// segment is one file of the log: a head, and records one after the other.
type segment struct {
	head
	name string
	file File

	size int64    // as it was found
	base uint64   // index of the first of offs
	offs []uint32 // where each entry begins
	// end is where the next record goes, synced how much is sure to survive.
	end, synced int64
}

// head is a segment's first bytes.
type head struct {
	seq uint64
	// mark is in each of the segment's records. It is new for every segment, so
	// that nothing else is taken for a record.
	mark uint32
	// follows is the index that the first entry must have, 0 if any will do.
	follows uint64
	// before is where the segment before this one ends. All of it was synced
	// before this one was made.
	before int64
	// room is the size that it was given, and has until the next one follows.
	room int64
}

const (
	// format goes up when the segments change.
	format    = 1
	headBytes = 64
	magic     = "wherlog\n"
	suffix    = ".seg"
	spare     = "spare.tmp"
	fresh     = "fresh.tmp"
)

func (h head) encode() []byte {
	b := append(make([]byte, 0, headBytes), magic...)
	b = binary.LittleEndian.AppendUint32(b, format)
	b = binary.LittleEndian.AppendUint32(b, h.mark)
	b = binary.LittleEndian.AppendUint64(b, h.seq)
	b = binary.LittleEndian.AppendUint64(b, h.follows)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.before))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.room))
	b = append(b, make([]byte, headBytes-4-len(b))...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHead(b []byte) (h head, err error) {
	if len(b) < headBytes || string(b[:len(magic)]) != magic {
		return h, fmt.Errorf("%w: it does not begin as a segment does", ErrDamaged)
	}
	if f := binary.LittleEndian.Uint32(b[8:]); f > format {
		return h, fmt.Errorf("%w: format %d, this version knows up to %d", ErrNewer, f, format)
	}
	if binary.LittleEndian.Uint32(b[headBytes-4:]) != crc32.Checksum(b[:headBytes-4], castagnoli) {
		return h, fmt.Errorf("%w: the checksum of its head is wrong", ErrDamaged)
	}
	return head{
		mark: binary.LittleEndian.Uint32(b[12:]), seq: binary.LittleEndian.Uint64(b[16:]),
		follows: binary.LittleEndian.Uint64(b[24:]), before: int64(binary.LittleEndian.Uint64(b[32:])),
		room: int64(binary.LittleEndian.Uint64(b[40:])),
	}, nil
}

func segmentName(seq uint64) string { return fmt.Sprintf("%016x%s", seq, suffix) }

func segmentSeq(name string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(hex, 16, 64)
	return seq, err == nil
}

// openSegment opens a file and reads its head.
func openSegment(fs FS, dir, name string, seq uint64) (s *segment, err error) {
	f, err := fs.Open(filepath.Join(dir, name), 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
		}
	}()
	b := make([]byte, headBytes)
	s = &segment{name: name, file: f}
	if s.size, err = f.Size(); err != nil {
		return nil, err
	}
	if s.size < headBytes {
		return nil, fmt.Errorf("%w: it has %d bytes, not even a head", ErrDamaged, s.size)
	}
	if _, err = f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	if s.head, err = decodeHead(b); err != nil {
		return nil, err
	}
	if s.seq != seq {
		return nil, fmt.Errorf("%w: it says that it is %s", ErrDamaged, segmentName(s.seq))
	}
	s.end, s.synced = headBytes, headBytes
	return s, nil
}

// scan reads into scratch and calls f with each record up to limit, or up to
// the end of what is whole (limit < 0). It gives what follows that: nothing, or bytes that are cut off.
func (s *segment) scan(scratch *[]byte, limit int64, f func(at int64, r record) error) (torn bool, err error) {
	upTo := s.room
	if limit >= 0 {
		upTo = limit
	}
	if upTo > s.size {
		return false, fmt.Errorf("%s: %w: it has %d bytes of %d", s.name, ErrDamaged, s.size, upTo)
	}
	size := max(0, upTo-headBytes)
	if int64(cap(*scratch)) < size {
		*scratch = make([]byte, size)
	}
	b := (*scratch)[:size]
	if _, err := s.file.ReadAt(b, headBytes); err != nil {
		return false, fmt.Errorf("%s: %w", s.name, err)
	}
	at := int64(0)
	for at < int64(len(b)) {
		r, ok := readRecord(b[at:], s.mark)
		if !ok {
			break
		}
		if err := f(headBytes+at, r); err != nil {
			return false, fmt.Errorf("%s at byte %d: %w", s.name, headBytes+at, err)
		}
		at += r.size
	}
	s.end = headBytes + at
	s.synced = s.end
	rest := b[min(at, int64(len(b))):]
	if limit >= 0 {
		if s.end != limit {
			return false, fmt.Errorf("%s: %w: the record at byte %d is not whole, but %d bytes were synced", s.name, ErrDamaged, s.end, limit)
		}
		return false, nil
	}
	if until := syncedUntil(rest, s.mark); until > s.end {
		return false, fmt.Errorf("%s: %w: the record at byte %d is not whole, but %d bytes were synced", s.name, ErrDamaged, s.end, until)
	}
	return len(bytes.TrimLeft(rest, "\x00")) > 0, nil
}

// syncedUntil looks for whole records behind one that is not, and gives how
// much of the segment was synced when they were written. Records of the last
// writes before a power cut may be whole while one before them is not: that is
// no damage, because nobody was told that they were there.
func syncedUntil(b []byte, mark uint32) (until int64) {
	for at := 0; at+recordHead <= len(b); at += recordAlign {
		if binary.LittleEndian.Uint32(b[at+4:]) != mark {
			continue
		}
		if r, ok := readRecord(b[at:], mark); ok {
			until = max(until, int64(r.synced))
			at += int(r.size) - recordAlign
		}
	}
	return until
}

// find gives where an entry lies.
func (s *segment) find(index uint64) (at, until int64, ok bool) {
	if index < s.base || index >= s.base+uint64(len(s.offs)) {
		return 0, 0, false
	}
	i := index - s.base
	until = s.end
	if i+1 < uint64(len(s.offs)) {
		until = int64(s.offs[i+1])
	}
	return int64(s.offs[i]), until, true
}

// next is the index behind the last entry here; base if there is none.
func (s *segment) next() uint64 { return s.base + uint64(len(s.offs)) }

// add notes where an entry lies.
func (s *segment) add(index uint64, at int64) {
	if len(s.offs) == 0 {
		s.base = index
	}
	s.offs = append(s.offs, uint32(at))
}

// cut forgets the entries from index on.
func (s *segment) cut(index uint64) {
	if len(s.offs) > 0 && index < s.next() {
		s.offs = s.offs[:max(index, s.base)-s.base]
	}
}
