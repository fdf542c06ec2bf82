package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/render"
)

// get answers GET of one object or subresource.
func (c *call) get() error {
	k, err := c.kind()
	if err != nil {
		return err
	}
	f, err := c.form(render.Table, render.Partial)
	if err != nil {
		return err
	}
	v, err := c.g.cfg.API.Get(c.r.Context(), c.user, c.path.Target, api.GetOptions{ResourceVersion: c.r.URL.Query().Get("resourceVersion")})
	if err != nil {
		return err
	}
	return c.value(http.StatusOK, f, k, v)
}

// value answers with an object.
func (c *call) value(status int, f render.Form, k *api.Kind, v api.Value) error {
	c.warn = append(c.warn, v.Warnings...)
	c.keepValue(v)
	return c.answer(status, f.ContentType(), func(w *body) error { return c.g.render.Value(w, f, k, v) })
}

// list answers GET of a collection.
func (c *call) list() error {
	if _, err := c.kind(); err != nil {
		return err
	}
	f, err := c.form(render.Table, render.PartialList, render.Partial)
	if err != nil {
		return err
	}
	o, sel, err := listOptions(c.r.URL.Query())
	if err != nil {
		return err
	}
	ctx := c.r.Context()
	if o.TimeoutSeconds != nil && *o.TimeoutSeconds > 0 && *o.TimeoutSeconds < 3600 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*o.TimeoutSeconds)*time.Second)
		defer cancel()
	}
	page, err := c.g.cfg.API.List(ctx, c.user, c.path.Target, api.ListOptions{
		Selection: sel, Limit: o.Limit, Continue: o.Continue,
		ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch,
	})
	if err != nil {
		return err
	}
	c.keepPage(page)
	c.warn = append(c.warn, page.Warnings...)
	return c.answer(http.StatusOK, f.ContentType(), func(w *body) error { return c.g.render.Page(w, f, page) })
}

// kind finds the kind that the path names.
func (c *call) kind() (*api.Kind, error) {
	t := c.path.Target
	k, ok := c.g.cfg.API.Kinds().Resource(t.Group, t.Version, t.Resource)
	if !ok {
		return nil, c.notServed()
	}
	return k, nil
}

// notServed says that there is no such resource, to those who may ask.
func (c *call) notServed() error {
	if err := c.g.cfg.Authorize(c.user, c.path.Target, c.path.verb); err != nil {
		return err
	}
	if _, ok := c.g.docs.Resources(c.path.Group, c.path.Version); !ok {
		return errNoPage
	}
	return errNotServed()
}

func errNotServed() error {
	return apierr.New(apierr.ErrNotFound, "the server could not find the requested resource")
}
