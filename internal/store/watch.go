package store

import (
	"context"
	"errors"
	"sync"
)

// ErrStopped is what Next gives after Stop.
var ErrStopped = errors.New("watch is stopped")

// Watch reads the ring of recent events at its own pace. It is pulled: nothing
// is queued for it, and objects are never copied. One goroutine at a time may
// call Next.
type Watch struct {
	mem     *Mem
	filter  Filter
	reached uint64 // the revision up to which Next has given everything
	number  uint64 // of the next event to look at
	epoch   uint64 // of the ring that number is of
	batch   []Event
	wake    chan struct{}
	stop    chan struct{}
	once    sync.Once

	// While it is parked (guarded by parked.mu): the place in its list, and
	// the number of the event that woke it.
	slot  int
	woken uint64
}

const (
	batchEvents = 512  // in one answer of Next, but a revision is never cut
	scanEvents  = 4096 // looked at under one hold of the lock
)

// Watch starts after revision from.
func (m *Mem) Watch(f Filter, from uint64) (*Watch, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if from < m.ring.floor {
		return nil, tooOld(from, m.ring.floor)
	}
	if from > m.live.revision {
		return nil, tooNew(from, m.live.revision)
	}
	return &Watch{
		mem: m, filter: f, reached: from, number: m.ring.after(from), epoch: m.ring.epoch, slot: -1,
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}, nil
}

// Next blocks until there are events of interest and gives a batch of them in
// order, each once, with the revision up to which everything has been
// delivered. When ctx ends first it gives ctx's error and still the revision
// reached, which is what a bookmark says; the watch goes on with the next call.
// The batch may be used until the next call. An error of kind apierr Expired
// says that the reader was too slow and fell out of the ring.
func (w *Watch) Next(ctx context.Context) (events []Event, upTo uint64, err error) {
	for {
		select {
		case <-w.stop:
			return nil, 0, ErrStopped
		default:
		}
		upTo, parked, err := w.scan()
		if err != nil {
			return nil, 0, err
		}
		w.reached = upTo
		if len(w.batch) > 0 {
			for i := range w.batch {
				e := &w.batch[i]
				e.New, e.Old = w.mem.opener.open(e.New), w.mem.opener.open(e.Old)
			}
			return w.batch, upTo, nil
		}
		if !parked {
			continue
		}
		select {
		case <-w.wake:
			w.number = w.woken
		case <-w.stop:
			w.mem.unpark(w)
			return nil, 0, ErrStopped
		case <-ctx.Done():
			if revision, quiet := w.mem.unpark(w); quiet {
				w.reached = revision
				return nil, revision, ctx.Err()
			}
			<-w.wake
			w.number = w.woken
		}
	}
}

// scan looks at events until it has a batch, or has looked at many, or has seen
// all; then it parks the watch.
func (w *Watch) scan() (upTo uint64, parked bool, err error) {
	m := w.mem
	clear(w.batch)
	w.batch = w.batch[:0]
	m.mu.RLock()
	defer m.mu.RUnlock()
	r := &m.ring
	if w.epoch != r.epoch && w.reached >= r.floor && w.reached <= m.live.revision {
		w.number, w.epoch = r.after(w.reached), r.epoch
	}
	if w.epoch != r.epoch || w.number < r.first {
		return 0, false, tooOld(w.reached, r.floor)
	}
	var revision uint64
	for end := w.number + scanEvents; w.number < r.next; w.number++ {
		e := r.at(w.number)
		if e.Revision != revision && (len(w.batch) >= batchEvents || w.number >= end) {
			return e.Revision - 1, false, nil
		}
		revision = e.Revision
		if w.filter.matches(e) {
			w.batch = append(w.batch, *e)
		}
	}
	if len(w.batch) == 0 {
		m.parked.add(w)
	}
	return m.live.revision, len(w.batch) == 0, nil
}

// Stop ends the watch; a Next that waits returns.
func (w *Watch) Stop() { w.once.Do(func() { close(w.stop) }) }

func (f Filter) matches(e *Event) bool {
	r := e.New
	if r == nil {
		r = e.Old
	}
	return (f.Resource == "" || f.Resource == r.Resource) &&
		(f.Namespace == "" || f.Namespace == r.Namespace) &&
		(f.Name == "" || f.Name == r.Name)
}

// unpark takes a watch off its list after a wait that ended otherwise. If it
// was still there, nothing of interest came up to the revision given, and the
// watch has read it all.
func (m *Mem) unpark(w *Watch) (revision uint64, quiet bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.parked.remove(w) {
		return 0, false
	}
	w.number = m.ring.next
	return m.live.revision, true
}

// parked finds the watches that wait for an event. A watch is on the list of
// its filter, so an event wakes those that want it and no others.
type parked struct {
	mu     sync.Mutex
	lists  map[Filter][]*Watch
	shapes [8]int // how many watches have a filter of that shape
}

func newParked() parked { return parked{lists: map[Filter][]*Watch{}} }

// shape says which fields a filter has, as bits.
func (f Filter) shape() int {
	shape := 0
	if f.Resource != "" {
		shape |= 1
	}
	if f.Namespace != "" {
		shape |= 2
	}
	if f.Name != "" {
		shape |= 4
	}
	return shape
}

// add puts a watch on its list; the caller holds Mem's lock, so that no event
// comes in between.
func (p *parked) add(w *Watch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.slot = len(p.lists[w.filter])
	p.lists[w.filter] = append(p.lists[w.filter], w)
	p.shapes[w.filter.shape()]++
}

// remove takes a watch off its list and reports whether it was on it.
func (p *parked) remove(w *Watch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.slot < 0 {
		return false
	}
	list := p.lists[w.filter]
	last := len(list) - 1
	list[w.slot] = list[last]
	list[w.slot].slot = w.slot
	list[last] = nil
	if p.lists[w.filter] = list[:last]; last == 0 {
		delete(p.lists, w.filter)
	}
	p.shapes[w.filter.shape()]--
	w.slot = -1
	return true
}

// wake wakes the watches that want an event.
func (p *parked) wake(e Event, number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lists) == 0 {
		return
	}
	key := e.Key()
	for shape, n := range p.shapes {
		if n == 0 {
			continue
		}
		var f Filter
		if shape&1 != 0 {
			f.Resource = key.Resource
		}
		if shape&2 != 0 {
			f.Namespace = key.Namespace
		}
		if shape&4 != 0 {
			f.Name = key.Name
		}
		if f.shape() == shape {
			p.wakeList(f, number)
		}
	}
}

// wakeAll wakes everybody, after a jump of the state.
func (p *parked) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.lists {
		p.wakeList(f, 0)
	}
}

func (p *parked) wakeList(f Filter, number uint64) {
	list := p.lists[f]
	for _, w := range list {
		w.slot, w.woken = -1, number
		w.wake <- struct{}{} // has room: a watch is parked once between wakes
	}
	p.shapes[f.shape()] -= len(list)
	delete(p.lists, f)
}
