// Package authn finds out who makes a request: by client certificate, by
// bearer token where a hook knows tokens, or nobody (system:anonymous), and as
// whom a user who may impersonate wants to be seen.
package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
)

// The user and groups that authentication itself gives.
const (
	Anonymous       = "system:anonymous"
	Unauthenticated = "system:unauthenticated"
	Authenticated   = "system:authenticated"
)

// Verifier believes or refuses a certificate; *pki.Verifier is one. Without a
// certificate it answers pki.Nobody.
type Verifier interface {
	Peer(s *tls.ConnectionState) (pki.Peer, error)
}

// Config are the parts of an Authenticator.
type Config struct {
	Verifier Verifier
	// Token knows bearer tokens. An error refuses the request. Nil refuses
	// every token.
	Token func(ctx context.Context, token string) (api.User, error)
	// Authorize answers whether u may do verb (impersonate) to t. Nil lets
	// nobody impersonate.
	Authorize func(u api.User, t api.Target, verb string) error
	// Log is told, at level debug, why a request was refused; nil is told
	// nothing.
	Log *slog.Logger
}

// Authenticator names users. It may be used by many goroutines.
type Authenticator struct {
	cfg  Config
	held held
}

// New makes an authenticator.
func New(cfg Config) *Authenticator { return &Authenticator{cfg: cfg} }

// Request names the user of an HTTP request: the impersonated one if the
// headers ask for it. Errors have the kind apierr Unauthorized, Forbidden or
// BadRequest.
func (a *Authenticator) Request(r *http.Request) (api.User, error) {
	u, err := a.User(r.Context(), r.TLS, r.Header.Get("Authorization"))
	if err != nil {
		return api.User{}, err
	}
	return a.impersonate(u, r.Header)
}

// User names who is at the other end of a connection, or holds the token of an
// Authorization header. A token goes before a certificate, so that a program
// with both acts as its token says.
func (a *Authenticator) User(ctx context.Context, s *tls.ConnectionState, authorization string) (api.User, error) {
	if token, ok := bearer(authorization); ok {
		return a.token(ctx, token)
	}
	p, err := a.cfg.Verifier.Peer(s)
	switch {
	case errors.Is(err, pki.ErrPinned): // members and nodes are told, for their logs
		return api.User{}, apierr.New(apierr.ErrUnauthorized, "Unauthorized: %w", err)
	case err != nil:
		return api.User{}, a.refuse(fmt.Errorf("client certificate: %w", err))
	case p.Role == pki.Nobody:
		return api.User{Name: Anonymous, Groups: []string{Unauthenticated}}, nil
	case p.User == "":
		return api.User{}, a.refuse(errors.New("the client certificate has no common name, so it names no user"))
	}
	return Known(api.User{Name: p.User, Groups: p.Groups}), nil
}

func (a *Authenticator) token(ctx context.Context, token string) (api.User, error) {
	if a.cfg.Token == nil {
		return api.User{}, a.refuse(errors.New("bearer tokens are not accepted here"))
	}
	u, err := a.cfg.Token(ctx, token)
	if err != nil {
		return api.User{}, a.refuse(fmt.Errorf("bearer token: %w", err))
	}
	return Known(u), nil
}

// refuse gives the answer for a user who is not believed: that, and not why,
// which stands in the log. Where it could not be found out the answer says so,
// since a client throws away what it was told to be wrong.
func (a *Authenticator) refuse(why error) error {
	switch apierr.KindOf(why) {
	case apierr.ErrUnavailable, apierr.ErrTimeout, apierr.ErrServerTimeout:
		return why
	}
	if a.cfg.Log != nil {
		a.cfg.Log.Debug("a request is not authenticated", "err", why)
	}
	return &refusal{apierr.Unauthorized(""), why}
}

// refusal is an answer with the reason for it, which the client is not told.
type refusal struct{ answer, why error }

// Error tells the reason: it is for logs.
func (r *refusal) Error() string { return r.answer.Error() + ": " + r.why.Error() }

// Unwrap gives what the client is told first.
func (r *refusal) Unwrap() []error { return []error{r.answer, r.why} }

// bearer takes the token out of an Authorization header.
func bearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(strings.TrimSpace(header), " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "bearer") && token != ""
}

// Known adds the group of all who are somebody.
func Known(u api.User) api.User {
	if !slices.Contains(u.Groups, Authenticated) {
		u.Groups = append(slices.Clone(u.Groups), Authenticated)
	}
	return u
}
