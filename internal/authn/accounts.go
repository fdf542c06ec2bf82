package authn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/satoken"
	"github.com/wherry-project/wherry/internal/seal"
	"github.com/wherry-project/wherry/internal/store"
)

// What a user's extra says of the token that it came with.
const (
	extraCredential = "authentication.kubernetes.io/credential-id"
	extraPodName    = "authentication.kubernetes.io/pod-name"
	extraPodUID     = "authentication.kubernetes.io/pod-uid"
	extraNodeName   = "authentication.kubernetes.io/node-name"
	extraNodeUID    = "authentication.kubernetes.io/node-uid"
)

const (
	// stillValid is how long a token outlives the deletionTimestamp of what it
	// is bound to: a pod that ends may say goodbye.
	stillValid = time.Minute
	// keepKeys is how long a key is believed after another replaced it: no
	// token lives longer.
	keepKeys = longest + 24*time.Hour
	// mostKeys bounds how many keys are believed at a time.
	mostKeys = 32
	// longest is the most that a token is given, and what those get that were
	// asked for as old programs ask: they read their token once.
	longest = 365 * 24 * time.Hour
	// asMounted is the lifetime that the volume of every pod asks for.
	asMounted = 3607 * time.Second
)

// tokenKeysKey names the record of the keys: its resource is one that is
// sealed at rest.
func tokenKeysKey() api.Key { return api.Key{Resource: "tokenkeys" + seal.Suffix, Name: "cluster"} }

// AccountsConfig are the parts of Accounts.
type AccountsConfig struct {
	State store.Reader
	// Issuer is the URL that all tokens name, and the audience of those that
	// ask for no other.
	Issuer string
	// Static are tokens of a file, for the API itself.
	Static Tokens
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Accounts gives out tokens of service accounts, and believes them for as long
// as what they are bound to is there. It may be used by many goroutines.
type Accounts struct {
	cfg AccountsConfig

	mu       sync.Mutex // guards the keys as they were last read
	keys     *satoken.KeySet
	keysFrom uint64
}

// NewAccounts makes an Accounts.
func NewAccounts(cfg AccountsConfig) *Accounts {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Accounts{cfg: cfg}
}

// Issuer is the URL that tokens name.
func (a *Accounts) Issuer() string { return a.cfg.Issuer }

// FoundKeys gives the record of a new cluster's first key.
func FoundKeys(now time.Time) (store.Change, error) {
	s, err := satoken.New(now)
	if err != nil {
		return store.Change{}, err
	}
	return putKeys(s, store.Cond{Absent: true})
}

func putKeys(s *satoken.KeySet, cond store.Cond) (store.Change, error) {
	b, err := s.Encode()
	if err != nil {
		return store.Change{}, err
	}
	key := tokenKeysKey()
	return store.Change{Op: store.Put, If: cond, Key: key, Record: &api.Record{Key: key, Bytes: b}}, nil
}

// KeepKeys makes the first key where a cluster has none, as one of an older
// version, and forgets those of which no token can be left.
func (a *Accounts) KeepKeys(ctx context.Context, w store.Writer) error {
	snap, err := a.cfg.State.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return err
	}
	r, ok := snap.Get(tokenKeysKey())
	if !ok {
		c, err := FoundKeys(a.cfg.Now())
		if err != nil {
			return err
		}
		return commitKeys(ctx, w, c)
	}
	keys, err := a.keysOf(snap)
	if err != nil {
		return err
	}
	kept := keys.Kept(a.cfg.Now(), keepKeys)
	if len(kept.Keys()) == len(keys.Keys()) {
		return nil
	}
	c, err := putKeys(kept, store.Cond{Revision: r.Revision})
	if err != nil {
		return err
	}
	return commitKeys(ctx, w, c)
}

// RotateKeys lets a new key sign from now on, and gives its id and how many are
// believed. Tokens that the former ones signed stay good until they end.
func (a *Accounts) RotateKeys(ctx context.Context, w store.Writer) (id string, believed int, err error) {
	snap, err := a.cfg.State.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return "", 0, err
	}
	keys, err := a.keysOf(snap)
	if err != nil {
		return "", 0, err
	}
	now := a.cfg.Now()
	if kept := keys.Kept(now, keepKeys).Keys(); len(kept) >= mostKeys {
		return "", 0, apierr.New(apierr.ErrConflict, "%d keys are believed already, which is the most; the oldest is forgotten on %s, so rotate again after that",
			len(kept), kept[len(kept)-2].Created.Add(keepKeys).Format(time.DateOnly))
	}
	if keys, err = keys.Rotated(now, keepKeys); err != nil {
		return "", 0, err
	}
	r, _ := snap.Get(tokenKeysKey())
	c, err := putKeys(keys, store.Cond{Revision: r.Revision})
	if err != nil {
		return "", 0, err
	}
	if _, err := w.Commit(ctx, store.Command{Changes: []store.Change{c}}); err != nil {
		var lost *store.CompareError
		if errors.As(err, &lost) {
			err = apierr.New(apierr.ErrConflict, "another has changed the keys at this moment; look, and rotate again")
		}
		return "", 0, err
	}
	all := keys.Keys()
	return all[0].ID, len(all), nil
}

func commitKeys(ctx context.Context, w store.Writer, c store.Change) error {
	_, err := w.Commit(ctx, store.Command{Changes: []store.Change{c}})
	var lost *store.CompareError
	if errors.As(err, &lost) {
		return nil // another was as fast, and its key is as good
	}
	return err
}

// keysOf gives the keys of a state.
func (a *Accounts) keysOf(snap *store.Snapshot) (*satoken.KeySet, error) {
	r, ok := snap.Get(tokenKeysKey())
	if !ok {
		return nil, apierr.Unavailable("the cluster has no key for service account tokens yet")
	}
	if seal.Is(r.Bytes) {
		return nil, apierr.Unavailable("the keys for service account tokens are sealed, and this controld has not been given the key yet; try again, or ask another")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys != nil && a.keysFrom == r.Revision {
		return a.keys, nil
	}
	s, err := satoken.Decode(r.Bytes)
	if err != nil {
		return nil, apierr.Internal(err)
	}
	a.keys, a.keysFrom = s, r.Revision
	return s, nil
}

func (a *Accounts) now(ctx context.Context) (*store.Snapshot, *satoken.KeySet, error) {
	snap, err := a.cfg.State.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return nil, nil, err
	}
	keys, err := a.keysOf(snap)
	return snap, keys, err
}

// JWKS is the public halves of the keys.
func (a *Accounts) JWKS(ctx context.Context) ([]byte, error) {
	_, keys, err := a.now(ctx)
	if err != nil {
		return nil, err
	}
	return keys.JWKS()
}

// Discovery is the document that names the issuer and where its keys are.
func (a *Accounts) Discovery(context.Context) ([]byte, error) {
	return satoken.Discovery(a.cfg.Issuer, a.cfg.Issuer+"/openid/v1/jwks")
}

// User is who holds a token that is meant for the API itself.
func (a *Accounts) User(ctx context.Context, token string) (api.User, error) {
	u, _, err := a.Review(ctx, token, nil)
	return u, err
}

// Review is who holds a token that is meant for one of the audiences, and for
// which of them; none are the API's own.
func (a *Accounts) Review(ctx context.Context, token string, audiences []string) (api.User, []string, error) {
	u, ok := a.cfg.Static.find(token)
	if m := bootstrapToken.FindStringSubmatch(token); !ok && m != nil {
		var err error
		if u, err = a.bootstrap(ctx, m[1], m[2]); err != nil {
			return api.User{}, nil, err
		}
		ok = true
	}
	if ok {
		if len(audiences) > 0 && !slices.Contains(audiences, a.cfg.Issuer) {
			return api.User{}, nil, fmt.Errorf("the token is for the audience %q, not for %q", a.cfg.Issuer, audiences)
		}
		return u, []string{a.cfg.Issuer}, nil
	}
	snap, keys, err := a.now(ctx)
	if err != nil {
		return api.User{}, nil, err
	}
	now := a.cfg.Now()
	c, err := keys.Verify(token, a.cfg.Issuer, now)
	if errors.Is(err, satoken.ErrLegacy) {
		return a.legacy(ctx, snap, keys, token, audiences)
	}
	if err != nil {
		return api.User{}, nil, err
	}
	if len(audiences) == 0 {
		audiences = []string{a.cfg.Issuer}
	}
	var meant []string
	for _, want := range audiences {
		if c.Audience.Contains(want) {
			meant = append(meant, want)
		}
	}
	if len(meant) == 0 {
		return api.User{}, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string(c.Audience), audiences)
	}
	if err := bound(snap, c.Bound, now); err != nil {
		// Another member may have made the account a moment ago.
		fresh, ferr := a.cfg.State.Snapshot(ctx, store.At{Level: store.Linearizable})
		switch {
		case ferr != nil:
			return api.User{}, nil, ferr // nobody can say now that it is wrong
		case fresh.Revision() == snap.Revision():
			return api.User{}, nil, err
		}
		if err := bound(fresh, c.Bound, now); err != nil {
			return api.User{}, nil, err
		}
	}
	return userOf(c), meant, nil
}

// bound looks whether all is there that a token is bound to.
func bound(snap *store.Snapshot, b satoken.Bound, now time.Time) error {
	for _, on := range []struct {
		resource, namespace string
		ref                 *satoken.Ref
	}{
		{"serviceaccounts", b.Namespace, &b.ServiceAccount}, {"secrets", b.Namespace, b.Secret},
		{"pods", b.Namespace, b.Pod}, {"nodes", "", b.Node},
	} {
		if on.ref == nil || on.resource == "nodes" && b.Pod != nil { // a pod's node is told, not asked
			continue
		}
		r, ok := snap.Get(api.Key{Resource: on.resource, Namespace: on.namespace, Name: on.ref.Name})
		if !ok || r.UID != on.ref.UID {
			return fmt.Errorf("the token is bound to %s %q, which is no longer there", on.resource, on.ref.Name)
		}
		if !r.Index.Deleting {
			continue
		}
		obj, err := store.Decode[api.Object](snap, r)
		if err != nil {
			return err
		}
		if d := obj.GetDeletionTimestamp(); d != nil && now.After(d.Add(stillValid)) {
			return fmt.Errorf("the token is bound to %s %q, which has been deleted", on.resource, on.ref.Name)
		}
	}
	return nil
}

func userOf(c satoken.Claims) api.User {
	b := c.Bound
	u := api.User{
		Name: c.Subject, UID: b.ServiceAccount.UID,
		Groups: []string{allServiceAccounts, allServiceAccounts + ":" + b.Namespace},
		Extra:  map[string][]string{},
	}
	if c.ID != "" {
		u.Extra[extraCredential] = []string{"JTI=" + c.ID}
	}
	if b.Pod != nil {
		u.Extra[extraPodName], u.Extra[extraPodUID] = []string{b.Pod.Name}, []string{b.Pod.UID}
	}
	if b.Node != nil {
		u.Extra[extraNodeName], u.Extra[extraNodeUID] = []string{b.Node.Name}, []string{b.Node.UID}
	}
	return u
}

// Issue answers a request for a token of an account. The request was validated;
// what it wants the token bound to is looked up here.
func (a *Accounts) Issue(snap *store.Snapshot, account *corev1.ServiceAccount, r *authenticationv1.TokenRequest) error {
	keys, err := a.keysOf(snap)
	if err != nil {
		return err
	}
	ref := satoken.Ref{Name: account.Name, UID: string(account.UID)}
	b := satoken.Bound{Namespace: account.Namespace, ServiceAccount: ref}
	if err := bind(snap, account, r.Spec.BoundObjectRef, &b); err != nil {
		return err
	}
	if len(r.Spec.Audiences) == 0 {
		r.Spec.Audiences = []string{a.cfg.Issuer}
	}
	now := a.cfg.Now()
	lasts := min(time.Duration(*r.Spec.ExpirationSeconds)*time.Second, longest)
	want := satoken.Request{Issuer: a.cfg.Issuer, Audiences: r.Spec.Audiences, Bound: b, Now: now, Lasts: lasts}
	if b.Pod != nil && lasts == asMounted && slices.Equal(r.Spec.Audiences, []string{a.cfg.Issuer}) {
		want.Lasts, want.WarnAfter = longest, lasts
	}
	token, err := keys.Sign(want)
	if err != nil {
		return apierr.Internal(err)
	}
	r.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.Time{Time: now.Add(lasts).Truncate(time.Second)}}
	return nil
}

// bind finds what a token is to be bound to.
func bind(snap *store.Snapshot, account *corev1.ServiceAccount, on *authenticationv1.BoundObjectReference, b *satoken.Bound) error {
	if on == nil {
		return nil
	}
	key := api.Key{Namespace: account.Namespace, Name: on.Name}
	switch on.Kind {
	case "Pod":
		key.Resource = "pods"
	case "Secret":
		key.Resource = "secrets"
	case "Node":
		key = api.Key{Resource: "nodes", Name: on.Name}
	default:
		return apierr.BadRequest("cannot bind token for serviceaccount to object of type %s", on.Kind)
	}
	r, ok := snap.Get(key)
	if !ok {
		return apierr.NotFound(key.Resource, on.Name)
	}
	if on.UID != "" && string(on.UID) != r.UID {
		return apierr.Conflict(key.Resource, on.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", on.UID))
	}
	ref := &satoken.Ref{Name: on.Name, UID: r.UID}
	switch on.Kind {
	case "Secret":
		b.Secret = ref
	case "Node":
		b.Node = ref
	case "Pod":
		b.Pod = ref
		pod, err := store.Decode[*corev1.Pod](snap, r)
		if err != nil {
			return err
		}
		if pod.Spec.ServiceAccountName != account.Name {
			return apierr.BadRequest("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account.Name)
		}
		if node, ok := snap.Get(api.Key{Resource: "nodes", Name: pod.Spec.NodeName}); ok && pod.Spec.NodeName != "" {
			b.Node = &satoken.Ref{Name: pod.Spec.NodeName, UID: node.UID}
		}
	}
	return nil
}
