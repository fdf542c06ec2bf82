package store

import (
	"cmp"
	"slices"
	"strings"

	"github.com/wherry-project/wherry/internal/api"
)

// state is the records and what finds them: the objects by key, by owner, and
// by the fields that have an index.
type state struct {
	revision uint64
	records  tree[*api.Record]
	owned    tree[entry]
	fields   tree[entry]
}

// entry is one place of a record in an index, ordered by value and then key.
type entry struct {
	value  string
	record *api.Record
}

func newState() state {
	return state{
		records: newTree(func(a, b *api.Record) int { return compareKeys(&a.Key, &b.Key) }),
		owned:   newTree(compareEntries),
		fields:  newTree(compareEntries),
	}
}

func (s *state) freeze() state {
	return state{s.revision, s.records.freeze(), s.owned.freeze(), s.fields.freeze()}
}

func (s state) thaw() state {
	return state{s.revision, s.records.thaw(), s.owned.thaw(), s.fields.thaw()}
}

func compareKeys(a, b *api.Key) int {
	return cmp.Or(
		strings.Compare(a.Resource, b.Resource),
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name),
	)
}

func compareEntries(a, b entry) int {
	if c := strings.Compare(a.value, b.value); c != 0 {
		return c
	}
	return compareKeys(&a.record.Key, &b.record.Key)
}

// indexedField is the one field that has an index: which pods are where.
const (
	indexedResource = "pods"
	indexedField    = "spec.nodeName"
)

func (s *state) get(key api.Key) *api.Record {
	r, _ := s.records.get(&api.Record{Key: key})
	return r
}

// put writes a record in the place of old, which may be nil.
func (s *state) put(r, old *api.Record) {
	s.records.put(r)
	if old != nil {
		for _, uid := range old.Index.Owners {
			if !slices.Contains(r.Index.Owners, uid) {
				s.owned.delete(entry{uid, old})
			}
		}
	}
	for _, uid := range r.Index.Owners {
		s.owned.put(entry{uid, r})
	}
	if r.Resource != indexedResource {
		return
	}
	value := r.Index.Fields[indexedField]
	if old != nil && old.Index.Fields[indexedField] != value {
		s.fields.delete(entry{old.Index.Fields[indexedField], old})
	}
	s.fields.put(entry{value, r})
}

// delete removes a record that is there.
func (s *state) delete(old *api.Record) {
	s.records.delete(old)
	for _, uid := range old.Index.Owners {
		s.owned.delete(entry{uid, old})
	}
	if old.Resource == indexedResource {
		s.fields.delete(entry{old.Index.Fields[indexedField], old})
	}
}

// undo takes an event back.
func (s *state) undo(e Event) {
	switch {
	case e.Old == nil:
		s.delete(e.New)
	default:
		s.put(e.Old, e.New)
	}
}

// meets reports whether a condition holds of the current record.
func meets(c Change, current *api.Record) bool {
	if c.If.Absent {
		return current == nil
	}
	if current == nil {
		return c.Op == Put && c.If.Revision == 0 && c.If.UID == ""
	}
	return (c.If.Revision == 0 || c.If.Revision == current.Revision) &&
		(c.If.UID == "" || c.If.UID == current.UID)
}
