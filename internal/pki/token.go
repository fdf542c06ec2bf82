package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// What is wrong with a join token; errors.Is tells them apart, the text of the
// error says more.
var (
	ErrTokenMalformed = errors.New("malformed join token")
	ErrTokenWrongCA   = errors.New("join token is for another cluster")
	ErrTokenUnknown   = errors.New("unknown join token")
	ErrTokenRole      = errors.New("join token for another role")
	ErrTokenExpired   = errors.New("expired join token")
)

const (
	tokenFormat = "wherry1"
	idLen       = 8
	secretLen   = 32 // characters of 5 bits
)

// Token lets a machine into a cluster, once or often until it expires, and
// tells it by the CA's hash which cluster that is. Its text is
// wherry1.ID.SECRET.CAHASH.
type Token struct {
	ID     string // may be shown
	Secret string
	CAHash string
}

// StoredToken is what the cluster keeps of a token: not the secret.
type StoredToken struct {
	ID         string
	SecretHash []byte
	Role       Role
	Expires    time.Time
}

// NewToken makes a token for the cluster of the CA with this hash.
func NewToken(caHash string) (Token, error) {
	b := make([]byte, (idLen+secretLen)*5/8)
	if _, err := rand.Read(b); err != nil {
		return Token{}, fmt.Errorf("make join token: %w", err)
	}
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
	return Token{ID: text[:idLen], Secret: text[idLen:], CAHash: caHash}, nil
}

// String returns the text form: a secret.
func (t Token) String() string {
	return strings.Join([]string{tokenFormat, t.ID, t.Secret, t.CAHash}, ".")
}

// Presented returns the part that the joining machine sends: a secret too.
func (t Token) Presented() string { return t.ID + "." + t.Secret }

// Stored returns what the cluster keeps of t.
func (t Token) Stored(role Role, expires time.Time) StoredToken {
	return StoredToken{ID: t.ID, SecretHash: secretHash(t.Secret), Role: role, Expires: expires}
}

// ParseToken reads the text form; surrounding white space does not matter. The
// error never repeats the secret.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if parts[0] != tokenFormat {
		return Token{}, malformed("it does not begin with %q", tokenFormat+".")
	}
	if len(parts) != 4 {
		return Token{}, malformed("it has %d parts instead of 4 (%s.ID.SECRET.CAHASH)", len(parts), tokenFormat)
	}
	t := Token{ID: parts[1], Secret: parts[2], CAHash: parts[3]}
	if err := t.check(); err != nil {
		return Token{}, err
	}
	if b, err := hex.DecodeString(t.CAHash); err != nil || len(b) != sha256.Size {
		return Token{}, malformed("its last part is not the hash of a CA (64 hexadecimal digits)")
	}
	return t, nil
}

// ParsePresented reads what Presented returned.
func ParsePresented(text string) (Token, error) {
	id, secret, ok := strings.Cut(text, ".")
	if !ok {
		return Token{}, malformed("want ID.SECRET")
	}
	t := Token{ID: id, Secret: secret}
	return t, t.check()
}

func (t Token) check() error {
	if !coded(t.ID, idLen) {
		return malformed("its ID is not %d characters of a-z2-7", idLen)
	}
	if !coded(t.Secret, secretLen) {
		return malformed("its secret is not %d characters of a-z2-7", secretLen)
	}
	return nil
}

// Check reports by its error whether t opens the cluster for role now. stored
// is what the cluster keeps under t's ID, or nil if nothing.
func (t Token) Check(stored *StoredToken, role Role, now time.Time) error {
	if stored == nil {
		return fmt.Errorf("%w: no token %q here; it was removed, or is of another cluster", ErrTokenUnknown, t.ID)
	}
	if subtle.ConstantTimeCompare(secretHash(t.Secret), stored.SecretHash) != 1 {
		return fmt.Errorf("%w: wrong secret for token %q", ErrTokenUnknown, t.ID)
	}
	if !now.Before(stored.Expires) {
		return fmt.Errorf("%w: %q expired at %s; make a new one with `wherry cluster token create`",
			ErrTokenExpired, t.ID, stored.Expires.UTC().Format(time.RFC3339))
	}
	if stored.Role != role {
		return fmt.Errorf("%w: %q is for joining as %s, not as %s; make one with `wherry cluster token create --role %[4]s`",
			ErrTokenRole, t.ID, joined(stored.Role), joined(role))
	}
	return nil
}

// joined is the role in the word by which a user asks for a token.
func joined(r Role) string {
	if r == Member {
		return "control"
	}
	return string(r)
}

// CheckCA reports by its error whether ca is the CA that t names.
func (t Token) CheckCA(ca *x509.Certificate) error {
	if got := Hash(ca); subtle.ConstantTimeCompare([]byte(got), []byte(t.CAHash)) != 1 {
		return fmt.Errorf("%w: its CA is %.16s…, the server's is %.16s…", ErrTokenWrongCA, t.CAHash, got)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s; copy it whole from `wherry cluster token create`", ErrTokenMalformed, fmt.Sprintf(format, args...))
}

func coded(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// secretHash needs no salt and no slow hash: the secret is 160 random bits.
func secretHash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
