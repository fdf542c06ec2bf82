package gateway

import (
	"context"
	"net/http"
)

// OpenID gives the documents by which others check service account tokens.
type OpenID interface {
	// Discovery is the document of the issuer, JWKS the public keys.
	Discovery(ctx context.Context) ([]byte, error)
	JWKS(ctx context.Context) ([]byte, error)
}

const (
	openIDPath = "/.well-known/openid-configuration"
	jwksPath   = "/openid/v1/jwks"
)

// openID answers with one of the documents; who asks may keep them for an hour.
func (c *call) openID(media string, document func(context.Context) ([]byte, error)) error {
	b, err := document(c.r.Context())
	if err != nil {
		return err
	}
	c.w.Header().Set("Cache-Control", "public, max-age=3600")
	return c.answer(http.StatusOK, media, func(w *body) error {
		_, err := w.Write(b)
		return err
	})
}
