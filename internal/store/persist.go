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
// Since format 2 the recent events follow the records: the revision after which
// none is missing, their number, and for each its revision and the record that
// it replaced, or else its key. What an event made is found by going back from
// the state, so it is not written.
const (
	snapshotMagic  = "wherrysnap"
	snapshotFormat = 2
	withoutEvents  = 1 // the format before
)

// checksum is CRC-32C, which processors compute by themselves.
func checksum(sum uint32, b []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
}

// Image is a frozen state with its recent events: what a replica is.
type Image struct {
	state  *Snapshot
	events []Event
	floor  uint64
}

// Image gives the state of now with the ring. It costs a copy of the ring's
// places, not of objects.
func (m *Mem) Image() *Image {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := &Image{state: m.snapshotLocked(), floor: m.ring.floor, events: make([]Event, 0, m.ring.next-m.ring.first)}
	for n := m.ring.first; n < m.ring.next; n++ {
		i.events = append(i.events, *m.ring.at(n))
	}
	return i
}

// Revision is the revision of the last command the image has.
func (i *Image) Revision() uint64 { return i.state.Revision() }

// Persist writes the snapshot so that Restore can read it, without recent
// events. Equal states give equal bytes. Writes to the store go on meanwhile.
func (s *Snapshot) Persist(w io.Writer) error {
	return (&Image{state: s, floor: s.Revision()}).Persist(w)
}

// Persist writes the image so that Restore can read it. Equal replicas give
// equal bytes. Writes to the store go on meanwhile.
func (i *Image) Persist(w io.Writer) error {
	out := &summing{Writer: bufio.NewWriterSize(w, 256<<10)}
	head := append([]byte(snapshotMagic), snapshotFormat)
	head = binary.AppendUvarint(head, i.state.state.revision)
	head = binary.AppendUvarint(head, uint64(i.state.state.records.len()))
	out.write(head)
	i.state.state.records.from(nil, out.record)
	out.write(binary.AppendUvarint(binary.AppendUvarint(nil, i.floor), uint64(len(i.events))))
	for n := range i.events {
		if !out.event(&i.events[n]) {
			break
		}
	}
	out.Write(binary.LittleEndian.AppendUint32(nil, out.sum)) // Flush tells of any error
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// summing computes the checksum of what is written.
type summing struct {
	*bufio.Writer
	sum           uint32
	head, scratch []byte
}

func (s *summing) write(b []byte) bool {
	s.sum = checksum(s.sum, b)
	_, err := s.Writer.Write(b)
	return err == nil
}

func (s *summing) record(r *api.Record) bool {
	s.scratch = appendRecord(s.scratch[:0], r)
	s.head = binary.AppendUvarint(s.head[:0], r.Revision)
	s.head = binary.AppendUvarint(s.head, uint64(len(s.scratch)))
	return s.write(s.head) && s.write(s.scratch)
}

// Whether an event replaced something.
const (
	eventCreates = iota
	eventReplaces
)

func (s *summing) event(e *Event) bool {
	s.head = binary.AppendUvarint(s.head[:0], e.Revision)
	if e.Old != nil {
		return s.write(append(s.head, eventReplaces)) && s.record(e.Old)
	}
	s.scratch = appendKey(s.scratch[:0], e.New.Key)
	s.head = binary.AppendUvarint(append(s.head, eventCreates), uint64(len(s.scratch)))
	return s.write(s.head) && s.write(s.scratch)
}

// Restore replaces the state by what Persist wrote; on an error the former
// state stays. Watchers go on where they are if the new ring reaches back to
// it, and else find themselves fallen out.
func (m *Mem) Restore(from io.Reader) error {
	st, recent, err := m.read(from)
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
	m.ring.reset(recent.floor)
	for _, e := range recent.events {
		m.ring.add(e)
	}
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

func (s *summed) uvarints(into ...*uint64) error {
	for _, to := range into {
		v, err := binary.ReadUvarint(s)
		if err != nil {
			return err
		}
		*to = v
	}
	return nil
}

// block reads what stands behind its length, into a buffer that is reused.
func (s *summed) block(buf *[]byte) ([]byte, error) {
	n, err := binary.ReadUvarint(s)
	if err != nil {
		return nil, err
	}
	if n > maxRecord {
		return nil, errGarbled("snapshot")
	}
	if uint64(cap(*buf)) < n {
		*buf = make([]byte, n)
	}
	*buf = (*buf)[:n]
	return *buf, s.full(*buf)
}

// maxRecord bounds what one record of a garbled snapshot may ask for.
const maxRecord = 64 << 20

// recent is the ring as it was persisted.
type recent struct {
	floor  uint64
	events []Event
}

func (m *Mem) read(from io.Reader) (state, recent, error) {
	fail := func(err error) (state, recent, error) { return state{}, recent{}, short(err) }
	in := &summed{Reader: bufio.NewReaderSize(from, 256<<10)}
	head := make([]byte, len(snapshotMagic)+1)
	if err := in.full(head); err != nil {
		return fail(err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return fail(errors.New("it is not a snapshot of this store"))
	}
	format := head[len(snapshotMagic)]
	if format != snapshotFormat && format != withoutEvents {
		return fail(fmt.Errorf("it is of format %d; this version knows %d: it was written by a newer version", format, snapshotFormat))
	}
	st := newState()
	var count uint64
	err := in.uvarints(&st.revision, &count)
	var buf []byte
	for n := uint64(0); n < count && err == nil; n++ {
		var r *api.Record
		if r, err = m.readRecord(in, &buf); err == nil {
			st.put(r, nil)
		}
	}
	late := recent{floor: st.revision}
	if err == nil && format != withoutEvents {
		late, err = m.readEvents(in, &st, &buf)
	}
	if err != nil {
		return fail(err)
	}
	sum := in.sum
	tail := make([]byte, 4)
	if err := in.full(tail); err != nil {
		return fail(err)
	}
	if binary.LittleEndian.Uint32(tail) != sum || uint64(st.records.len()) != count {
		return fail(errors.New("its checksum is wrong: the file is damaged"))
	}
	return st, late, nil
}

// readEvents reads the ring. Going back from the state, each event's new record
// is what the next event of the same key replaced.
func (m *Mem) readEvents(in *summed, st *state, buf *[]byte) (recent, error) {
	var late recent
	var count uint64
	if err := in.uvarints(&late.floor, &count); err != nil {
		return late, err
	}
	var keys []api.Key
	last := late.floor
	for range count {
		e, key, err := m.readEvent(in, buf)
		if err != nil {
			return late, err
		}
		if e.Revision < last || e.Revision > st.revision {
			return late, errGarbled("snapshot")
		}
		last = e.Revision
		late.events, keys = append(late.events, e), append(keys, key)
	}
	after := map[api.Key]*api.Record{}
	for n := len(keys) - 1; n >= 0; n-- {
		e, key := &late.events[n], keys[n]
		made, known := after[key]
		if !known {
			made = st.get(key)
		}
		if made == nil && e.Old == nil || made != nil && made.Revision != e.Revision {
			return late, errGarbled("snapshot")
		}
		e.New, after[key] = made, e.Old
	}
	return late, nil
}

func (m *Mem) readEvent(in *summed, buf *[]byte) (e Event, key api.Key, err error) {
	if err := in.uvarints(&e.Revision); err != nil {
		return e, key, err
	}
	kind, err := in.ReadByte()
	switch {
	case err != nil:
		return e, key, err
	case kind == eventReplaces:
		if e.Old, err = m.readRecord(in, buf); err == nil {
			key = e.Old.Key
		}
		return e, key, err
	case kind != eventCreates:
		return e, key, errGarbled("snapshot")
	}
	b, err := in.block(buf)
	if err != nil {
		return e, key, err
	}
	d := decoder{rest: b, words: m.words}
	key = api.Key{Resource: d.word(), Namespace: d.word(), Name: string(d.bytes())}
	if d.bad || len(d.rest) != 0 {
		return e, key, errGarbled("snapshot")
	}
	return e, key, nil
}

func (m *Mem) readRecord(in *summed, buf *[]byte) (*api.Record, error) {
	revision, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, err
	}
	b, err := in.block(buf)
	if err != nil {
		return nil, err
	}
	d := decoder{rest: b, words: m.words}
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
