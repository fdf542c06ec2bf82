package authn_test

import (
	"errors"
	"strings"
	"testing"
	"time"

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
