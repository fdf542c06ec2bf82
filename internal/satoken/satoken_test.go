package satoken

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

func keys(t *testing.T, now time.Time) *KeySet {
	t.Helper()
	s, err := New(now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func request(now time.Time) Request {
	return Request{
		Issuer: issuer, Audiences: []string{"a"}, Now: now, Lasts: time.Hour,
		Bound: Bound{Namespace: "ns", ServiceAccount: Ref{"app", "u1"}, Pod: &Ref{"p", "u2"}},
	}
}

func sign(t *testing.T, s *KeySet, r Request) string {
	t.Helper()
	token, err := s.Sign(r)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokens(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := keys(t, now)
	r := request(now)
	r.WarnAfter = time.Minute
	token := sign(t, s, r)
	c, err := s.Verify(token, issuer, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "system:serviceaccount:ns:app" || c.Bound.Pod == nil || c.Bound.Pod.UID != "u2" || c.Bound.Node != nil ||
		c.ID == "" || !c.Bound.WarnAfter.Time().Equal(now.Add(time.Minute)) || !c.Audience.Contains("a") {
		t.Errorf("claims %+v", c)
	}
	again, err := s.Verify(sign(t, s, r), issuer, now)
	if err != nil || again.ID == c.ID {
		t.Errorf("two tokens of one id, or %v", err)
	}
	var header map[string]string
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err == nil {
		err = json.Unmarshal(b, &header)
	}
	if err != nil || header["alg"] != "ES256" || header["kid"] != s.Keys()[0].ID {
		t.Errorf("header %v %v", header, err)
	}
}

func TestWrongTokens(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := keys(t, now)
	good := sign(t, s, request(now))
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	otherIssuer, nobody, noUID := request(now), request(now), request(now)
	otherIssuer.Issuer = "https://other"
	nobody.Bound.ServiceAccount = Ref{}
	noUID.Bound.ServiceAccount.UID = ""
	for what, token := range map[string]string{
		"empty":           "",
		"text":            "secret",
		"two parts":       parts[0] + "." + parts[1],
		"other payload":   parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+issuer+`"}`)) + "." + parts[2],
		"other signature": parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"no algorithm":    none + "." + parts[1] + ".",
		"another's key":   sign(t, keys(t, now), request(now)),
		"another issuer":  sign(t, s, otherIssuer),
		"no account":      sign(t, s, nobody),
		"no uid":          sign(t, s, noUID),
		"long":            good + strings.Repeat("A", maxToken),
		"not UTF-8":       "\xff.\xff.\xff",
	} {
		if _, err := s.Verify(token, issuer, now); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Verify(good, issuer, now.Add(time.Hour+leeway+time.Second)); !errors.Is(err, ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	if _, err := s.Verify(good, issuer, now.Add(-time.Minute)); !errors.Is(err, ErrInvalid) {
		t.Errorf("from the future: %v", err)
	}
}

func TestRotation(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first := keys(t, now)
	old := sign(t, first, request(now))
	second, err := first.Rotated(now.Add(time.Minute), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if second, err = Decode(b); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Verify(old, issuer, now); err != nil {
		t.Errorf("a token of the key before: %v", err)
	}
	if _, err := first.Verify(sign(t, second, request(now)), issuer, now); !errors.Is(err, ErrInvalid) {
		t.Errorf("a new token does not use the new key: %v", err)
	}
	third, err := second.Rotated(now.Add(2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if got := third.Keys(); len(got) != 2 || got[1].ID != second.Keys()[0].ID {
		t.Errorf("keys %v", got)
	}
	for after, want := range map[time.Duration]int{time.Hour: 2, 2 * time.Hour: 1} {
		if got := second.Kept(now.Add(time.Minute+after), time.Hour).Keys(); len(got) != want || got[0].ID != second.Keys()[0].ID {
			t.Errorf("%v after the rotation: keys %v, want %d", after, got, want)
		}
	}
	jwks, err := second.JWKS()
	if err != nil || strings.Count(string(jwks), `"kid"`) != 2 || strings.Contains(string(jwks), `"d"`) {
		t.Errorf("%s %v", jwks, err)
	}
	for _, bad := range []string{``, `{}`, `{"format":2}`, `{"format":1}`, `{"format":1,"keys":[{"private":"AAAA"}]}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("keys %s were read", bad)
		}
	}
}

func FuzzVerify(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s, err := New(now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("")
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJFUzI1NiJ9.e30.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := s.Verify(token, issuer, now); err == nil {
			t.Errorf("%q was believed", token)
		}
	})
}
