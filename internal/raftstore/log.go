package raftstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// logBelow is a log on disk.
type logBelow interface {
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
	GetLog(index uint64, l *raft.Log) error
	DeleteRange(first, last uint64) error
	// write adds entries; after a sync they survive a power cut.
	write(logs []*raft.Log) error
	sync() error
	// syncs reports whether sync does anything; else write has done it.
	syncs() bool
	// full reports whether there will soon be no room, prepare looks again.
	full() bool
	prepare()
	// follows reports whether each entry must follow the one before.
	follows() bool
}

// logStore is the log as Raft sees it. Entries are written at once and synced
// meanwhile, many by one sync: Raft goes on, and sends them to the others while
// this disk works. So the library takes an entry for stored before it is. What
// follows from that must therefore wait for it (see wait): applying, telling
// others of a commit, telling a leader that an entry is stored here.
//
// The newest entries stay in memory, bounded in bytes.
type logStore struct {
	below logBelow
	watch diskWatch

	mu    sync.Mutex
	cache map[uint64]*raft.Log
	first uint64 // of cache, which has no gaps
	next  uint64
	bytes int
	// written counts the bytes and entries since the last snapshot.
	written, entries uint64

	kick  chan struct{}
	ended chan struct{}
	stop  chan struct{}

	waitMu  sync.Mutex
	pending []pendingWrite // not synced yet, in order
	writes  uint64         // how many there were
	moved   chan struct{}  // closed when pending gets shorter or broken is set
	broken  error
	// failed is told when a sync fails, leads reports whether this member leads.
	failed func(error)
	leads  func() bool
}

// pendingWrite is entries from an index on that were written and not synced.
type pendingWrite struct {
	first, number uint64
	// counted is set if the library counts them for stored here when it looks
	// for a majority: it does so when this member leads.
	counted bool
}

const (
	cacheBytes = 4 << 20
	cacheLogs  = 1024
	logCost    = 128 // of an entry besides its data
)

// newLogStore begins with the entries and bytes that are there.
func newLogStore(below logBelow, entries, bytes uint64) *logStore {
	s := &logStore{
		below: below, cache: map[uint64]*raft.Log{}, entries: entries, written: bytes,
		kick: make(chan struct{}, 1), ended: make(chan struct{}), stop: make(chan struct{}), moved: make(chan struct{}),
	}
	go s.syncLoop()
	return s
}

// close syncs what has been written, and ends.
func (s *logStore) close() error {
	close(s.stop)
	<-s.ended
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	return s.broken
}

// syncLoop syncs whenever something has been written.
func (s *logStore) syncLoop() {
	defer close(s.ended)
	for {
		select {
		case <-s.kick:
			s.sync()
		case <-s.stop:
			s.sync()
			return
		}
	}
}

func (s *logStore) sync() {
	s.waitMu.Lock()
	number, broken := s.writes, s.broken
	s.waitMu.Unlock()
	if broken != nil {
		return
	}
	done := s.watch.begin(s.below.syncs())
	err := s.below.sync()
	done()
	if err != nil {
		s.fail(fmt.Errorf("the disk of the log: %w", err))
		return
	}
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	n := 0
	for n < len(s.pending) && s.pending[n].number <= number {
		n++
	}
	s.pending = append(s.pending[:0], s.pending[n:]...)
	close(s.moved)
	s.moved = make(chan struct{})
}

// fail is called when something else on the disk fails: nothing is taken any
// more, and nothing is said to be stored.
func (s *logStore) fail(err error) {
	s.waitMu.Lock()
	first := s.broken == nil
	if first {
		s.broken = err
		close(s.moved)
		s.moved = make(chan struct{})
	}
	s.waitMu.Unlock()
	if first && s.failed != nil {
		s.failed(err)
	}
}

// durable is up to where all entries that are here survive a power cut.
func (s *logStore) durable() uint64 {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	from := uint64(math.MaxUint64) // of what is not; a later write may replace some of an earlier one
	for _, p := range s.pending {
		from = min(from, p.first-1)
	}
	return from
}

// waitCommitted waits until the library's belief that an entry is committed is
// true: until those that it counts for stored here are. A follower need not
// wait, since the leader did.
func (s *logStore) waitCommitted(index uint64) error { return s.waitFor(nil, index, true) }

// wait waits until all entries up to an index survive a power cut here, or
// nobody wants to know any more.
func (s *logStore) wait(up <-chan struct{}, index uint64) error { return s.waitFor(up, index, false) }

func (s *logStore) waitFor(up <-chan struct{}, index uint64, counted bool) error {
	var until uint64 // the last write that matters
	for first := true; ; first = false {
		s.waitMu.Lock()
		if first {
			for _, p := range s.pending {
				if p.first <= index && (p.counted || !counted) {
					until = p.number
				}
			}
		}
		moved, err := s.moved, s.broken
		done := len(s.pending) == 0 || s.pending[0].number > until
		s.waitMu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-moved:
		case <-up:
			return context.Canceled
		}
	}
}

// waitAll waits until all that has been written survives a power cut.
func (s *logStore) waitAll() error { return s.wait(nil, math.MaxUint64) }

// FirstIndex implements raft.LogStore.
func (s *logStore) FirstIndex() (uint64, error) { return s.below.FirstIndex() }

// LastIndex implements raft.LogStore.
func (s *logStore) LastIndex() (uint64, error) { return s.below.LastIndex() }

// IsMonotonic implements raft.MonotonicLogStore.
func (s *logStore) IsMonotonic() bool { return s.below.follows() }

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. A change of the members is synced before
// it returns: the library acts on it at once.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	s.waitMu.Lock()
	err := s.broken
	s.waitMu.Unlock()
	if err != nil {
		return err
	}
	done := s.watch.begin(!s.below.syncs())
	err = s.below.write(logs)
	done()
	if err != nil {
		return s.failUnlessFull(fmt.Errorf("append to the log: %w", err))
	}
	s.toSync(logs)
	atOnce := false
	s.mu.Lock()
	for _, l := range logs {
		s.keepLocked(l)
		s.written += uint64(len(l.Data) + logCost)
		s.entries++
		atOnce = atOnce || l.Type == raft.LogConfiguration
	}
	s.mu.Unlock()
	if atOnce {
		return s.waitAll()
	}
	return nil
}

// toSync notes what has to be synced.
func (s *logStore) toSync(logs []*raft.Log) {
	s.waitMu.Lock()
	s.writes++
	counted := s.leads != nil && s.leads()
	s.pending = append(s.pending, pendingWrite{logs[0].Index, s.writes, counted})
	for i := range s.pending {
		s.pending[i].counted = s.pending[i].counted || counted // all that comes before
	}
	s.waitMu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default: // it will see this too
	}
}

func (s *logStore) keepLocked(l *raft.Log) {
	if l.Index != s.next {
		s.dropLocked()
		s.first, s.next = l.Index, l.Index
	}
	s.cache[l.Index] = l
	s.next++
	s.bytes += len(l.Data) + logCost
	for (s.bytes > cacheBytes || len(s.cache) > cacheLogs) && s.first < s.next-1 {
		s.bytes -= len(s.cache[s.first].Data) + logCost
		delete(s.cache, s.first)
		s.first++
	}
}

func (s *logStore) dropLocked() {
	clear(s.cache)
	s.first, s.next, s.bytes = 0, 0, 0
}

// GetLog implements raft.LogStore.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	cached := s.cache[index]
	s.mu.Unlock()
	if cached != nil {
		*l = *cached
		return nil
	}
	err := s.below.GetLog(index, l)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || s.failed == nil {
		return err
	}
	// The library panics when an entry that must be there cannot be read. So it
	// gets an empty one, which goes nowhere: nothing is applied or sent any more.
	s.fail(fmt.Errorf("the disk of the log: %w", err))
	*l = raft.Log{Index: index, Type: raft.LogNoop}
	return nil
}

// DeleteRange implements raft.LogStore.
func (s *logStore) DeleteRange(first, last uint64) error {
	s.mu.Lock()
	if last >= s.first {
		s.dropLocked() // a conflicting end, or everything
	}
	s.mu.Unlock()
	if err := s.below.DeleteRange(first, last); err != nil {
		return s.failUnlessFull(fmt.Errorf("cut the log: %w", err))
	}
	return nil
}

// failUnlessFull stops this replica on an error after which the log takes no more
// or may not be what it is taken for. A full disk passes, and a gap is nothing
// that the disk did.
func (s *logStore) failUnlessFull(err error) error {
	if !raftlog.NoRoom(err) && !errors.Is(err, raftlog.ErrGap) {
		s.fail(fmt.Errorf("the disk of the log: %w", err))
	}
	return err
}

// sinceSnapshot tells how much was written since snapshotted was called.
func (s *logStore) sinceSnapshot() (bytes, entries uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written, s.entries
}

func (s *logStore) snapshotted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written, s.entries = 0, 0
}
