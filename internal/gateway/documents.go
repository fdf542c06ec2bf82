package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/render"
)

const (
	masters    = "system:masters"
	monitoring = "system:monitoring"
)

// servePath answers what is no resource.
func (c *call) servePath() error {
	p := "/" + strings.Trim(c.r.URL.Path, "/")
	if err := c.mayPath(p); err != nil {
		return err
	}
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return errMethod()
	}
	parts := strings.Split(p[1:], "/")
	switch {
	case p == "/":
		return c.root()
	case parts[0] == "healthz" || parts[0] == "livez" || parts[0] == "readyz":
		return c.health(parts)
	case p == "/version":
		return c.json(c.g.cfg.Version)
	case p == "/metrics":
		c.g.serveMx.ServeHTTP(c.w, c.r)
		return nil
	case p == openIDPath && c.g.cfg.OpenID != nil:
		return c.openID("application/json", c.g.cfg.OpenID.Discovery)
	case p == jwksPath && c.g.cfg.OpenID != nil:
		return c.openID("application/jwk-set+json", c.g.cfg.OpenID.JWKS)
	case p == "/api" || p == "/apis":
		return c.groups(p == "/api")
	case parts[0] == "api" && len(parts) == 2:
		return c.document(c.g.docs.Resources("", parts[1]))
	case parts[0] == "apis" && len(parts) == 2:
		return c.document(c.g.docs.Group(parts[1]))
	case parts[0] == "apis" && len(parts) == 3:
		return c.document(c.g.docs.Resources(parts[1], parts[2]))
	case parts[0] == "openapi":
		return c.openAPI(parts[1:])
	}
	return errNoPage
}

// errNoPage says that there is no such path, as web servers do.
var errNoPage = errors.New("404 page not found")

// mayPath authorizes what is no resource.
func (c *call) mayPath(p string) error {
	verb := strings.ToLower(c.r.Method)
	if c.g.cfg.AuthorizePath != nil {
		return c.g.cfg.AuthorizePath(c.user, verb, p)
	}
	root, _, _ := strings.Cut(p[1:], "/")
	switch {
	case slices.Contains([]string{"healthz", "livez", "readyz", "version"}, root), c.user.Has(masters):
		return nil
	case root == "metrics" && c.user.Has(monitoring):
		return nil
	case root != "metrics" && c.user.Has(authn.Authenticated):
		return nil
	}
	return apierr.New(apierr.ErrForbidden, "forbidden: User %q cannot %s path %q", c.user.Name, verb, p)
}

// document answers with a discovery document, if there is one.
func (c *call) document(obj runtime.Object, ok bool) error {
	if !ok {
		return errNoPage
	}
	return c.object(http.StatusOK, obj)
}

// groups answers /api and /apis, in the form that the client knows.
func (c *call) groups(core bool) error {
	c.w.Header().Add("Vary", "Accept")
	version, contentType, ok := render.Discovery(c.r.Header.Get("Accept"))
	switch {
	case ok:
		list := c.g.docs.Aggregated(core)
		list.APIVersion = "apidiscovery.k8s.io/" + version
		b, err := api.EncodeJSON(list)
		if err != nil {
			return err
		}
		return c.tagged(contentType, b, hashOf(b))
	case core:
		return c.object(http.StatusOK, c.g.docs.Versions())
	}
	return c.object(http.StatusOK, c.g.docs.Groups())
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// tagged answers with a document that the client may have already.
func (c *call) tagged(contentType string, doc []byte, hash string) error {
	tag := `"` + hash + `"`
	c.w.Header().Set("Etag", tag)
	for _, have := range strings.Split(c.r.Header.Get("If-None-Match"), ",") {
		if strings.TrimSpace(have) == tag {
			c.w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	return c.answer(http.StatusOK, contentType, func(w *body) error {
		_, err := w.Write(doc)
		return err
	})
}

// json answers with a value for people and programs.
func (c *call) json(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, api.MediaJSON, func(w *body) error {
		_, err := w.Write(b)
		return err
	})
}

// root lists the paths that are served.
func (c *call) root() error {
	paths := []string{openIDPath, jwksPath, "/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"}
	for _, v := range c.g.docs.Versions().Versions {
		paths = append(paths, "/api/"+v)
	}
	for _, g := range c.g.docs.Groups().Groups {
		paths = append(paths, "/apis/"+g.Name)
		for _, v := range g.Versions {
			paths = append(paths, "/apis/"+v.GroupVersion)
		}
	}
	slices.Sort(paths)
	return c.json(map[string][]string{"paths": paths})
}
