package gateway

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/render"
)

// deleteOptions are in the body, or among the parameters if there is none.
func (c *call) deleteOptions() (o metav1.DeleteOptions, err error) {
	b, err := c.read()
	if err != nil {
		return o, err
	}
	if len(b) > 0 {
		media, err := mediaType(c.r)
		if err != nil {
			return o, err
		}
		want := metav1.SchemeGroupVersion.WithKind("DeleteOptions")
		want.Group = ""
		if _, err := api.Decode(media, b, want, &o, api.ValidateIgnore); err != nil {
			return o, err
		}
	} else {
		q := c.r.URL.Query()
		if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&q, &o, nil); err != nil {
			return o, apierr.BadRequest("%w", err)
		}
	}
	c.entry.Request(&o)
	if errs := metavalidation.ValidateDeleteOptions(&o); len(errs) > 0 {
		return o, invalidOptions("DeleteOptions", errs)
	}
	return o, nil
}

// delete answers DELETE of one object.
func (c *call) delete() error {
	k, err := c.kind()
	if err != nil {
		return err
	}
	f, err := c.form(render.Table, render.Partial)
	if err != nil {
		return err
	}
	o, err := c.deleteOptions()
	if err != nil {
		return err
	}
	d, err := c.g.cfg.API.Delete(c.r.Context(), c.user, c.path.Target, o)
	if err != nil {
		return err
	}
	if !d.Gone || d.Kind.DeleteAnswersObject {
		return c.value(http.StatusOK, f, k, d.Value)
	}
	c.warn = append(c.warn, d.Warnings...)
	return c.object(http.StatusOK, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
		// Kubernetes puts the resource where the kind belongs.
		Details: &metav1.StatusDetails{Name: c.path.Name, Group: d.Kind.Group, Kind: d.Kind.Resource, UID: d.UID},
	})
}

// deleteCollection answers DELETE of a collection, with what it deleted.
func (c *call) deleteCollection() error {
	f, err := c.form(render.Table, render.PartialList, render.Partial)
	if err != nil {
		return err
	}
	o, err := c.deleteOptions()
	if err != nil {
		return err
	}
	l, sel, err := listOptions(c.r.URL.Query())
	if err != nil {
		return err
	}
	page, err := c.g.cfg.API.DeleteCollection(c.r.Context(), c.user, c.path.Target, api.ListOptions{
		Selection: sel, Limit: l.Limit, Continue: l.Continue,
		ResourceVersion: l.ResourceVersion, ResourceVersionMatch: l.ResourceVersionMatch,
	}, o)
	if err != nil {
		return err
	}
	c.warn = append(c.warn, page.Warnings...)
	return c.answer(http.StatusOK, f.ContentType(), func(w *body) error { return c.g.render.Page(w, f, page) })
}
