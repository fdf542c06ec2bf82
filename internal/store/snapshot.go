package store

import (
	"iter"

	"github.com/wherry-project/wherry/internal/api"
)

// Snapshot is the state at one revision. It is frozen and needs no lock; any
// number of goroutines may read it for as long as they like.
type Snapshot struct {
	state  state
	codec  *api.Codec
	opener *opener
}

// Revision is the revision of the last command the snapshot has.
func (s *Snapshot) Revision() uint64 { return s.state.revision }

// Codec decodes the snapshot's records.
func (s *Snapshot) Codec() *api.Codec { return s.codec }

// Get gives one record; it is shared and read-only.
func (s *Snapshot) Get(key api.Key) (*api.Record, bool) {
	r := s.opener.open(s.state.get(key))
	return r, r != nil
}

// Scan gives the records of a resource in order of namespace and name, in one
// namespace or in all (""), starting after the namespace and name of after
// unless after is zero.
func (s *Snapshot) Scan(resource, namespace string, after api.Key) iter.Seq[*api.Record] {
	return func(yield func(*api.Record) bool) {
		at := atLeast(resource, namespace, "")
		if after != (api.Key{}) {
			after.Resource = resource
			if begin := (api.Key{Resource: resource, Namespace: namespace}); compareKeys(&after, &begin) >= 0 {
				at = func(r *api.Record) bool { return compareKeys(&r.Key, &after) > 0 }
			}
		}
		s.state.records.from(at, func(r *api.Record) bool {
			return r.Resource == resource && (namespace == "" || r.Namespace == namespace) && yield(s.opener.open(r))
		})
	}
}

// Count is how many records Scan gives.
func (s *Snapshot) Count(resource, namespace string) int {
	// The byte after the last name or namespace is the next possible key.
	end := atLeast(resource+"\x00", "", "")
	if namespace != "" {
		end = atLeast(resource, namespace+"\x00", "")
	}
	return s.state.records.rank(end) - s.state.records.rank(atLeast(resource, namespace, ""))
}

// Resources gives the resources that have records, in order.
func (s *Snapshot) Resources() iter.Seq[string] {
	return func(yield func(string) bool) {
		for last := ""; ; {
			var next string
			s.state.records.from(atLeast(last, "", ""), func(r *api.Record) bool {
				next = r.Resource
				return false
			})
			if next == "" || !yield(next) {
				return
			}
			last = next + "\x00"
		}
	}
}

// OwnedBy gives the records that have uid among their owners: of one resource,
// or of any ("").
func (s *Snapshot) OwnedBy(uid string, resource string) iter.Seq[*api.Record] {
	return func(yield func(*api.Record) bool) {
		s.ascend(&s.state.owned, uid, resource, yield)
	}
}

// ByField gives the records of a resource whose indexed field has a value. Pods
// by spec.nodeName have an index of their own; other fields are scanned.
func (s *Snapshot) ByField(resource, field, value string) iter.Seq[*api.Record] {
	return func(yield func(*api.Record) bool) {
		if resource == indexedResource && field == indexedField {
			s.ascend(&s.state.fields, value, resource, yield)
			return
		}
		for r := range s.Scan(resource, "", api.Key{}) {
			if r.Index.Fields[field] == value && !yield(r) {
				return
			}
		}
	}
}

// ascend yields the records of an index that have a value, of one resource or
// of all.
func (s *Snapshot) ascend(index *tree[entry], value, resource string, yield func(*api.Record) bool) {
	begin := entry{value, &api.Record{Key: api.Key{Resource: resource}}}
	index.from(
		func(e entry) bool { return compareEntries(e, begin) >= 0 },
		func(e entry) bool {
			return e.value == value && (resource == "" || e.record.Resource == resource) && yield(s.opener.open(e.record))
		})
}

func atLeast(resource, namespace, name string) func(*api.Record) bool {
	key := api.Key{Resource: resource, Namespace: namespace, Name: name}
	return func(r *api.Record) bool { return compareKeys(&r.Key, &key) >= 0 }
}
