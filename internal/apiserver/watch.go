package apiserver

import (
	"context"
	"errors"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// bookmarkEvery is how often a watcher that asked for bookmarks hears how far
// it has come.
const bookmarkEvery = time.Minute

// Watch implements api.Resources.
func (s *Server) Watch(ctx context.Context, u api.User, t api.Target, o api.WatchOptions) (api.Stream, error) {
	k, err := s.enter(u, t, "watch")
	if err != nil {
		return nil, err
	}
	sel, err := selection(k, t, o.Selection)
	if err != nil {
		return nil, err
	}
	initial := o.SendInitialEvents != nil && *o.SendInitialEvents
	if err := checkWatch(k, o, initial); err != nil {
		return nil, err
	}
	st := &stream{sel: sel, bookmarks: o.Bookmarks, last: time.Now()}
	from, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
	if err != nil && o.ResourceVersion != "" {
		return nil, apierr.BadRequest("invalid resource version %q: want a decimal number", o.ResourceVersion)
	}
	if from == 0 || initial {
		at, err := readAt(o.ResourceVersion, "", 0)
		if err != nil {
			return nil, err
		}
		snap, err := s.snapshot(ctx, at)
		if err != nil {
			return nil, err
		}
		if o.SendInitialEvents == nil || initial {
			st.first = synthetic(page(k, t, sel, snap, api.Key{}, 0))
		}
		if initial && o.Bookmarks {
			st.first = append(st.first, api.WatchEvent{Type: api.Bookmark, Revision: snap.Revision(), InitialEnd: true})
		}
		from = snap.Revision()
	} else if _, err := s.snapshot(ctx, store.At{Level: store.AtLeast, Revision: from}); err != nil {
		return nil, err
	}
	st.watch, err = s.store.Watch(ctx, store.Filter{Resource: k.KeyResource(), Namespace: t.Namespace, Name: nameOf(t, sel)}, from)
	if err != nil {
		return nil, err
	}
	return st, nil
}

func checkWatch(k *api.Kind, o api.WatchOptions, initial bool) error {
	var errs field.ErrorList
	switch {
	case o.SendInitialEvents == nil && o.ResourceVersionMatch != "":
		errs = append(errs, field.Forbidden(field.NewPath("resourceVersionMatch"), "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
	case o.SendInitialEvents != nil && o.ResourceVersionMatch != metav1.ResourceVersionMatchNotOlderThan:
		errs = append(errs, field.Forbidden(field.NewPath("resourceVersionMatch"), "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
	case initial && !o.Bookmarks:
		errs = append(errs, field.Forbidden(field.NewPath("sendInitialEvents"), "sendInitialEvents requires allowWatchBookmarks"))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierr.Invalid("ListOptions.meta.k8s.io", "", errs)
}

func nameOf(t api.Target, sel matcher) string {
	if t.Name != "" {
		return t.Name
	}
	name, _ := sel.exact("metadata.name")
	return name
}

func synthetic(p *api.Page) []api.WatchEvent {
	out := make([]api.WatchEvent, 0, len(p.Records)+1)
	for _, r := range p.Records {
		out = append(out, api.WatchEvent{Type: api.Added, Record: r, Revision: r.Revision})
	}
	return out
}

// stream is a store watch seen through a selection.
type stream struct {
	watch     *store.Watch
	sel       matcher
	first     []api.WatchEvent
	bookmarks bool
	last      time.Time
	told      uint64
}

// Stop implements api.Stream.
func (s *stream) Stop() { s.watch.Stop() }

// Next implements api.Stream.
func (s *stream) Next(ctx context.Context) ([]api.WatchEvent, error) {
	if len(s.first) > 0 {
		first := s.first
		s.first = nil
		return first, nil
	}
	for {
		events, upTo, err := s.pull(ctx)
		if err != nil {
			return nil, err
		}
		var out []api.WatchEvent
		for _, e := range events {
			if w, ok := s.see(e); ok {
				out = append(out, w)
			}
		}
		if s.bookmarks && time.Since(s.last) >= bookmarkEvery && upTo > s.told {
			s.last, s.told = time.Now(), upTo
			out = append(out, api.WatchEvent{Type: api.Bookmark, Revision: upTo})
		}
		if len(out) > 0 {
			return out, nil
		}
	}
}

// pull waits for events, for no longer than the next bookmark is due.
func (s *stream) pull(ctx context.Context) ([]store.Event, uint64, error) {
	if !s.bookmarks {
		return s.watch.Next(ctx)
	}
	due, cancel := context.WithDeadline(ctx, s.last.Add(bookmarkEvery))
	defer cancel()
	events, upTo, err := s.watch.Next(due)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		if upTo <= s.told { // nothing new to tell: ask again a minute later
			s.last = time.Now()
		}
		return nil, upTo, nil
	}
	return events, upTo, err
}

// see translates one change: an object that leaves the selection is deleted
// for this watcher, one that enters it is new.
func (s *stream) see(e store.Event) (api.WatchEvent, bool) {
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
