package store

import "sort"

// ring holds recent events, each under a number that goes up by one. It is
// bounded in events and in the bytes of the records that only it still holds.
type ring struct {
	maxEvents, maxBytes int

	events []Event // circular; its length is a power of two
	first  uint64  // number of the oldest event kept
	next   uint64  // number of the next event
	bytes  int
	// floor is the revision after which nothing is missing.
	floor uint64
	// epoch goes up when the ring is filled anew and numbers mean others.
	epoch uint64
}

// eventBytes is what an event costs besides its old record.
const eventBytes = 64

func costOf(e Event) int {
	if e.Old == nil {
		return eventBytes
	}
	return eventBytes + 256 + e.Old.Len()
}

func (r *ring) at(number uint64) *Event {
	return &r.events[number&uint64(len(r.events)-1)]
}

func (r *ring) add(e Event) {
	if n := r.next - r.first; int(n) == len(r.events) {
		r.grow()
	}
	*r.at(r.next) = e
	r.next++
	r.bytes += costOf(e)
	for int(r.next-r.first) > r.maxEvents || r.bytes > r.maxBytes && r.next-r.first > 1 {
		old := r.at(r.first)
		r.floor = old.Revision
		r.bytes -= costOf(*old)
		*old = Event{}
		r.first++
	}
}

func (r *ring) grow() {
	bigger := make([]Event, max(256, 2*len(r.events)))
	for n := r.first; n < r.next; n++ {
		bigger[n&uint64(len(bigger)-1)] = *r.at(n)
	}
	r.events = bigger
}

// reset empties the ring, which begins after a revision from now on. A reader
// of the old events looks for its place by revision.
func (r *ring) reset(floor uint64) {
	r.events, r.bytes, r.floor = nil, 0, floor
	r.first, r.next = 0, 0
	r.epoch++
}

// after is the number of the first event of a later revision.
func (r *ring) after(revision uint64) uint64 {
	n := sort.Search(int(r.next-r.first), func(i int) bool {
		return r.at(r.first+uint64(i)).Revision > revision
	})
	return r.first + uint64(n)
}
