package satoken

import (
	"errors"
	"testing"
	"time"
)

// TestLegacy: a token of a Secret is believed by its own check alone, with a key
// that is known, and is told when its key is forgotten.
func TestLegacy(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := keys(t, now)
	l := Legacy{Namespace: "ns", Secret: "robot", Account: "app", AccountUID: "u1"}
	token, err := s.SignLegacy(l)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.VerifyLegacy(token); err != nil || got != l {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := s.Verify(token, issuer, now); !errors.Is(err, ErrLegacy) {
		t.Errorf("as another token: %v", err)
	}
	if _, err := s.VerifyLegacy(sign(t, s, request(now))); !errors.Is(err, ErrInvalid) {
		t.Errorf("another token as one of a Secret: %v", err)
	}
	bad, err := s.SignLegacy(Legacy{Namespace: "ns", Account: "app"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.VerifyLegacy(bad); !errors.Is(err, ErrInvalid) {
		t.Errorf("one that names nothing: %v", err)
	}
	other := keys(t, now)
	if _, err := other.VerifyLegacy(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("of another key: %v", err)
	}
	for name, tt := range map[string]struct {
		set   *KeySet
		token string
		want  bool
	}{
		"known": {s, token, false}, "forgotten": {other, token, true}, "of another kind": {other, sign(t, s, request(now)), false}, "no token": {other, "abc", false}, "none": {other, "", false},
	} {
		if got := tt.set.Forgotten(tt.token); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
