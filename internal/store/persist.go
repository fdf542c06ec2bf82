package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/wherry-project/wherry/internal/api"
)

// A persisted snapshot is a magic word, a format byte, revision and number of
// records, each record behind its revision and length, and a checksum of all.
const (
	snapshotMagic  = "wherrysnap"
	snapshotFormat = 1
)

// checksum is CRC-32C, which processors compute by themselves.
func checksum(sum uint32, b []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
}

// Persist writes the snapshot so that Restore can read it. Equal states give
// equal bytes. Writes to the store go on meanwhile.
func (s *Snapshot) Persist(w io.Writer) error {
	out := bufio.NewWriterSize(w, 256<<10)
	var sum uint32
	write := func(b []byte) bool {
		sum = checksum(sum, b)
		_, err := out.Write(b)
		return err == nil
	}
	head := append([]byte(snapshotMagic), snapshotFormat)
	head = binary.AppendUvarint(head, s.state.revision)
	head = binary.AppendUvarint(head, uint64(s.state.records.len()))
	write(head)
	var body, record []byte
	s.state.records.from(nil, func(r *api.Record) bool {
		record = appendRecord(record[:0], r)
		body = binary.AppendUvarint(body[:0], r.Revision)
		body = binary.AppendUvarint(body, uint64(len(record)))
		return write(body) && write(record)
	})
	out.Write(binary.LittleEndian.AppendUint32(nil, sum)) // Flush tells of any error
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Restore replaces the state by what Persist wrote; on an error the former
// state stays. Watchers find themselves fallen out of the ring.
func (m *Mem) Restore(from io.Reader) error {
	st, err := m.read(from)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	m.pastMu.Lock()
	defer m.pastMu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past = nil
	m.frozen.Store(nil)
	m.live = st
	m.ring.reset(st.revision)
	m.parked.wakeAll()
	m.waiters.reached(st.revision)
	return nil
}

// summed computes the checksum of what is read.
type summed struct {
	*bufio.Reader
	sum uint32
}

// ReadByte implements io.ByteReader.
func (s *summed) ReadByte() (byte, error) {
	b, err := s.Reader.ReadByte()
	if err == nil {
		s.sum = checksum(s.sum, []byte{b})
	}
	return b, err
}

func (s *summed) full(b []byte) error {
	_, err := io.ReadFull(s.Reader, b)
	s.sum = checksum(s.sum, b)
	return err
}

// maxRecord bounds what one record of a garbled snapshot may ask for.
const maxRecord = 64 << 20

func (m *Mem) read(from io.Reader) (state, error) {
	in := &summed{Reader: bufio.NewReaderSize(from, 256<<10)}
	head := make([]byte, len(snapshotMagic)+1)
	if err := in.full(head); err != nil {
		return state{}, short(err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return state{}, errors.New("it is not a snapshot of this store")
	}
	if format := head[len(snapshotMagic)]; format != snapshotFormat {
		return state{}, fmt.Errorf("it is of format %d; this version knows %d: it was written by a newer version", format, snapshotFormat)
	}
	st := newState()
	revision, err := binary.ReadUvarint(in)
	if err != nil {
		return state{}, short(err)
	}
	count, err := binary.ReadUvarint(in)
	if err != nil {
		return state{}, short(err)
	}
	st.revision = revision
	var buf []byte
	for range count {
		r, err := m.readRecord(in, &buf)
		if err != nil {
			return state{}, err
		}
		st.put(r, nil)
	}
	sum := in.sum
	tail := make([]byte, 4)
	if err := in.full(tail); err != nil {
		return state{}, short(err)
	}
	if binary.LittleEndian.Uint32(tail) != sum || uint64(st.records.len()) != count {
		return state{}, errors.New("its checksum is wrong: the file is damaged")
	}
	return st, nil
}

func (m *Mem) readRecord(in *summed, buf *[]byte) (*api.Record, error) {
	revision, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, short(err)
	}
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, short(err)
	}
	if n > maxRecord {
		return nil, errGarbled("snapshot")
	}
	if uint64(cap(*buf)) < n {
		*buf = make([]byte, n)
	}
	*buf = (*buf)[:n]
	if err := in.full(*buf); err != nil {
		return nil, short(err)
	}
	d := decoder{rest: *buf, words: m.words}
	r := d.record()
	if d.bad || len(d.rest) != 0 {
		return nil, errGarbled("snapshot")
	}
	r.Revision = revision
	return r, nil
}

func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut off")
	}
	return err
}
