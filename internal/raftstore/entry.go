package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// An entry of the log is a format byte and proposals, each behind its length.
// A proposal is who made it, its number there, and the store's command.
const entryFormat = 1

// proposalHead is the length of a proposal's origin and number.
const proposalHead = 16

func newProposal(origin, number uint64, command []byte) []byte {
	b := make([]byte, proposalHead, proposalHead+len(command))
	binary.LittleEndian.PutUint64(b, origin)
	binary.LittleEndian.PutUint64(b[8:], number)
	return append(b, command...)
}

func newEntry(batch []*proposal) []byte {
	size := 1
	for _, p := range batch {
		size += len(p.data) + binary.MaxVarintLen32
	}
	b := append(make([]byte, 0, size), entryFormat)
	for _, p := range batch {
		b = binary.AppendUvarint(b, uint64(len(p.data)))
		b = append(b, p.data...)
	}
	return b
}

var errEntry = errors.New("log entry is garbled")

// readEntry calls f with each proposal of an entry.
func readEntry(b []byte, f func(origin, number uint64, command []byte) error) error {
	if len(b) == 0 {
		return errEntry
	}
	if b[0] != entryFormat {
		return fmt.Errorf("log entry of format %d; this version knows %d: it was written by a newer version", b[0], entryFormat)
	}
	for b = b[1:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size < proposalHead || size > uint64(len(b)-n) {
			return errEntry
		}
		p := b[n : n+int(size)]
		b = b[n+int(size):]
		if err := f(binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]), p[proposalHead:]); err != nil {
			return err
		}
	}
	return nil
}
