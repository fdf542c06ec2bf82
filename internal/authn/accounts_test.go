package authn_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/store"
)

// TestTokenKeysLife: a key that was replaced is believed for as long as a token
// of it can live, and no longer; and there is an end to how many there are.
func TestTokenKeysLife(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := store.NewLocal(api.NewCodec(api.NewKinds(), 0))
	a := authn.NewAccounts(authn.AccountsConfig{State: s, Issuer: "https://issuer", Now: func() time.Time { return now }})
	believed := func() int {
		t.Helper()
		if err := a.KeepKeys(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		jwks, err := a.JWKS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(jwks), `"kid"`)
	}
	if n := believed(); n != 1 {
		t.Fatalf("a new cluster has %d keys", n)
	}
	id, n, err := a.RotateKeys(t.Context(), s)
	if err != nil || id == "" || n != 2 {
		t.Fatalf("%q, %d, %v", id, n, err)
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 2}, {365 * 24 * time.Hour, 2}, {48 * time.Hour, 1}} {
		now = now.Add(c.after)
		if n := believed(); n != c.want {
			t.Errorf("%s: %d keys, want %d", now, n, c.want)
		}
	}
	for {
		_, n, err = a.RotateKeys(t.Context(), s)
		if err != nil {
			break
		}
		if n > 100 {
			t.Fatal("there is no end to the keys")
		}
	}
	if !errors.Is(err, apierr.ErrConflict) || !strings.Contains(err.Error(), "rotate again after") {
		t.Error(err)
	}
}

// alone is a replica that cannot ask the others.
type alone struct{ *store.Local }

func (a alone) Snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	if at.Level == store.Linearizable {
		return nil, apierr.Unavailable("no leader")
	}
	return a.Local.Snapshot(ctx, at)
}

// TestTokenOfAnAccountThatMayBeThere: a replica that is behind and alone cannot
// say that a token is wrong.
func TestTokenOfAnAccountThatMayBeThere(t *testing.T) {
	s := store.NewLocal(api.NewCodec(api.NewKinds(), 0))
	cfg := authn.AccountsConfig{State: s, Issuer: "https://issuer"}
	a := authn.NewAccounts(cfg)
	if err := a.KeepKeys(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(t.Context(), store.At{})
	if err != nil {
		t.Fatal(err)
	}
	hour := int64(3600)
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "app", UID: "1"}}
	if err := a.Issue(snap, account, r); err != nil {
		t.Fatal(err)
	}
	if _, err := a.User(t.Context(), r.Status.Token); err == nil || errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("the account is not there, and all know: %v", err)
	}
	cfg.State = alone{s}
	if _, err := authn.NewAccounts(cfg).User(t.Context(), r.Status.Token); !errors.Is(err, apierr.ErrUnavailable) {
		t.Errorf("nobody knows whether the account is there: %v", err)
	}
}
