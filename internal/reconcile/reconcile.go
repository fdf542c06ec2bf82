// Package reconcile is the engine under every controller: it turns changes of
// the store into keys, gives each key to a worker, and tries again later and
// later when that fails. A controller is level-based: it gets a key, reads
// everything from one snapshot, and writes the difference.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// Key is what a controller works on: usually the name of one object.
type Key struct {
	Namespace, Name string
}

// KeyOf is the key of a record.
func KeyOf(r *api.Record) Key { return Key{r.Namespace, r.Name} }

// Writer is the door through which controllers write. apiserver gives one per
// identity. Objects handed in are not shared: the writer may change them.
type Writer interface {
	Create(ctx context.Context, obj api.Object) (api.Object, error)
	// Update replaces an object; its resourceVersion must be current.
	Update(ctx context.Context, obj api.Object) (api.Object, error)
	UpdateStatus(ctx context.Context, obj api.Object) (api.Object, error)
	// UpdateSubresource writes any other subresource, such as finalize; the
	// name is that of the object.
	UpdateSubresource(ctx context.Context, obj api.Object, subresource string) (api.Object, error)
	Delete(ctx context.Context, key api.Key, o metav1.DeleteOptions) error
}

// Recorder takes Events about objects. It does not block and may merge or
// drop events under load.
type Recorder interface {
	Event(about api.Object, eventType, reason, message string)
}

// Input says which changes concern a controller.
type Input struct {
	// Resource is an api.Key.Resource.
	Resource string
	// Keys names what to look at after a change; nil is the object's own key.
	// On start every present record comes as an event without Old.
	Keys func(e store.Event, s *store.Snapshot) []Key
}

// Controller is one control loop.
type Controller struct {
	Name   string
	Inputs []Input
	// Workers is how many keys are worked on at once; 0 is 1. One key is
	// never worked on twice at the same time.
	Workers int
	// Reconcile makes one key right. A delay above 0 asks for another look
	// after it.
	Reconcile func(ctx context.Context, s *store.Snapshot, key Key) (again time.Duration, err error)
}

// Source is what the engine reads of a store.
type Source interface {
	store.Reader
	store.Watcher
}

// Run runs the controller until ctx ends (then it returns nil).
func (c Controller) Run(ctx context.Context, src Source, log *slog.Logger) error {
	q := newQueue()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	workers := max(c.Workers, 1)
	done := make(chan struct{}, workers)
	for range workers {
		go func() {
			c.work(ctx, src, q, log)
			done <- struct{}{}
		}()
	}
	err := c.feed(ctx, src, q, log)
	cancel()
	q.close()
	for range workers {
		<-done
	}
	return err
}

// feed turns changes into keys until ctx ends.
func (c Controller) feed(ctx context.Context, src Source, q *queue, log *slog.Logger) error {
	for pause := time.Duration(0); ; pause = min(pause*2+50*time.Millisecond, 5*time.Second) {
		if !wait(ctx, pause) {
			return nil
		}
		err := c.follow(ctx, src, q)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, apierr.ErrExpired) {
			log.Warn("controller lost its watch and starts over", "controller", c.Name, "err", err)
		} else {
			pause = 0
		}
	}
}

// follow lists once and then watches until that fails.
func (c Controller) follow(ctx context.Context, src Source, q *queue) error {
	snap, err := src.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return err
	}
	inputs := map[string][]Input{}
	for _, in := range c.Inputs {
		inputs[in.Resource] = append(inputs[in.Resource], in)
		for r := range snap.Scan(in.Resource, "", api.Key{}) {
			q.addAll(in.keys(store.Event{Revision: r.Revision, New: r}, snap))
		}
	}
	w, err := src.Watch(ctx, store.Filter{}, snap.Revision())
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		events, _, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if snap, err = src.Snapshot(ctx, store.At{Level: store.Any}); err != nil {
			return err
		}
		for _, e := range events {
			for _, in := range inputs[e.Key().Resource] {
				q.addAll(in.keys(e, snap))
			}
		}
	}
}

func (in Input) keys(e store.Event, s *store.Snapshot) []Key {
	if in.Keys == nil {
		k := e.Key()
		return []Key{{k.Namespace, k.Name}}
	}
	return in.Keys(e, s)
}

// work takes keys until the queue is closed.
func (c Controller) work(ctx context.Context, src Source, q *queue, log *slog.Logger) {
	for {
		key, ok := q.take()
		if !ok {
			return
		}
		again, err := c.once(ctx, src, key)
		switch {
		case ctx.Err() != nil:
			q.done(key, 0)
			return
		case err == nil:
			q.forget(key)
			q.done(key, again)
		default:
			pause := q.failed(key)
			if !errors.Is(err, apierr.ErrConflict) {
				log.Warn("controller tries again", "controller", c.Name, "namespace", key.Namespace, "name", key.Name, "in", pause, "err", err)
			}
			q.done(key, pause)
		}
	}
}

func (c Controller) once(ctx context.Context, src Source, key Key) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	snap, err := src.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return 0, err
	}
	return c.Reconcile(ctx, snap, key)
}

// wait reports whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
