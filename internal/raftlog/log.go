package raftlog

import "errors"

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
	// SegmentBytes is the size of a segment: 8 MiB.
	SegmentBytes int64
}
