package store

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Limits bound what a Mem keeps and a store takes; zero fields have defaults.
type Limits struct {
	// CommandBytes is the largest encoded command, and so object: 1.5 MiB.
	CommandBytes int
	// RingEvents and RingBytes bound the ring of recent events: 32768 events,
	// 24 MiB of records that are no longer current.
	RingEvents, RingBytes int
}

// WithDefaults fills in the fields that are zero.
func (l Limits) WithDefaults() Limits {
	if l.CommandBytes == 0 {
		l.CommandBytes = 3 << 19
	}
	if l.RingEvents == 0 {
		l.RingEvents = 32768
	}
	if l.RingBytes == 0 {
		l.RingBytes = 24 << 20
	}
	return l
}

// Mem is the deterministic state that Raft replicates: a persistent tree of
// records and a ring of recent events. Snapshots are roots of the tree, made
// when somebody asks; one of any revision in the ring can be had by undoing
// events from a later root.
type Mem struct {
	codec  *api.Codec
	words  *words
	opener *opener

	frozen atomic.Pointer[Snapshot] // of now, if somebody asked since

	mu      sync.RWMutex // Apply and Restore hold it to write
	live    state
	ring    ring
	waiters waiters // for a revision
	parked  parked  // watches that have read everything

	pastMu sync.Mutex
	past   []*Snapshot // the ones lately asked for by revision, newest last
}

// pastSnapshots is how many snapshots of former revisions are kept ready.
const pastSnapshots = 16

// NewMem makes an empty state at revision 0.
func NewMem(codec *api.Codec, limits Limits) *Mem {
	limits = limits.WithDefaults()
	return &Mem{
		codec:  codec,
		words:  newWords(),
		live:   newState(),
		ring:   ring{maxEvents: limits.RingEvents, maxBytes: limits.RingBytes},
		parked: newParked(),
	}
}

// Apply does a command or nothing, and gives its revision; a *CompareError if
// a condition does not hold. A command that only checks takes no revision and
// gives the current one. The command's records must not change any more.
func (m *Mem) Apply(c Command) (revision uint64, err error) {
	if err := c.valid(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var held [8]*api.Record
	current, writes := held[:0], false
	for _, change := range c.Changes {
		old := m.live.get(change.Key)
		if !meets(change, old) {
			e := &CompareError{Key: change.Key}
			if old != nil {
				e.Current = old.Revision
			}
			return 0, e
		}
		current = append(current, old)
		writes = writes || change.Op != Check
	}
	if !writes {
		return m.live.revision, nil
	}
	m.frozen.Store(nil)
	m.live.revision++
	for i, change := range c.Changes {
		m.change(change, current[i])
	}
	m.waiters.reached(m.live.revision)
	return m.live.revision, nil
}

// change does one step under the lock.
func (m *Mem) change(change Change, old *api.Record) {
	e := Event{Revision: m.live.revision, Old: old}
	switch change.Op {
	case Put:
		r := *change.Record
		r.Revision = m.live.revision
		e.New = &r
		m.live.put(&r, old)
	case Delete:
		m.live.delete(old)
	default:
		return
	}
	m.ring.add(e)
	m.parked.wake(e, m.ring.next-1)
}

// Jump takes the state to a later revision at which nothing changes. Watchers
// find themselves fallen out of the ring. It is for a state that is brought
// back and has forgotten revisions which somebody may have seen; never for one
// that other replicas have too.
func (m *Mem) Jump(revision uint64) {
	m.pastMu.Lock()
	defer m.pastMu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if revision <= m.live.revision {
		return
	}
	m.past = nil
	m.frozen.Store(nil)
	m.live.revision = revision
	m.ring.reset(revision)
	m.parked.wakeAll()
	m.waiters.reached(revision)
}

// Revision is the revision of the last command applied.
func (m *Mem) Revision() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.live.revision
}

// Snapshot is the state now.
func (m *Mem) Snapshot() *Snapshot {
	if s := m.frozen.Load(); s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshotLocked()
}

func (m *Mem) snapshotLocked() *Snapshot {
	if s := m.frozen.Load(); s != nil {
		return s
	}
	s := &Snapshot{state: m.live.freeze(), codec: m.codec, opener: m.opener}
	m.frozen.Store(s)
	return s
}

// SnapshotAt is the state at a revision; an error of kind apierr Expired if
// the ring does not reach back to it, Timeout if it is still to come.
func (m *Mem) SnapshotAt(revision uint64) (*Snapshot, error) {
	base := m.Snapshot()
	if revision > base.Revision() {
		return nil, tooNew(revision, base.Revision())
	}
	m.pastMu.Lock()
	defer m.pastMu.Unlock()
	for i, s := range m.past {
		if s.Revision() == revision && m.reaches(revision) {
			m.past = append(slices.Delete(m.past, i, i+1), s)
			return s, nil
		}
		if s.Revision() > revision && s.Revision() < base.Revision() {
			base = s
		}
	}
	if revision == base.Revision() {
		return base, nil
	}
	events, err := m.between(revision, base.Revision())
	if err != nil {
		return nil, err
	}
	st := base.state.thaw()
	for _, e := range slices.Backward(events) {
		st.undo(e)
	}
	st.revision = revision
	s := &Snapshot{state: st.freeze(), codec: m.codec, opener: m.opener}
	if len(m.past) == pastSnapshots {
		m.past = slices.Delete(m.past, 0, 1)
	}
	m.past = append(m.past, s)
	return s, nil
}

func (m *Mem) reaches(revision uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return revision >= m.ring.floor
}

// between gives the events after one revision up to another.
func (m *Mem) between(after, to uint64) ([]Event, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if after < m.ring.floor {
		return nil, tooOld(after, m.ring.floor)
	}
	var events []Event
	for n, end := m.ring.after(after), m.ring.after(to); n < end; n++ {
		events = append(events, *m.ring.at(n))
	}
	return events, nil
}

func tooOld(revision, floor uint64) error {
	return apierr.Expired("too old resource version: %d (%d)", revision, floor)
}

func tooNew(revision, current uint64) error {
	return apierr.New(apierr.ErrTimeout, "Too large resource version: %d, current: %d", revision, current)
}

// waiter waits for a revision.
type waiter struct {
	revision uint64
	done     chan struct{}
	at       int // in the heap, -1 when out of it
}

// waiters is a heap, the lowest revision first.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].revision < w[j].revision }
func (w waiters) Swap(i, j int)      { w[i], w[j] = w[j], w[i]; w[i].at, w[j].at = i, j }

// Push implements heap.Interface.
func (w *waiters) Push(x any) { x.(*waiter).at = len(*w); *w = append(*w, x.(*waiter)) }

// Pop implements heap.Interface.
func (w *waiters) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	x.at, (*w)[last], *w = -1, nil, (*w)[:last]
	return x
}

func (w *waiters) reached(revision uint64) {
	for len(*w) > 0 && (*w)[0].revision <= revision {
		close(heap.Pop(w).(*waiter).done)
	}
}

// Wait blocks until the state has reached a revision, or gives an error of
// kind apierr Timeout when ctx ends first.
func (m *Mem) Wait(ctx context.Context, revision uint64) error {
	if s := m.frozen.Load(); s != nil && s.Revision() >= revision {
		return nil
	}
	m.mu.Lock()
	current := m.live.revision
	if current >= revision {
		m.mu.Unlock()
		return nil
	}
	w := &waiter{revision: revision, done: make(chan struct{})}
	heap.Push(&m.waiters, w)
	m.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.at < 0 {
		return nil
	}
	heap.Remove(&m.waiters, w.at)
	return tooNew(revision, m.live.revision)
}
