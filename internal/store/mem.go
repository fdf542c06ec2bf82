package store

import (
	"context"
	"errors"
	"io"

	"github.com/wherry-project/wherry/internal/api"
)

// Limits bound what a Mem keeps and takes; zero fields have defaults.
type Limits struct {
	// CommandBytes is the largest encoded command (and so object): 1.5 MiB.
	CommandBytes int
	// RingEvents and RingBytes bound the ring of recent events: 32768 events,
	// 24 MiB of records that are no longer current.
	RingEvents, RingBytes int
}

// Mem is the deterministic state that Raft replicates: a persistent tree of
// records and a ring of recent events.
type Mem struct {
	codec  *api.Codec
	limits Limits
}

// NewMem makes an empty state at revision 0.
func NewMem(codec *api.Codec, limits Limits) *Mem { return &Mem{codec: codec, limits: limits} }

// Apply does a command or nothing, and gives its revision; a *CompareError if
// a condition does not hold.
func (m *Mem) Apply(c Command) (revision uint64, err error) { return 0, errors.New("not built yet") }

// Snapshot is the state now.
func (m *Mem) Snapshot() *Snapshot { return &Snapshot{codec: m.codec} }

// SnapshotAt is the state at a revision that is still in the ring.
func (m *Mem) SnapshotAt(revision uint64) (*Snapshot, error) {
	return nil, errors.New("not built yet")
}

// Revision is the revision of the last command applied.
func (m *Mem) Revision() uint64 { return 0 }

// Wait blocks until the state has reached revision.
func (m *Mem) Wait(ctx context.Context, revision uint64) error { return errors.New("not built yet") }

// Watch starts after revision from.
func (m *Mem) Watch(f Filter, from uint64) (*Watch, error) { return nil, errors.New("not built yet") }

// Restore replaces the state by what Persist wrote.
func (m *Mem) Restore(r io.Reader) error { return errors.New("not built yet") }

// Persist writes the snapshot so that Restore can read it; equal states give
// equal bytes.
func (s *Snapshot) Persist(w io.Writer) error { return errors.New("not built yet") }
