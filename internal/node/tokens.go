package node

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/checkpoint"
)

const (
	// A token is replaced at this part of its life, but after a day at the
	// latest.
	refreshPart = 0.8
	refreshMost = 24 * time.Hour
	// tokenTries is the pause after a replacement could not be had; the token
	// that there is serves on.
	tokenTries = 30 * time.Second
	// tokenLook is how often the tokens are looked through.
	tokenLook = 10 * time.Second
	// tokensFormat is that of the file of tokens.
	tokensFormat = 1
)

// tokenName is what a token is for.
type tokenName struct {
	Pod      string `json:"pod"` // uid
	Audience string `json:"audience,omitempty"`
	Seconds  int64  `json:"seconds"`
}

// heldToken is a token, and when another should be asked for.
type heldToken struct {
	tokenName
	Token   string    `json:"token"`
	Refresh time.Time `json:"refresh"`
}

// tokens are those that the node's pods have. They are kept in a sealed file: a
// node that comes up alone starts its pods with the tokens that they had.
type tokens struct {
	ask  func(ctx context.Context, namespace, account string, want *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	file *checkpoint.Store // nil keeps none
	now  func() time.Time

	mu    sync.Mutex
	held  map[tokenName]heldToken
	dirty bool
	save  chan struct{}
}

func newTokens(ask func(ctx context.Context, namespace, account string, want *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error), file *checkpoint.Store) *tokens {
	return &tokens{ask: ask, file: file, now: time.Now, held: map[tokenName]heldToken{}, save: make(chan struct{}, 1)}
}

// get gives a pod's token: the one that there is until its time is over.
func (t *tokens) get(ctx context.Context, pod *corev1.Pod, want *corev1.ServiceAccountTokenProjection) (string, error) {
	name := tokenName{Pod: string(pod.UID), Audience: want.Audience, Seconds: 3600}
	if want.ExpirationSeconds != nil {
		name.Seconds = *want.ExpirationSeconds
	}
	t.mu.Lock()
	have, ok := t.held[name]
	t.mu.Unlock()
	now := t.now()
	if ok && now.Before(have.Refresh) {
		return have.Token, nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &name.Seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if name.Audience != "" {
		request.Spec.Audiences = []string{name.Audience}
	}
	got, err := t.ask(ctx, pod.Namespace, pod.Spec.ServiceAccountName, request)
	if err == nil && got.Status.Token == "" {
		err = fmt.Errorf("the answer holds no token")
	}
	switch {
	case err != nil && !ok:
		return "", err
	case err != nil: // better an old one than none
		have.Refresh = now.Add(tokenTries)
	default:
		have = heldToken{name, got.Status.Token, refreshAt(now, got.Status.ExpirationTimestamp.Time)}
	}
	t.mu.Lock()
	t.held[name] = have
	t.dirty = t.dirty || err == nil
	t.mu.Unlock()
	signal(t.save)
	return have.Token, nil
}

// refreshAt is when to ask for another token, not for all pods at one moment.
func refreshAt(now, expires time.Time) time.Time {
	life := min(time.Duration(float64(expires.Sub(now))*refreshPart), refreshMost)
	return now.Add(life - rand.N(10*time.Second))
}

// due gives the pods whose tokens should be replaced, and forgets the tokens of
// pods that are no longer here.
func (t *tokens) due(here func(pod string) bool) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	seen := map[string]bool{}
	var pods []string
	for name, have := range t.held {
		switch {
		case !here(name.Pod):
			delete(t.held, name)
			t.dirty = true
		case !now.Before(have.Refresh) && !seen[name.Pod]:
			seen[name.Pod] = true
			pods = append(pods, name.Pod)
		}
	}
	return pods
}

// tokenFile is what is kept.
type tokenFile struct {
	Format int         `json:"format"`
	Tokens []heldToken `json:"tokens"`
}

// load reads the tokens of an earlier noded.
func (t *tokens) load() error {
	if t.file == nil {
		return nil
	}
	b, err := t.file.Load()
	if err != nil || b == nil {
		return err
	}
	var f tokenFile
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("read the tokens of an earlier noded: %w", err)
	}
	if f.Format != tokensFormat {
		return fmt.Errorf("the tokens of an earlier noded have format %d, this noded reads %d", f.Format, tokensFormat)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, have := range f.Tokens {
		t.held[have.tokenName] = have
	}
	return nil
}

// store keeps what changed.
func (t *tokens) store() error {
	if t.file == nil {
		return nil
	}
	t.mu.Lock()
	f := tokenFile{Format: tokensFormat}
	for _, have := range t.held {
		f.Tokens = append(f.Tokens, have)
	}
	dirty := t.dirty
	t.dirty = false
	t.mu.Unlock()
	if !dirty {
		return nil
	}
	b, err := json.Marshal(f)
	if err == nil {
		err = t.file.Save(b)
	}
	if err != nil {
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
	}
	return err
}

// keepTokens lets pods' tokens be replaced in time, and keeps them.
func (n *Node) keepTokens(ctx context.Context) {
	tick := time.NewTicker(tokenLook)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			n.freshTokens()
		case <-n.tokens.save:
		}
		if err := n.tokens.store(); err != nil {
			n.log.Error("tokens not kept", "err", err)
		}
	}
}

// freshTokens wakes the workers whose tokens are due.
func (n *Node) freshTokens() {
	n.mu.Lock()
	here := map[string]*worker{}
	for uid, w := range n.workers {
		here[uid] = w
	}
	n.mu.Unlock()
	for _, uid := range n.tokens.due(func(uid string) bool { return here[uid] != nil }) {
		here[uid].Refresh()
	}
}

// ReviewToken asks the API whose a token is.
func (n *Node) ReviewToken(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	return n.link.ReviewToken(ctx, r)
}

// ReviewAccess asks the API what somebody may.
func (n *Node) ReviewAccess(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	return n.link.ReviewAccess(ctx, r)
}
