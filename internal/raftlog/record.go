package raftlog

import (
	"encoding/binary"
	"hash/crc32"
)

// A record is a head, its data, and zeros up to a multiple of 8 bytes:
//
//	 0 checksum (CRC32C) of all that follows, data included
//	 4 the segment's mark
//	 8 length of the data
//	12 how much of the segment was synced when the record was written
//	16 index
//	24 term
//	32 kind of record, type of entry, and zeros
const (
	recordHead  = 40
	recordAlign = 8
)

// The kinds of records.
const (
	// kindEntry is an entry of the log.
	kindEntry = 1
	// kindCut takes back all entries from its index on.
	kindCut = 2
	// kindClosed is written when the log is closed: all before it was synced.
	kindClosed = 3
	// kindFront says that the log begins with its index.
	kindFront = 4
)

// record is one as it is read.
type record struct {
	kind   uint8
	synced uint32
	entry  Entry
	size   int64 // with head and zeros
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func recordSize(data int) int64 {
	return int64(recordHead+data+recordAlign-1) &^ (recordAlign - 1)
}

// appendRecord adds a record to b.
func appendRecord(b []byte, mark, synced uint32, kind uint8, e Entry) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, mark)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Data)))
	b = binary.LittleEndian.AppendUint32(b, synced)
	b = binary.LittleEndian.AppendUint64(b, e.Index)
	b = binary.LittleEndian.AppendUint64(b, e.Term)
	b = append(b, kind, e.Type, 0, 0, 0, 0, 0, 0)
	b = append(b, e.Data...)
	sum := crc32.Checksum(b[start+4:], castagnoli)
	binary.LittleEndian.PutUint32(b[start:], sum)
	for len(b)-start < int(recordSize(len(e.Data))) {
		b = append(b, 0)
	}
	return b
}

// readRecord reads the record at the beginning of b. Its data is part of b. It
// reports false if there is no whole one of this segment.
func readRecord(b []byte, mark uint32) (r record, ok bool) {
	if len(b) < recordHead || binary.LittleEndian.Uint32(b[4:]) != mark {
		return r, false
	}
	size := int64(binary.LittleEndian.Uint32(b[8:]))
	if recordHead+size > int64(len(b)) {
		return r, false
	}
	if crc32.Checksum(b[4:recordHead+size], castagnoli) != binary.LittleEndian.Uint32(b) {
		return r, false
	}
	r = record{
		kind: b[32], synced: binary.LittleEndian.Uint32(b[12:]),
		entry: Entry{
			Index: binary.LittleEndian.Uint64(b[16:]), Term: binary.LittleEndian.Uint64(b[24:]), Type: b[33],
			Data: b[recordHead : recordHead+size : recordHead+size],
		},
		size: recordSize(int(size)),
	}
	return r, r.kind >= kindEntry && r.kind <= kindFront
}
