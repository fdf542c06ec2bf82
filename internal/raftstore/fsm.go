package raftstore

import (
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/store"
)

// fsm is the state machine: it applies the log to a store.Mem. What it does
// depends on the log alone.
type fsm struct {
	mem *store.Mem
	// done is told how a proposal ended.
	done func(origin, number, revision uint64, err error)
	// committed waits until an entry that the library takes for committed is. It
	// may believe so before this disk has it.
	committed func(index uint64) error
	// batch is told that entries are about to be applied.
	batch func()
	// failed is told that this replica cannot go on.
	failed func(error)

	mu      sync.Mutex
	applied uint64        // index of the last entry applied
	moved   chan struct{} // closed when applied goes up and somebody waits
	err     error         // nothing is applied after it
}

// ApplyBatch implements raft.BatchingFSM.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	if err := f.committed(logs[len(logs)-1].Index); err != nil {
		f.stop(err)
	}
	f.batch()
	for _, l := range logs {
		if f.broken() != nil {
			break
		}
		if l.Type == raft.LogCommand {
			if err := f.apply(l); err != nil {
				f.stop(fmt.Errorf("apply log entry %d: %w", l.Index, err))
				break
			}
		}
		f.reached(l.Index)
	}
	return make([]any, len(logs))
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *fsm) apply(l *raft.Log) error {
	return readEntry(l.Data, func(origin, number uint64, command []byte) error {
		c, err := f.mem.DecodeCommand(command)
		if err != nil {
			return err
		}
		revision, err := f.mem.Apply(c)
		f.done(origin, number, revision, err)
		return nil
	})
}

// stop ends the replica's part: going on without an entry would make it differ
// from the others.
func (f *fsm) stop(err error) {
	f.mu.Lock()
	first := f.err == nil
	if first {
		f.err = err
	}
	f.mu.Unlock()
	if first {
		f.failed(err)
	}
}

func (f *fsm) broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fsm) reached(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = index
	if f.moved != nil {
		close(f.moved)
		f.moved = nil
	}
}

// has reports whether the entry at index has been applied; if not, the channel
// is closed when there is news.
func (f *fsm) has(index uint64) (bool, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.applied >= index {
		return true, nil
	}
	if f.moved == nil {
		f.moved = make(chan struct{})
	}
	return false, f.moved
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.broken(); err != nil {
		return nil, err
	}
	// It counts up to entries that were not given to ApplyBatch.
	if err := f.committed(math.MaxUint64); err != nil {
		return nil, err
	}
	return frozen{f.mem.Image()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(from io.ReadCloser) error {
	err := f.mem.Restore(from)
	if err != nil {
		f.stop(err)
	}
	return err
}

// frozen is a state on its way to disk.
type frozen struct{ state *store.Image }

// Persist implements raft.FSMSnapshot.
func (s frozen) Persist(sink raft.SnapshotSink) error {
	if err := s.state.Persist(sink); err != nil {
		_ = sink.Cancel() // the error that matters is err
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s frozen) Release() {}
