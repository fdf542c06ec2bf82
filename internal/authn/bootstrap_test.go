package authn_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

func TestBootstrapTokens(t *testing.T) {
	table := kinds.Table()
	s := store.NewLocal(api.NewCodec(table, 0))
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := authn.NewAccounts(authn.AccountsConfig{State: s, Issuer: "https://issuer", Now: func() time.Time { return now }})
	k, _ := table.ByKey("secrets")
	put := func(change func(*corev1.Secret)) {
		t.Helper()
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef", UID: "1"}, Type: "bootstrap.kubernetes.io/token",
			Data: map[string][]byte{
				"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "expiration": []byte("2026-01-02T03:04:06Z"),
				"usage-bootstrap-authentication": []byte("true"), "auth-extra-groups": []byte("system:bootstrappers:nodes,system:bootstrappers:a:b"),
			},
		}
		change(secret)
		r, err := k.Record(secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), store.Command{Changes: []store.Change{{Op: store.Put, Key: r.Key, Record: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	data := func(key, value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Data[key] = []byte(value) }
	}
	const token = "abcdef.0123456789abcdef"
	for name, c := range map[string]struct {
		change  func(*corev1.Secret)
		token   string
		refused string
	}{
		"good":              {func(*corev1.Secret) {}, token, ""},
		"without an end":    {data("expiration", ""), token, ""},
		"another secret":    {func(*corev1.Secret) {}, "abcdef.0123456789abcdee", "there is no bootstrap token abcdef with this secret"},
		"another id":        {func(*corev1.Secret) {}, "abcdeg.0123456789abcdef", "there is no bootstrap token abcdeg with this secret"},
		"another id inside": {data("token-id", "ghijkl"), token, "there is no bootstrap token abcdef with this secret"},
		"no secret inside":  {func(s *corev1.Secret) { delete(s.Data, "token-secret") }, token, "there is no bootstrap token abcdef with this secret"},
		"another type":      {func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, token, "there is no bootstrap token abcdef with this secret"},
		"going": {func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: now} }, token,
			"there is no bootstrap token abcdef with this secret"},
		"over":        {data("expiration", "2026-01-02T03:04:05Z"), token, "has expired"},
		"no time":     {data("expiration", "tomorrow"), token, "no time of RFC 3339"},
		"other use":   {data("usage-bootstrap-authentication", "false"), token, "usage-bootstrap-authentication"},
		"other group": {data("auth-extra-groups", "system:bootstrappers:a,system:masters"), token, `"system:masters"`},
	} {
		put(c.change)
		u, err := a.User(t.Context(), c.token)
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %+v, %v", name, u, err)
			}
			continue
		}
		if err != nil || u.Name != "system:bootstrap:abcdef" || !slices.Equal(u.Groups, []string{"system:bootstrappers", "system:bootstrappers:nodes", "system:bootstrappers:a:b"}) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	put(func(*corev1.Secret) {})
	if _, _, err := a.Review(t.Context(), token, []string{"https://other"}); err == nil {
		t.Error("it is good for another audience")
	}
}
