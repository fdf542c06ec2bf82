package store

import (
	"sync"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/seal"
)

// Sealer hides the bytes of some records from whoever has the log, a snapshot
// or a copy of them. The state holds what Seal gave and never looks inside;
// records are opened on their way to a reader.
type Sealer interface {
	// Seal gives the bytes to be stored in place of a record's own, or those as
	// they are if the record needs no hiding.
	Seal(r *api.Record) ([]byte, error)
	// Open gives what Seal hid.
	Open(r *api.Record) ([]byte, error)
}

// Sealed gives a copy of the command with its records sealed. It is for the
// proposer, before Encode; a nil sealer seals nothing.
func (c Command) Sealed(s Sealer) (Command, error) {
	if s == nil {
		return c, nil
	}
	copied := false
	for i, change := range c.Changes {
		if change.Op != Put || change.Record == nil || seal.Is(change.Record.Bytes) {
			continue
		}
		b, err := s.Seal(change.Record.Whole())
		if err != nil {
			return Command{}, err
		}
		if !seal.Is(b) {
			continue
		}
		if !copied {
			c.Changes, copied = append([]Change(nil), c.Changes...), true
		}
		r := *change.Record.Whole()
		r.Bytes = b
		c.Changes[i].Record = &r
	}
	return c, nil
}

// Bounds of the opened records that are kept, so that the many readers of one
// record share one.
const (
	openedRecords = 512
	openedBytes   = 2 << 20
)

// opener opens records on their way out. A nil opener gives them as they are.
type opener struct {
	sealer Sealer

	mu    sync.Mutex
	known map[*api.Record]*api.Record
	order []*api.Record // oldest first
	bytes int
}

func newOpener(s Sealer) *opener {
	return &opener{sealer: s, known: map[*api.Record]*api.Record{}}
}

// open gives a record as it was before it was sealed. What cannot be opened
// here stays sealed, and decoding it says so.
func (o *opener) open(r *api.Record) *api.Record {
	if o == nil || r == nil || !seal.Is(r.Bytes) {
		return r
	}
	o.mu.Lock()
	plain := o.known[r]
	o.mu.Unlock()
	if plain != nil {
		return plain
	}
	b, err := o.sealer.Open(r)
	if err != nil {
		return r
	}
	opened := *r
	opened.Bytes = b
	return o.keep(r, &opened)
}

func (o *opener) keep(r, opened *api.Record) *api.Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	if first := o.known[r]; first != nil {
		return first
	}
	o.known[r], o.order = opened, append(o.order, r)
	o.bytes += len(r.Bytes)
	for len(o.order) > openedRecords || o.bytes > openedBytes && len(o.order) > 1 {
		oldest := o.order[0]
		o.bytes -= len(oldest.Bytes)
		delete(o.known, oldest)
		o.order = o.order[1:]
	}
	return opened
}

// Use makes readers of the state see records opened. Call it before others know
// the state.
func (m *Mem) Use(s Sealer) {
	if s != nil {
		m.opener = newOpener(s)
		m.frozen.Store(nil)
	}
}

// Raw is the same state with its records as they are stored, sealed.
func (s *Snapshot) Raw() *Snapshot { return &Snapshot{state: s.state, codec: s.codec} }
