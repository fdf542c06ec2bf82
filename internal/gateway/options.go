package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/render"
)

// form negotiates how to answer with one object.
func (c *call) form(can ...render.As) (render.Form, error) {
	q := c.r.URL.Query()
	f, err := render.Negotiate(c.r.Header.Get("Accept"), can...)
	if err != nil {
		return f, err
	}
	f.Pretty = f.Pretty || pretty(c.r, q)
	if f.As == render.Table {
		f.Include = q.Get("includeObject")
		known := []string{"", string(metav1.IncludeNone), string(metav1.IncludeMetadata), string(metav1.IncludeObject)}
		if !slices.Contains(known, f.Include) {
			return f, invalidOptions("TableOptions", field.ErrorList{field.Invalid(field.NewPath("includeObject"), f.Include, "must be 'Metadata', 'Object', 'None', or empty")})
		}
	}
	return f, nil
}

// pretty reports whether a person will read the answer.
func pretty(r *http.Request, q url.Values) bool {
	if v := q.Get("pretty"); v != "" {
		return v != "0" && !strings.EqualFold(v, "false")
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

func invalidOptions(kind string, errs field.ErrorList) error {
	return apierr.Invalid(kind+".meta.k8s.io", "", errs)
}

// listOptions are the parameters of lists, watches and deletions of
// collections.
func listOptions(q url.Values) (metav1.ListOptions, api.Selection, error) {
	var o metav1.ListOptions
	var sel api.Selection
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&q, &o, nil); err != nil {
		return o, sel, apierr.BadRequest("%w", err)
	}
	var err error
	if o.LabelSelector != "" {
		if sel.Labels, err = labels.Parse(o.LabelSelector); err != nil {
			return o, sel, apierr.BadRequest("%w", err)
		}
	}
	if o.FieldSelector != "" {
		if sel.Fields, err = fields.ParseSelector(o.FieldSelector); err != nil {
			return o, sel, apierr.BadRequest("%w", err)
		}
	}
	if o.Limit < 0 {
		return o, sel, apierr.BadRequest("limit must not be negative")
	}
	errs := listvalidation.ValidateListOptions(&internalversion.ListOptions{
		Watch: o.Watch, ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch,
		Continue: o.Continue, SendInitialEvents: o.SendInitialEvents,
	}, true)
	if len(errs) > 0 {
		return o, sel, invalidOptions("ListOptions", errs)
	}
	if o.Continue != "" && o.ResourceVersion != "" && o.ResourceVersion != "0" {
		return o, sel, apierr.BadRequest("specifying resource version is not allowed when using continue")
	}
	return o, sel, nil
}

// writeOptions are the parameters of create, update and patch.
func (c *call) writeOptions(pt types.PatchType) (api.WriteOptions, error) {
	q := c.r.URL.Query()
	var o metav1.PatchOptions
	if err := metav1.Convert_url_Values_To_v1_PatchOptions(&q, &o, nil); err != nil {
		return api.WriteOptions{}, apierr.BadRequest("%w", err)
	}
	kind, errs := "PatchOptions", field.ErrorList(nil)
	switch c.path.verb {
	case "create":
		kind = "CreateOptions"
		errs = metavalidation.ValidateCreateOptions(&metav1.CreateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation})
	case "update":
		kind = "UpdateOptions"
		errs = metavalidation.ValidateUpdateOptions(&metav1.UpdateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation})
	default:
		errs = metavalidation.ValidatePatchOptions(&o, pt)
	}
	if len(errs) > 0 {
		return api.WriteOptions{}, invalidOptions(kind, errs)
	}
	out := api.WriteOptions{
		DryRun:          len(o.DryRun) > 0,
		FieldManager:    o.FieldManager,
		Force:           o.Force != nil && *o.Force,
		FieldValidation: o.FieldValidation,
	}
	if out.FieldManager == "" {
		out.FieldManager = agentName(c.r.UserAgent())
	}
	if out.FieldValidation == "" {
		out.FieldValidation = api.ValidateWarn
	}
	return out, nil
}

// agentName is the field manager of a client that names none: the beginning of
// its User-Agent.
func agentName(agent string) string {
	name, _, _ := strings.Cut(agent, "/")
	out := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)
	for len(out) > metavalidation.FieldManagerMaxLength {
		out = out[:len(out)-1]
	}
	return strings.ToValidUTF8(out, "")
}

// mediaType is the form of a request's body.
func mediaType(r *http.Request) (string, error) {
	text := r.Header.Get("Content-Type")
	if text == "" {
		return api.MediaJSON, nil
	}
	media, _, err := mime.ParseMediaType(text)
	if err != nil {
		return "", apierr.UnsupportedMediaType("the body of the request was in an unknown format - Content-Type %q: %w", text, err)
	}
	return media, nil
}

// read reads the request's body, within the limit.
func (c *call) read() ([]byte, error) {
	limit := c.g.cfg.Limits.Body
	if c.r.ContentLength > limit {
		return nil, apierr.TooLarge("limit is %d", limit)
	}
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, limit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, apierr.TooLarge("limit is %d", limit)
	}
	if err != nil {
		return nil, apierr.BadRequest("read the request's body: %w", err)
	}
	return b, nil
}
