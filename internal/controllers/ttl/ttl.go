// Package ttl removes Events that are an hour old.
package ttl

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "ttl"

const (
	// Life is how long an Event is kept after it was last counted.
	Life = time.Hour
	// every is how often the Events are looked through, atOnce how many are
	// deleted concurrently: they share log entries.
	every  = time.Minute
	atOnce = 64
)

// New makes the controller.
func New(w reconcile.Writer) reconcile.Controller {
	return reconcile.Controller{
		Name: Name,
		// One key, from the start on: the cluster always has a namespace.
		Inputs: []reconcile.Input{{Resource: "namespaces", Keys: func(e store.Event, _ *store.Snapshot) []reconcile.Key {
			if e.Old != nil {
				return nil
			}
			return []reconcile.Key{{}}
		}}},
		Reconcile: func(ctx context.Context, s *store.Snapshot, _ reconcile.Key) (time.Duration, error) {
			old, err := expired(s, time.Now())
			if err != nil {
				return 0, err
			}
			return every, remove(ctx, w, old)
		},
	}
}

// expired are the Events whose time is over at now.
func expired(s *store.Snapshot, now time.Time) ([]api.Key, error) {
	var out []api.Key
	for r := range s.Scan("events", "", api.Key{}) {
		e, err := store.Decode[*corev1.Event](s, r)
		if err != nil {
			return nil, err
		}
		if now.Sub(last(e)) >= Life {
			out = append(out, r.Key)
		}
	}
	return out, nil
}

// last is when an Event was last counted.
func last(e *corev1.Event) time.Time {
	t := e.CreationTimestamp.Time
	for _, other := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time} {
		if other.After(t) {
			t = other
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(t) {
		t = e.Series.LastObservedTime.Time
	}
	return t
}

func remove(ctx context.Context, w reconcile.Writer, keys []api.Key) error {
	slots := make(chan struct{}, atOnce)
	errs := make([]error, len(keys))
	var group sync.WaitGroup
	for i, k := range keys {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := w.Delete(ctx, k, metav1.DeleteOptions{}); !errors.Is(err, apierr.ErrNotFound) {
				errs[i] = err
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}
