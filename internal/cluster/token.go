package cluster

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// Join tokens are Secrets of this type and prefix, with these keys.
const (
	tokenNamespace = "kube-system"
	tokenPrefix    = "bootstrap-token-"
	tokenType      = "bootstrap.kubernetes.io/token"

	tokenID      = "token-id"
	tokenHash    = "token-secret-sha256" // the secret itself is kept nowhere
	tokenExpires = "expiration"
	tokenRole    = "wherry-role"
)

// How long tokens live.
const (
	tokenLife    = 24 * time.Hour
	tokenMinLife = time.Minute
	tokenMaxLife = 365 * 24 * time.Hour
)

// CreateToken implements wherryv1.ClusterServer. Tokens that have expired are
// taken away on this occasion.
func (s *Server) CreateToken(ctx context.Context, r *wherryv1.CreateTokenRequest) (*wherryv1.CreateTokenResponse, error) {
	u, err := s.master(ctx, "make join tokens")
	if err != nil {
		return nil, err
	}
	role, err := roleOf(r.GetRole())
	if err != nil {
		return nil, err
	}
	life := time.Duration(r.GetTtlSeconds()) * time.Second
	if r.GetTtlSeconds() == 0 {
		life = tokenLife
	}
	if life < tokenMinLife || life > tokenMaxLife {
		return nil, apierr.BadRequest("ttl_seconds: %d: must be 60 (a minute) to 31536000 (a year), or 0 for 24 hours", r.GetTtlSeconds())
	}
	snap, err := s.cfg.Store.Snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return nil, err
	}
	ca, err := s.authority(snap)
	if err != nil {
		return nil, err
	}
	token, err := pki.NewToken(ca.Hash())
	if err != nil {
		return nil, apierr.Internal(err)
	}
	door := s.cfg.As(u)
	kept := token.Stored(role, s.cfg.Now().Add(life).Truncate(time.Second))
	if _, err := door.Create(ctx, tokenSecret(kept)); err != nil {
		return nil, err
	}
	s.dropExpired(ctx, snap, door)
	return &wherryv1.CreateTokenResponse{Token: token.String(), Expires: kept.Expires.UTC().Format(time.RFC3339)}, nil
}

func tokenSecret(t pki.StoredToken) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: tokenNamespace, Name: tokenPrefix + t.ID},
		Type:       tokenType,
		Data: map[string][]byte{
			tokenID:      []byte(t.ID),
			tokenHash:    []byte(hex.EncodeToString(t.SecretHash)),
			tokenExpires: []byte(t.Expires.UTC().Format(time.RFC3339)),
			tokenRole:    []byte(t.Role),
		},
	}
}

// storedToken reads what tokenSecret made.
func storedToken(s *corev1.Secret) (pki.StoredToken, error) {
	hash, err := hex.DecodeString(string(s.Data[tokenHash]))
	expires, terr := time.Parse(time.RFC3339, string(s.Data[tokenExpires]))
	if err := errors.Join(err, terr); err != nil || s.Type != tokenType {
		return pki.StoredToken{}, errors.New("secret " + s.Name + " holds no join token of Wherry's")
	}
	return pki.StoredToken{ID: string(s.Data[tokenID]), SecretHash: hash, Expires: expires, Role: pki.Role(s.Data[tokenRole])}, nil
}

func tokenKey(id string) api.Key {
	return api.Key{Resource: "secrets", Namespace: tokenNamespace, Name: tokenPrefix + id}
}

// admit checks a token. The change it gives makes the command depend on the
// token still being there.
func (s *Server) admit(snap *store.Snapshot, token pki.Token, role pki.Role) (store.Change, error) {
	var kept *pki.StoredToken
	var revision uint64
	if r, ok := snap.Get(tokenKey(token.ID)); ok {
		secret, err := store.Decode[*corev1.Secret](snap, r)
		if err != nil {
			return store.Change{}, err
		}
		t, err := storedToken(secret)
		if err != nil {
			return store.Change{}, apierr.New(apierr.ErrUnauthorized, "%w: %w", pki.ErrTokenUnknown, err)
		}
		kept, revision = &t, r.Revision
	}
	if err := token.Check(kept, role, s.cfg.Now()); err != nil {
		return store.Change{}, apierr.New(apierr.ErrUnauthorized, "%w", err)
	}
	return store.Change{Op: store.Check, Key: tokenKey(token.ID), If: store.Cond{Revision: revision}}, nil
}

// dropExpired removes tokens that nobody can use any more. What fails stays
// until the next token is made.
func (s *Server) dropExpired(ctx context.Context, snap *store.Snapshot, door Door) {
	for r := range snap.Scan("secrets", tokenNamespace, api.Key{}) {
		if r.Index.Fields["type"] != tokenType {
			continue
		}
		secret, err := store.Decode[*corev1.Secret](snap, r)
		if err != nil {
			continue
		}
		t, err := storedToken(secret)
		if err != nil || s.cfg.Now().Before(t.Expires) {
			continue
		}
		if err := door.Delete(ctx, r.Key, metav1.DeleteOptions{}); err != nil && !errors.Is(err, apierr.ErrNotFound) {
			s.cfg.Log.Warn("expired join token not removed", "token", t.ID, "err", err)
		}
	}
}
