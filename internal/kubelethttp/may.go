package kubelethttp

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
)

// Reviewer asks the API who holds a token, and what somebody may.
type Reviewer interface {
	ReviewToken(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error)
	ReviewAccess(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error)
}

const (
	// How long an answer of the API is believed: a yes, and a no.
	yesFor = time.Minute
	noFor  = 10 * time.Second
	// maxAnswers bounds the answers that are remembered.
	maxAnswers = 1024
)

// answers remembers what the API said.
type answers struct {
	mu    sync.Mutex
	known map[string]known
}

type known struct {
	user  authenticationv1.UserInfo
	err   error
	until time.Time
}

// once gives a remembered answer, or asks. An error of kind Unavailable or
// Timeout is no answer.
func (a *answers) once(key string, ask func() (authenticationv1.UserInfo, error)) (authenticationv1.UserInfo, error) {
	now := time.Now()
	a.mu.Lock()
	k, ok := a.known[key]
	a.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.user, k.err
	}
	k.user, k.err = ask()
	switch kind := apierr.KindOf(k.err); {
	case k.err == nil:
		k.until = now.Add(yesFor)
	case kind == apierr.ErrUnauthorized, kind == apierr.ErrForbidden:
		k.until = now.Add(noFor)
	default:
		return k.user, k.err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxAnswers || a.known == nil {
		a.known = map[string]known{}
	}
	a.known[key] = k
	return k.user, k.err
}

// guard decides who may see what. Administrators and members may see all, also
// while the API cannot be reached; all others what the API says that they may
// of nodes/proxy, nodes/metrics, nodes/stats and nodes/log.
type guard struct {
	answers answers
}

func (g *guard) allowed(cfg Config, r *http.Request) error {
	user, err := g.user(cfg, r)
	if err != nil || user == nil {
		return err
	}
	verb, sub := map[string]string{http.MethodGet: "get", http.MethodHead: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method], subresource(r.URL.Path)
	refused := apierr.New(apierr.ErrForbidden, "Forbidden (user=%s, verb=%s, resource=nodes, subresource=%s)", user.Username, verb, sub)
	if cfg.Reviewer == nil || verb == "" {
		return refused
	}
	key := fmt.Sprintf("may %q %q %s %s", user.Username, user.Groups, verb, sub)
	_, err = g.answers.once(key, func() (none authenticationv1.UserInfo, err error) {
		spec := authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: cfg.Node},
		}
		answer, err := cfg.Reviewer.ReviewAccess(r.Context(), &authorizationv1.SubjectAccessReview{Spec: spec})
		if err != nil {
			return none, apierr.Unavailable("the API cannot say what %s may: %v", user.Username, err)
		}
		if !answer.Status.Allowed {
			return none, refused
		}
		return none, nil
	})
	return err
}

// user finds out who asks; nil may see all.
func (g *guard) user(cfg Config, r *http.Request) (*authenticationv1.UserInfo, error) {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "bearer") && cfg.Reviewer != nil {
		return g.holder(cfg, r, strings.TrimSpace(token))
	}
	p, err := cfg.Peer(r.TLS)
	switch {
	case err != nil:
		return nil, apierr.New(apierr.ErrUnauthorized, "Unauthorized: %v", err)
	case p.Role == pki.Nobody:
		return nil, apierr.New(apierr.ErrUnauthorized, "Unauthorized: show a client certificate of the cluster, or a service account's token")
	case p.Role == pki.Member, slices.Contains(p.Groups, pki.MastersGroup):
		return nil, nil
	}
	return &authenticationv1.UserInfo{Username: p.User, Groups: append(slices.Clone(p.Groups), "system:authenticated")}, nil
}

// holder finds out whose a token is.
func (g *guard) holder(cfg Config, r *http.Request, token string) (*authenticationv1.UserInfo, error) {
	user, err := g.answers.once(fmt.Sprintf("token %x", sha256.Sum256([]byte(token))), func() (none authenticationv1.UserInfo, err error) {
		answer, err := cfg.Reviewer.ReviewToken(r.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		if err != nil {
			return none, apierr.Unavailable("the API cannot say whose the token is: %v", err)
		}
		if !answer.Status.Authenticated {
			return none, apierr.New(apierr.ErrUnauthorized, "Unauthorized: %s", answer.Status.Error)
		}
		return answer.Status.User, nil
	})
	if err != nil {
		return nil, err
	}
	return &user, nil
}

// subresource is what of nodes a path is.
func subresource(path string) string {
	for prefix, sub := range map[string]string{"/metrics": "metrics", "/stats": "stats", "/logs": "log"} {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return sub
		}
	}
	return "proxy"
}
