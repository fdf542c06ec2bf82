package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// eventBytes bounds the events of one command.
const eventBytes = 256 << 10

// PutEvents stores Events, new ones and ones that count further, in few commands
// however many they are: Events cost no Raft entry each. The objects become the
// server's. An event that cannot be stored (its namespace is gone or ending, it
// is invalid, its name is another's) is dropped, and the error says so; the
// others are stored.
func (d *Direct) PutEvents(ctx context.Context, events []*corev1.Event) error {
	s := d.s
	k, err := s.resolve(api.Target{Version: "v1", Resource: "events"}, "create")
	if err != nil {
		return err
	}
	if err := s.Authorize(d.user, api.Target{Version: "v1", Resource: "events"}, "create"); err != nil {
		return err
	}
	var refused []error
	var batch []*api.Record
	size := 0
	commit := func() error {
		failed, err := s.putEvents(ctx, batch)
		refused, batch, size = append(refused, failed...), nil, 0
		return err
	}
	for _, e := range newest(events) {
		r, err := s.eventRecord(k, e)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		if size += len(r.Bytes); size > eventBytes && len(batch) > 0 {
			if err := commit(); err != nil {
				return err
			}
			size = len(r.Bytes)
		}
		batch = append(batch, r)
	}
	if err := commit(); err != nil {
		return err
	}
	if len(refused) > 0 {
		return fmt.Errorf("%d of %d events dropped, the first: %w", len(refused), len(events), refused[0])
	}
	return nil
}

// newest drops the events that come again later.
func newest(events []*corev1.Event) []*corev1.Event {
	last := map[api.Key]int{}
	for i, e := range events {
		last[api.Key{Namespace: e.Namespace, Name: e.Name}] = i
	}
	var out []*corev1.Event
	for i, e := range events {
		if last[api.Key{Namespace: e.Namespace, Name: e.Name}] == i {
			out = append(out, e)
		}
	}
	return out
}

func (s *Server) eventRecord(k *api.Kind, e *corev1.Event) (*api.Record, error) {
	if e.UID == "" {
		s.freshMeta(k, e)
	}
	e.ResourceVersion = ""
	if k.Default != nil {
		k.Default(e)
	}
	if errs := s.validate(k, e, nil, ""); len(errs) > 0 {
		return nil, apierr.Invalid("Event", e.Name, errs)
	}
	return k.Record(e)
}

// putEvents commits a batch, and gives what was refused of it.
func (s *Server) putEvents(ctx context.Context, batch []*api.Record) (refused []error, err error) {
	if len(batch) == 0 {
		return nil, nil
	}
	tries := 0
	err = s.attempt(ctx, func(snap *store.Snapshot) (bool, error) {
		var c store.Command
		refused = nil
		tries++
		places := map[string]bool{}
		for _, r := range batch {
			change, err := putEvent(snap, r)
			switch {
			case err != nil:
				refused = append(refused, err)
			case change != nil:
				c.Changes = append(c.Changes, *change)
				places[r.Namespace] = true
			}
		}
		if len(refused) > 0 && tries == 1 || len(c.Changes) == 0 {
			return false, nil // this replica may be behind: ask again
		}
		for ns := range places {
			c.Changes = append(c.Changes, sameNamespace(snap, ns))
		}
		_, err := s.store.Commit(ctx, c)
		return err == nil, err
	})
	return refused, err
}

// putEvent is the change that writes an event, if its namespace takes it; nil if
// it is there already.
func putEvent(snap *store.Snapshot, r *api.Record) (*store.Change, error) {
	ns, err := store.Get[*corev1.Namespace](snap, api.Key{Resource: "namespaces", Name: r.Namespace})
	if err != nil {
		return nil, err
	}
	if ns.DeletionTimestamp != nil {
		return nil, apierr.Forbidden("events", r.Name, errors.New("its namespace is being terminated"))
	}
	was, ok := snap.Get(r.Key)
	switch {
	case !ok:
		return &store.Change{Op: store.Put, If: store.Cond{Absent: true}, Key: r.Key, Record: r}, nil
	case was.UID != r.UID:
		return nil, apierr.AlreadyExists("events", r.Name)
	case bytes.Equal(was.Full(), r.Full()):
		return nil, nil
	}
	return &store.Change{Op: store.Put, If: store.Cond{UID: r.UID}, Key: r.Key, Record: r}, nil
}
