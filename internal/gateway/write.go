package gateway

import (
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/render"
)

// decode reads the object in the body of a create or update.
func (c *call) decode(k *api.Kind, validation string) (runtime.Object, error) {
	want, obj := k.GVK(), runtime.Object(nil)
	if sub, ok := k.Subresource(c.path.Subresource); ok {
		want = k.Body(sub)
		if sub.New != nil {
			obj = sub.New()
		}
	} else if c.path.Subresource != "" {
		return nil, c.notServed()
	}
	if obj == nil {
		obj = k.New()
	}
	media, err := mediaType(c.r)
	if err != nil {
		return nil, err
	}
	b, err := c.read()
	if err != nil {
		return nil, err
	}
	if err := k.Shallow(media, b); err != nil {
		return nil, err
	}
	warnings, err := api.Decode(media, b, want, obj, validation)
	if err == nil {
		c.entry.Request(obj)
	}
	c.warn = append(c.warn, warnings...)
	return obj, err
}

// prepare does what create and update begin with.
func (c *call) prepare() (k *api.Kind, f render.Form, o api.WriteOptions, obj runtime.Object, err error) {
	if k, err = c.kind(); err != nil {
		return
	}
	forms := []render.As{render.Table, render.Partial}
	if k.Virtual {
		forms = nil // an answer to a question, and nothing that is kept
	}
	if f, err = c.form(forms...); err != nil {
		return
	}
	if o, err = c.writeOptions(""); err != nil {
		return
	}
	obj, err = c.decode(k, o.FieldValidation)
	return
}

// create answers POST.
func (c *call) create() error {
	k, f, o, obj, err := c.prepare()
	if err != nil {
		return err
	}
	v, err := c.g.cfg.API.Create(c.r.Context(), c.user, c.path.Target, obj, o)
	if err != nil {
		return err
	}
	if st, ok := v.Object.(*metav1.Status); ok { // of what is asked for and not kept
		c.warn = append(c.warn, v.Warnings...)
		return c.object(http.StatusCreated, st)
	}
	return c.value(http.StatusCreated, f, k, v)
}

// update answers PUT.
func (c *call) update() error {
	k, f, o, obj, err := c.prepare()
	if err != nil {
		return err
	}
	v, err := c.g.cfg.API.Update(c.r.Context(), c.user, c.path.Target, obj, o)
	if err != nil {
		return err
	}
	return c.value(written(v), f, k, v)
}

// written is the code of an update, which may have made the object.
func written(v api.Value) int {
	if v.Created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// patch answers PATCH.
func (c *call) patch() error {
	k, err := c.kind()
	if err != nil {
		return err
	}
	f, err := c.form(render.Table, render.Partial)
	if err != nil {
		return err
	}
	pt, err := patchType(c.r)
	if err != nil {
		return err
	}
	o, err := c.writeOptions(pt)
	if err != nil {
		return err
	}
	b, err := c.read()
	if err != nil {
		return err
	}
	c.keepPatch(b)
	v, err := c.g.cfg.API.Patch(c.r.Context(), c.user, c.path.Target, pt, b, o)
	if err != nil {
		return err
	}
	return c.value(written(v), f, k, v)
}

// patchType is the kind of a patch, by its media type.
func patchType(r *http.Request) (types.PatchType, error) {
	known := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyPatchType}
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	media = strings.TrimSpace(media)
	var names []string
	for _, pt := range known {
		if string(pt) == media {
			return pt, nil
		}
		names = append(names, string(pt))
	}
	return "", apierr.UnsupportedMediaType("the body of the request was in an unknown format - accepted media types include: %s", strings.Join(names, ", "))
}
