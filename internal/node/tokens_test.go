package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/checkpoint"
)

func tokenFileAt(t *testing.T, path string) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(path, []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTokensAreReplacedInTime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	asked, down := 0, false
	ask := func(_ context.Context, namespace, account string, want *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
		if down {
			return nil, errors.New("nobody answers")
		}
		if ref := want.Spec.BoundObjectRef; namespace != "ns" || account != "app" || ref == nil || ref.UID != "u1" {
			t.Errorf("asked for %s/%s %+v", namespace, account, want.Spec)
		}
		asked++
		life := time.Duration(*want.Spec.ExpirationSeconds) * time.Second
		return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
			Token: fmt.Sprintf("%s#%d", want.Spec.Audiences, asked), ExpirationTimestamp: metav1.Time{Time: now.Add(life)},
		}}, nil
	}
	path := filepath.Join(t.TempDir(), "tokens")
	s := newTokens(ask, tokenFileAt(t, path))
	s.now = func() time.Time { return now }
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u1"}, Spec: corev1.PodSpec{ServiceAccountName: "app"}}
	hour, year := int64(3600), int64(365*24*3600)
	want := func(s *tokens, seconds int64, audience, token string) {
		t.Helper()
		got, err := s.get(t.Context(), pod, &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: &seconds})
		if err != nil || got != token {
			t.Errorf("token %q, %v; want %q", got, err, token)
		}
	}
	due := func(n int) {
		t.Helper()
		if got := s.due(func(string) bool { return true }); len(got) != n {
			t.Errorf("due %v, want %d", got, n)
		}
	}
	down = true
	if _, err := s.get(t.Context(), pod, &corev1.ServiceAccountTokenProjection{ExpirationSeconds: &hour}); err == nil {
		t.Error("a token out of nothing")
	}
	down = false
	want(s, hour, "", "[]#1")
	want(s, hour, "", "[]#1")
	want(s, year, "vault", "[vault]#2")
	due(0)
	now = now.Add(48*time.Minute + time.Second) // 80 % of an hour
	due(1)
	down = true
	want(s, hour, "", "[]#1") // better than none
	due(0)
	now = now.Add(tokenTries)
	down = false
	want(s, hour, "", "[]#3")
	now = now.Add(24 * time.Hour)
	want(s, year, "vault", "[vault]#4")

	// A successor has them, also where it is alone.
	if err := s.store(); err != nil {
		t.Fatal(err)
	}
	next := newTokens(ask, tokenFileAt(t, path))
	next.now = s.now
	if err := next.load(); err != nil {
		t.Fatal(err)
	}
	down = true
	want(next, hour, "", "[]#3")
	want(next, year, "vault", "[vault]#4")
	if got := next.due(func(string) bool { return false }); len(got) > 0 || len(next.held) > 0 {
		t.Errorf("due %v, and %d tokens of a pod that is gone", got, len(next.held))
	}
}
