package apiserver

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	// bookmarkEvery is how often a watcher that asked for bookmarks hears how
	// far it has come, and lastBookmark how long before its time is over.
	bookmarkEvery = time.Minute
	lastBookmark  = 2 * time.Second
)

// Watch implements api.Resources.
func (s *Server) Watch(ctx context.Context, u api.User, t api.Target, o api.WatchOptions) (api.Stream, error) {
	k, err := s.enterMany(u, t, o.Selection, "watch")
	if err != nil {
		return nil, err
	}
	if err := checkWatch(o); err != nil {
		return nil, err
	}
	sel, err := selection(k, t, o.Selection)
	if err != nil {
		return nil, err
	}
	spoken := k
	k = k.Stored()
	at, err := readAt(o.ResourceVersion, "", 0)
	if err != nil {
		return nil, err
	}
	st := &stream{sel: sel, bookmarks: o.Bookmarks, last: time.Now()}
	from, list := at.Revision, at.Level != store.AtLeast // with a revision, what came after it
	if o.SendInitialEvents != nil {
		list = *o.SendInitialEvents
	}
	snap, err := s.snapshot(ctx, at)
	if err != nil {
		return nil, err
	}
	if list || from == 0 {
		from = snap.Revision()
	}
	if list {
		st.first = initial(k, sel, snap, o)
	}
	if o.SendInitialEvents != nil && list {
		st.told = from // by the bookmark that ends them
	}
	name, _ := sel.exactName()
	st.watch, err = s.store.Watch(ctx, store.Filter{Resource: k.KeyResource(), Namespace: t.Namespace, Name: name}, from)
	if err != nil {
		return nil, err
	}
	if spoken.As != nil {
		return shownStream{st, spoken, s.codec}, nil
	}
	return st, nil
}

// initial gives what is there as events, and for who asked for it the bookmark
// that ends them.
func initial(k *api.Kind, sel matcher, snap *store.Snapshot, o api.WatchOptions) []api.WatchEvent {
	var out []api.WatchEvent
	for r := range sel.scan(k, snap, api.Key{}) {
		out = append(out, api.WatchEvent{Type: api.Added, Record: r, Revision: r.Revision})
	}
	if o.SendInitialEvents != nil && o.Bookmarks {
		out = append(out, api.WatchEvent{Type: api.Bookmark, Revision: snap.Revision(), InitialEnd: true})
	}
	return out
}

// stream is a store watch seen through a selection.
type stream struct {
	watch     *store.Watch
	sel       matcher
	first     []api.WatchEvent
	bookmarks bool
	last      time.Time // of the last bookmark
	told      uint64
	final     bool // the bookmark before the end was due
}

// Stop implements api.Stream.
func (s *stream) Stop() { s.watch.Stop() }

// Next implements api.Stream.
func (s *stream) Next(ctx context.Context) ([]api.WatchEvent, error) {
	if len(s.first) > 0 {
		first := s.first
		s.first = nil
		return first, readable(first)
	}
	for {
		events, upTo, due, err := s.pull(ctx)
		if err != nil {
			return nil, err
		}
		var out []api.WatchEvent
		for i := range events {
			if w, ok := s.see(&events[i]); ok {
				out = append(out, w)
			}
		}
		if due {
			s.last = time.Now()
			if upTo > s.told {
				s.told = upTo
				out = append(out, api.WatchEvent{Type: api.Bookmark, Revision: upTo})
			}
		}
		if len(out) > 0 {
			return out, readable(out)
		}
	}
}

// readable refuses events about what is sealed here.
func readable(events []api.WatchEvent) error {
	for _, e := range events {
		if e.Record == nil {
			continue
		}
		if err := e.Record.Readable(); err != nil {
			return err
		}
	}
	return nil
}

// pull waits for events, for no longer than the next bookmark is due, and
// reports whether it is.
func (s *stream) pull(ctx context.Context) (events []store.Event, upTo uint64, due bool, err error) {
	if !s.bookmarks {
		events, upTo, err = s.watch.Next(ctx)
		return events, upTo, false, err
	}
	at := s.nextBookmark(ctx)
	short, cancel := context.WithDeadline(ctx, at)
	defer cancel()
	events, upTo, err = s.watch.Next(short)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, upTo, true, nil
	}
	return events, upTo, !time.Now().Before(at), err
}

// nextBookmark is a minute after the last one, or a moment before the end of
// the watch, so that the next watch goes on from there.
func (s *stream) nextBookmark(ctx context.Context) time.Time {
	at := s.last.Add(bookmarkEvery)
	end, ok := ctx.Deadline()
	if !ok || s.final {
		return at
	}
	end = end.Add(-lastBookmark)
	if !end.After(at) {
		at = end
	}
	s.final = !at.After(time.Now())
	return at
}

// see translates one change: an object that leaves the selection is deleted
// for this watcher, one that enters it is new.
func (s *stream) see(e *store.Event) (api.WatchEvent, bool) {
	was := e.Old != nil && s.sel.matches(e.Old)
	is := e.New != nil && s.sel.matches(e.New)
	switch {
	case is && was:
		return api.WatchEvent{Type: api.Modified, Record: e.New, Revision: e.Revision}, true
	case is:
		return api.WatchEvent{Type: api.Added, Record: e.New, Revision: e.Revision}, true
	case was:
		last := *e.Old
		last.Revision = e.Revision
		return api.WatchEvent{Type: api.Deleted, Record: &last, Revision: e.Revision}, true
	}
	return api.WatchEvent{}, false
}
