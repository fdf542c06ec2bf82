package store

import (
	"fmt"
	"iter"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Get gives one decoded object, shared and read-only; an error of kind apierr
// NotFound if there is none.
func Get[T api.Object](s *Snapshot, key api.Key) (T, error) {
	r, ok := s.Get(key)
	if !ok {
		var none T
		return none, apierr.NotFound(key.Resource, key.Name)
	}
	return Decode[T](s, r)
}

// Decode gives a record's object, shared and read-only.
func Decode[T api.Object](s *Snapshot, r *api.Record) (T, error) {
	var none T
	obj, err := s.codec.Decode(r)
	if err != nil {
		return none, err
	}
	t, ok := obj.(T)
	if !ok {
		return none, fmt.Errorf("decode %s: it is a %T, not a %T", r.Key, obj, none)
	}
	return t, nil
}

// List gives the decoded objects of a resource, in one namespace or all, in
// order; they are shared and read-only.
func List[T api.Object](s *Snapshot, resource, namespace string) ([]T, error) {
	return decodeAll[T](s, s.Scan(resource, namespace, api.Key{}))
}

// Owned gives the decoded objects that have uid among their owners.
func Owned[T api.Object](s *Snapshot, uid, resource string) ([]T, error) {
	return decodeAll[T](s, s.OwnedBy(uid, resource))
}

func decodeAll[T api.Object](s *Snapshot, records iter.Seq[*api.Record]) ([]T, error) {
	var out []T
	for r := range records {
		t, err := Decode[T](s, r)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}
