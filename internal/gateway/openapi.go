package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// OpenAPI gives the schema documents; *openapi.Documents does.
type OpenAPI interface {
	// Index gives the hash of each v3 document by its path ("apis/apps/v1").
	Index() (map[string]string, error)
	// V3 and V3Proto give one document.
	V3(path string) ([]byte, error)
	V3Proto(path string) ([]byte, error)
	// V2 and V2Proto give the document of everything, and its hash.
	V2() (doc []byte, hash string, err error)
	V2Proto() (doc []byte, hash string, err error)
}

const openAPITypes = "application/com.github.proto-openapi.spec."

// wantsProto reports whether the client prefers the protobuf of a version of
// OpenAPI, and gives the content type. Clients write it with an @, which is not
// legal in a media type, so it is looked for as text.
func wantsProto(accept, version string) (string, bool) {
	answer := openAPITypes + version + ".v1.0+protobuf"
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(media) {
		case answer, openAPITypes + version + "@v1.0+protobuf":
			return answer, true
		case api.MediaJSON, "*/*", "application/*":
			return "", false
		}
	}
	return "", false
}

// openAPI answers below /openapi.
func (c *call) openAPI(parts []string) error {
	o := c.g.cfg.OpenAPI
	if o == nil || len(parts) == 0 {
		return errNoPage
	}
	c.w.Header().Add("Vary", "Accept")
	switch {
	case parts[0] == "v2" && len(parts) == 1:
		return c.openAPIv2(o)
	case parts[0] == "v3" && len(parts) == 1:
		return c.openAPIIndex(o)
	case parts[0] == "v3":
		return c.openAPIv3(o, strings.Join(parts[1:], "/"))
	}
	return errNoPage
}

func (c *call) openAPIv2(o OpenAPI) error {
	contentType, get := api.MediaJSON, o.V2
	if proto, ok := wantsProto(c.r.Header.Get("Accept"), "v2"); ok {
		contentType, get = proto, o.V2Proto
	}
	doc, hash, err := get()
	if err != nil {
		return apierr.Internal(err)
	}
	return c.tagged(contentType, doc, hash)
}

func (c *call) openAPIIndex(o OpenAPI) error {
	index, err := o.Index()
	if err != nil {
		return apierr.Internal(err)
	}
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for path, hash := range index {
		paths[path] = entry{openAPIURL(path, hash)}
	}
	return c.json(map[string]any{"paths": paths})
}

func openAPIURL(path, hash string) string {
	return "/openapi/v3/" + path + "?hash=" + url.QueryEscape(hash)
}

func (c *call) openAPIv3(o OpenAPI, path string) error {
	index, err := o.Index()
	if err != nil {
		return apierr.Internal(err)
	}
	hash, ok := index[path]
	if !ok {
		return errNoPage
	}
	if asked := c.r.URL.Query().Get("hash"); asked != "" && asked != hash {
		http.Redirect(c.w, c.r, openAPIURL(path, hash), http.StatusMovedPermanently)
		return nil
	} else if asked != "" {
		// The hash is part of the address: this answer is good for ever.
		c.w.Header().Set("Cache-Control", "public, immutable")
		c.w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	contentType, get := api.MediaJSON, o.V3
	if proto, ok := wantsProto(c.r.Header.Get("Accept"), "v3"); ok {
		contentType, get = proto, o.V3Proto
	}
	doc, err := get(path)
	if err != nil {
		return apierr.Internal(err)
	}
	return c.tagged(contentType, doc, hash)
}
