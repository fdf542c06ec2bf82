package store

import (
	"iter"

	"github.com/wherry-project/wherry/internal/api"
)

// Snapshot is the state at one revision. It is frozen and needs no lock; any
// number of goroutines may read it for as long as they like.
type Snapshot struct {
	revision uint64
	codec    *api.Codec
}

// Revision is the revision of the last command the snapshot has.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Codec decodes the snapshot's records.
func (s *Snapshot) Codec() *api.Codec { return s.codec }

// Get gives one record; it is shared and read-only.
func (s *Snapshot) Get(key api.Key) (*api.Record, bool) { return nil, false }

// Scan gives the records of a resource in order of namespace and name, in one
// namespace or in all (""), starting after the namespace and name of after
// unless after is zero.
func (s *Snapshot) Scan(resource, namespace string, after api.Key) iter.Seq[*api.Record] {
	return func(yield func(*api.Record) bool) {}
}

// Count is how many records Scan gives.
func (s *Snapshot) Count(resource, namespace string) int { return 0 }

// OwnedBy gives the records that have uid among their owners: of one resource,
// or of any ("").
func (s *Snapshot) OwnedBy(uid string, resource string) iter.Seq[*api.Record] {
	return func(yield func(*api.Record) bool) {}
}

// ByField gives the records of a resource whose indexed field has a value. Pods
// by spec.nodeName have an index of their own; other fields are scanned.
func (s *Snapshot) ByField(resource, field, value string) iter.Seq[*api.Record] {
	return func(yield func(*api.Record) bool) {}
}
