// Package render puts objects, lists and watch events into the form that a
// client accepts: JSON, YAML or protobuf, whole, as a Table, or as metadata
// only. Stored bytes are spliced rather than decoded where the form allows it.
package render

import (
	"mime"
	"slices"
	"strconv"
	"strings"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// As says into what objects are turned.
type As string

// The forms of an object; Whole is the object itself.
const (
	Whole       As = ""
	Table       As = "Table"
	Partial     As = "PartialObjectMetadata"
	PartialList As = "PartialObjectMetadataList"
)

// Form is how a client wants to be answered.
type Form struct {
	// Media is api.MediaJSON, MediaYAML or MediaProtobuf.
	Media string
	As    As
	// Version of meta.k8s.io for As, v1 or v1beta1.
	Version string
	Pretty  bool
	// Include is what the rows of a table hold: None, Metadata (which is the
	// default) or Object.
	Include string
	// NoHeaders leaves a table's columns out.
	NoHeaders bool
}

// maxClauses bounds how much of an Accept header is read.
const maxClauses = 64

// clause is one entry of an Accept header.
type clause struct {
	media  string
	params map[string]string
	q      float64
}

// Negotiate chooses the form for an Accept header among those that the answer
// can be turned into besides Whole. An error is of kind apierr NotAcceptable.
func Negotiate(accept string, can ...As) (Form, error) {
	for _, c := range clauses(accept) {
		if f, ok := c.form(can); ok {
			return f, nil
		}
	}
	return Form{}, apierr.NotAcceptable("only the following media types are accepted: %s, %s, %s", api.MediaJSON, api.MediaYAML, api.MediaProtobuf)
}

// Clauses gives the media types of an Accept header with their parameters, the
// most wanted first.
func clauses(accept string) []clause {
	if strings.TrimSpace(accept) == "" {
		return []clause{{media: "*/*", q: 1}}
	}
	var out []clause
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil || len(out) == maxClauses {
			continue
		}
		c := clause{media: media, params: params, q: 1}
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			c.q = q
		}
		if c.q > 0 {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b clause) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	return out
}

// form is what a clause asks for, if it can be had.
func (c clause) form(can []As) (Form, bool) {
	f := Form{Media: c.media}
	switch c.media {
	case "*/*", "application/*":
		f.Media = api.MediaJSON
	case api.MediaJSON, api.MediaYAML, api.MediaProtobuf:
	default:
		return f, false
	}
	if p, ok := c.params["pretty"]; ok {
		f.Pretty = p == "1"
	}
	as := As(c.params["as"])
	if as == Whole {
		return f, true
	}
	f.As, f.Version = as, c.params["v"]
	known := c.params["g"] == "meta.k8s.io" && (f.Version == "v1" || f.Version == "v1beta1")
	// A Table has no protobuf form.
	return f, known && slices.Contains(can, as) && (as != Table || f.Media != api.MediaProtobuf)
}

// ContentType is the header of an answer in this form.
func (f Form) ContentType() string { return f.Media }

// StreamType is the header of a watch in this form.
func (f Form) StreamType() string {
	if f.Media == api.MediaJSON {
		return f.Media
	}
	return f.Media + ";stream=watch"
}

// Discovery finds out whether an Accept header asks for aggregated discovery
// before anything else, and the version asked for, v2 or v2beta1.
func Discovery(accept string) (version, contentType string, ok bool) {
	for _, c := range clauses(accept) {
		switch {
		case c.media == api.MediaJSON && c.params["g"] == "apidiscovery.k8s.io" && c.params["as"] == "APIGroupDiscoveryList":
			if v := c.params["v"]; v == "v2" || v == "v2beta1" {
				return v, api.MediaJSON + ";g=apidiscovery.k8s.io;v=" + v + ";as=APIGroupDiscoveryList", true
			}
		case c.params["as"] == "" && (c.media == api.MediaJSON || c.media == api.MediaYAML || c.media == api.MediaProtobuf || c.media == "*/*" || c.media == "application/*"):
			return "", "", false
		}
	}
	return "", "", false
}
