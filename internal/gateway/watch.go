package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/render"
	"github.com/wherry-project/wherry/internal/upgrade"
)

// A watch whose client names no time ends after watchTime and up to as long
// again, so that clients do not all come back at once.
const watchTime = 30 * time.Minute

// watch answers with a stream of events.
func (c *call) watch() error {
	k, err := c.kind()
	if err != nil {
		return err
	}
	f, err := c.form(render.Table, render.Partial, render.PartialList)
	if err != nil {
		return err
	}
	if f.Media == api.MediaYAML {
		return apierr.NotAcceptable("only the following media types are accepted: %s, %s;stream=watch", api.MediaJSON, api.MediaProtobuf)
	}
	f.Pretty = false
	if f.As == render.PartialList {
		f.As = render.Partial
	}
	q := c.r.URL.Query()
	q.Set("watch", "true") // the old watch path does not say so
	o, sel, err := listOptions(q)
	if err != nil {
		return err
	}
	limit := watchTime + rand.N(watchTime)
	if o.TimeoutSeconds != nil && *o.TimeoutSeconds > 0 {
		limit = time.Duration(min(*o.TimeoutSeconds, int64(24*time.Hour/time.Second))) * time.Second
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), limit)
	defer cancel()
	stream, err := c.g.cfg.API.Watch(ctx, c.user, c.path.Target, api.WatchOptions{
		Selection: sel, ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch,
		Bookmarks: o.AllowWatchBookmarks, SendInitialEvents: o.SendInitialEvents,
	})
	if err != nil {
		return err
	}
	defer stream.Stop()
	if k.Deprecated != "" {
		c.warn = append(c.warn, k.Deprecated)
	}
	leave := c.g.metrics.watching(c)
	defer leave()
	return c.events(ctx, stream, f, k)
}

// out is where a watch's frames go.
type out struct {
	// write takes frames that belong together, and sends them off.
	write func(frames [][]byte) error
}

// events answers with events until the watch, its time or its client ends.
func (c *call) events(ctx context.Context, stream api.Stream, f render.Form, k *api.Kind) error {
	if upgrade.IsWebSocket(c.r) {
		return c.upgraded(upgrade.Events(ctx, c.w, c.r, c.g.cfg.Limits.Unread, func(ctx context.Context, send func([]byte, bool) error) error {
			return c.frames(ctx, stream, f, k, out{func(frames [][]byte) error {
				for _, b := range frames {
					binary := f.Media == api.MediaProtobuf
					if binary {
						b = b[4:] // a message has a length of its own
					}
					if err := send(b, binary); err != nil {
						return err
					}
				}
				return nil
			}})
		}))
	}
	rc := http.NewResponseController(c.w)
	c.w.Header().Set("Content-Type", f.StreamType())
	c.warnings()
	c.w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return err
	}
	return c.frames(ctx, stream, f, k, out{func(frames [][]byte) error {
		return c.send(func() error {
			for _, b := range frames {
				if _, err := c.w.Write(b); err != nil {
					return err
				}
			}
			return rc.Flush()
		})
	}})
}

// frames hands on what a watch gives. The last frame tells why there is no more,
// if that is not the end of its time or of its client.
func (c *call) frames(ctx context.Context, stream api.Stream, f render.Form, k *api.Kind, to out) error {
	var frames [][]byte
	for {
		events, err := stream.Next(ctx)
		if err != nil {
			if ctx.Err() != nil && apierr.KindOf(err) == apierr.ErrTimeout {
				return nil
			}
			return to.last(f, err)
		}
		frames = frames[:0]
		for _, e := range events {
			b, err := c.g.render.Frame(f, k, e)
			if err != nil {
				return errors.Join(err, to.last(f, err))
			}
			frames = append(frames, b)
			f.NoHeaders = true // a table's columns are told once
		}
		if err := to.write(frames); err != nil {
			return err
		}
		clear(frames) // they are shared: keep none while nothing happens
	}
}

// send writes a part of a long answer, which the client must read in time. The
// limit is set only when it has passed: setting it for each part, and taking it
// off again lest it end a stream on which nothing waits to be read, is half the
// work of a small part over HTTP/2.
func (c *call) send(write func() error) error {
	late := make(chan struct{})
	limit := time.AfterFunc(c.g.cfg.Limits.Unread, func() {
		defer close(late)
		// What is being written ends; where that cannot be, the client has time.
		_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(-time.Second))
	})
	err := write()
	if !limit.Stop() {
		<-late
		return errors.Join(err, errUnread)
	}
	return err
}

var errUnread = errors.New("the client does not read")

// last tells a watcher why there is no more.
func (o out) last(f render.Form, why error) error {
	st := apierr.StatusOf(why)
	f.As = render.Whole
	b, err := render.ErrorFrame(f, &st)
	if err != nil {
		return err
	}
	return o.write([][]byte{b})
}
