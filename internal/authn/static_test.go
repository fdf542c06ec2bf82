package authn_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/store"
)

func tokenFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestStaticTokens(t *testing.T) {
	tokens, err := authn.ReadTokens(tokenFile(t, "# people\nabc,jane,7\n def , ops,8,\"admins,dev\"\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := store.NewLocal(api.NewCodec(api.NewKinds(), 0))
	a := authn.NewAccounts(authn.AccountsConfig{State: s, Issuer: "https://issuer", Static: tokens})
	if err := a.KeepKeys(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]api.User{
		"abc": {Name: "jane", UID: "7"},
		"def": {Name: "ops", UID: "8", Groups: []string{"admins", "dev"}},
	} {
		if u, err := a.User(t.Context(), token); err != nil || !reflect.DeepEqual(u, want) {
			t.Errorf("%s: %+v, %v", token, u, err)
		}
		if _, meant, err := a.Review(t.Context(), token, []string{"x", "https://issuer"}); err != nil || !slices.Equal(meant, []string{"https://issuer"}) {
			t.Errorf("%s is for %v, %v", token, meant, err)
		}
		if _, _, err := a.Review(t.Context(), token, []string{"x"}); err == nil || !strings.Contains(err.Error(), "audience") {
			t.Errorf("%s is for another audience too: %v", token, err)
		}
	}
	for _, token := range []string{"", "ab", "jane", "abcd", " def"} {
		if u, err := a.User(t.Context(), token); err == nil {
			t.Errorf("%q is %+v", token, u)
		}
	}
}

func TestBadStaticTokens(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "no token",
		"abc,jane":                          "line 1: token, user and uid must be there",
		"x,y,z\n,jane,7":                    "line 2: the token is empty",
		"abc,,7":                            "line 1: the user is empty",
		"abc,jane,7\nabc,joe,8":             "line 2: the token of line 1 again",
		"abc,jane,7,\"unfinished":           "line 1",
		"abc,jane,7,g,h":                    "line 1: groups",
		strings.Repeat("a", 20<<20):         "too large",
		"abc,jane,7,\"dev,system:nodes\"":   "system:nodes",
		"abc,jane,7,system:wherry:controls": "system:wherry:controls",
	} {
		if _, err := authn.ReadTokens(tokenFile(t, text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "abc") {
			t.Errorf("%.40q: %.80v; want %q, and no token", text, err, want)
		}
	}
	if _, err := authn.ReadTokens(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there")
	}
}
