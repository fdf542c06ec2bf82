package kubelethttp

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
)

// reviewer knows the tokens of prom, who may read metrics, and of eve.
type reviewer struct {
	down  bool
	asked int
}

func (r *reviewer) ReviewToken(_ context.Context, t *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	r.asked++
	if r.down {
		return nil, errors.New("nobody answers")
	}
	if t.Spec.Token == "prom" || t.Spec.Token == "eve" {
		t.Status.Authenticated, t.Status.User.Username = true, t.Spec.Token
	}
	return t, nil
}

func (r *reviewer) ReviewAccess(_ context.Context, a *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	r.asked++
	if r.down {
		return nil, errors.New("nobody answers")
	}
	on := a.Spec.ResourceAttributes
	a.Status.Allowed = a.Spec.User == "prom" && on.Verb == "get" && on.Resource == "nodes" && on.Subresource == "metrics" && on.Name == "n1"
	return a, nil
}

func TestReviews(t *testing.T) {
	api := &reviewer{}
	peer := pki.Peer{}
	cfg := Config{Node: "n1", Reviewer: api, Peer: func(*tls.ConnectionState) (pki.Peer, error) { return peer, nil }}
	g := &guard{}
	ask := func(path, token string) apierr.Kind {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		err := g.allowed(cfg, r)
		if err == nil {
			return ""
		}
		return apierr.KindOf(err)
	}
	for _, c := range []struct {
		path, token string
		peer        pki.Peer
		want        apierr.Kind
	}{
		{"/metrics", "prom", pki.Peer{}, ""},
		{"/metrics/cadvisor", "prom", pki.Peer{}, ""},
		{"/pods", "prom", pki.Peer{}, apierr.ErrForbidden},
		{"/stats/summary", "prom", pki.Peer{}, apierr.ErrForbidden},
		{"/logs/syslog", "prom", pki.Peer{}, apierr.ErrForbidden},
		{"/metrics", "eve", pki.Peer{}, apierr.ErrForbidden},
		{"/metrics", "wrong", pki.Peer{}, apierr.ErrUnauthorized},
		{"/metrics", "", pki.Peer{Role: pki.Nobody}, apierr.ErrUnauthorized},
		{"/metrics", "", pki.Peer{Role: pki.User, User: "prom"}, ""},
		{"/metrics", "", pki.Peer{Role: pki.User, User: "jane"}, apierr.ErrForbidden},
		{"/pods", "", pki.Peer{Role: pki.User, User: "root", Groups: []string{pki.MastersGroup}}, ""},
		{"/pods", "", pki.Peer{Role: pki.Member}, ""},
	} {
		peer = c.peer
		if got := ask(c.path, c.token); got != c.want {
			t.Errorf("%s with %q as %+v: %q, want %q", c.path, c.token, c.peer, got, c.want)
		}
	}
	// What was said is remembered; what is not known is not guessed.
	api.asked, api.down = 0, true
	if got := ask("/metrics", "prom"); got != "" || api.asked != 0 {
		t.Errorf("asked again %d times: %q", api.asked, got)
	}
	if got := ask("/metrics", "another"); got != apierr.ErrUnavailable {
		t.Errorf("without the API: %q", got)
	}
	peer = pki.Peer{Role: pki.Member}
	if got := ask("/pods", ""); got != "" {
		t.Errorf("a member without the API: %q", got)
	}
}
