package pki

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTokenText(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	token, err := NewToken(hash)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken("  " + token.String() + "\n")
	if err != nil || got != token {
		t.Errorf("got %+v, %v; want %+v", got, err, token)
	}
	sent, err := ParsePresented(token.Presented())
	if err != nil || sent.ID != token.ID || sent.Secret != token.Secret {
		t.Errorf("got %+v, %v", sent, err)
	}
	tests := []struct{ name, text, says string }{
		{"empty", "", "does not begin"},
		{"other format", strings.Replace(token.String(), "wherry1", "wherry9", 1), "does not begin"},
		{"cut", strings.TrimSuffix(token.String(), "."+hash), "3 parts"},
		{"cut in the hash", token.String()[:len(token.String())-2], "hash of a CA"},
		{"short secret", "wherry1." + token.ID + ".abc." + hash, "secret is not"},
		{"bad id", "wherry1.UPPER123." + token.Secret + "." + hash, "ID is not"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseToken(tt.text)
			if !errors.Is(err, ErrTokenMalformed) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), token.Secret) {
				t.Error("the error shows the secret")
			}
		})
	}
	if _, err := ParsePresented("nodot"); !errors.Is(err, ErrTokenMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestTokenCheck(t *testing.T) {
	token, err := NewToken(strings.Repeat("0a", 32))
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewToken(token.CAHash)
	if err != nil {
		t.Fatal(err)
	}
	stored := token.Stored(Node, today().Add(time.Hour))
	wrong := Token{ID: token.ID, Secret: other.Secret}
	tests := []struct {
		name   string
		token  Token
		stored *StoredToken
		role   Role
		now    time.Time
		err    error
		says   string
	}{
		{"good", token, &stored, Node, today(), nil, ""},
		{"unknown", token, nil, Node, today(), ErrTokenUnknown, "no token"},
		{"wrong secret", wrong, &stored, Node, today(), ErrTokenUnknown, "wrong secret"},
		{"expired", token, &stored, Node, today().Add(time.Hour), ErrTokenExpired, "expired at 2026-03-01T13:00:00Z"},
		{"wrong secret of an expired one", wrong, &stored, Node, today().Add(time.Hour), ErrTokenUnknown, "wrong secret"},
		{"other role", token, &stored, Member, today(), ErrTokenRole, "for joining as node, not as control; make one with `wherry cluster token create --role control`"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.token.Check(tt.stored, tt.role, tt.now)
			if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v %q", err, tt.err, tt.says)
			}
		})
	}
	if err := token.CheckCA(authority(t).Certificate()); !errors.Is(err, ErrTokenWrongCA) {
		t.Errorf("got %v", err)
	}
}
