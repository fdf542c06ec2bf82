package store

import (
	"context"
	"errors"
)

// Watch reads the ring of recent events at its own pace. It is pulled: nothing
// is queued for it, and objects are never copied. One goroutine at a time may
// call Next.
type Watch struct{}

// Next blocks until there are events of interest and gives a batch of them in
// order, each once, with the revision up to which everything has been
// delivered. When ctx ends first it gives ctx's error and still the revision
// reached, which is what a bookmark says; the watch goes on with the next call.
// The batch may be used until the next call. An error of kind apierr Expired
// says that the reader was too slow and fell out of the ring.
func (w *Watch) Next(ctx context.Context) (events []Event, upTo uint64, err error) {
	return nil, 0, errors.New("not built yet")
}

// Stop ends the watch; a Next that waits returns.
func (w *Watch) Stop() {}
