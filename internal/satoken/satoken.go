// Package satoken makes and checks the tokens of service accounts: JSON web
// tokens, signed with ES256 by one of the cluster's keys. It knows no objects:
// whether an account is still there is for its callers to look at.
package satoken

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Algorithm is how tokens are signed.
const Algorithm = jose.ES256

var (
	// ErrExpired says that a token's time is over.
	ErrExpired = errors.New("the token has expired")
	// ErrInvalid says that a token is none of this cluster's.
	ErrInvalid = errors.New("the token is not valid")
)

// Ref names an object for good: a successor of the same name has another uid.
type Ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Bound is what a token says of its account, and of the objects without which
// it is worth nothing.
type Bound struct {
	Namespace      string           `json:"namespace"`
	ServiceAccount Ref              `json:"serviceaccount"`
	Pod            *Ref             `json:"pod,omitempty"`
	Secret         *Ref             `json:"secret,omitempty"`
	Node           *Ref             `json:"node,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

// Claims are all that a token says.
type Claims struct {
	jwt.Claims
	Bound Bound `json:"kubernetes.io"`
}

// Request asks for a token.
type Request struct {
	Issuer    string
	Audiences []string
	Bound     Bound
	Now       time.Time
	// Lasts is how long it is valid, and WarnAfter when its holder should have
	// had another one; 0 is never.
	Lasts, WarnAfter time.Duration
}

// Subject is the name of an account's user.
func Subject(namespace, name string) string { return "system:serviceaccount:" + namespace + ":" + name }

// Sign makes a token with the newest key.
func (s *KeySet) Sign(r Request) (string, error) {
	if r.WarnAfter > 0 {
		r.Bound.WarnAfter = jwt.NewNumericDate(r.Now.Add(r.WarnAfter))
	}
	return s.sign(Claims{
		Claims: jwt.Claims{
			Issuer: r.Issuer, Subject: Subject(r.Bound.Namespace, r.Bound.ServiceAccount.Name), Audience: r.Audiences,
			IssuedAt: jwt.NewNumericDate(r.Now), NotBefore: jwt.NewNumericDate(r.Now), Expiry: jwt.NewNumericDate(r.Now.Add(r.Lasts)),
			ID: uuid(),
		},
		Bound: r.Bound,
	})
}

// sign makes a token that says claims, with the newest key.
func (s *KeySet) sign(claims any) (string, error) {
	if len(s.keys) == 0 {
		return "", errors.New("there is no key to sign tokens with")
	}
	key := s.keys[0]
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: Algorithm, Key: jose.JSONWebKey{Key: key.private, KeyID: key.ID}},
		new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return token, nil
}

// maxToken bounds what is looked at.
const maxToken = 16 << 10

// Verify gives what a token says, if one of the keys signed it for the issuer
// and it is valid now. For whom it is meant is not looked at.
func (s *KeySet) Verify(token, issuer string, now time.Time) (Claims, error) {
	var c Claims
	t, key, err := s.opened(token)
	if err != nil {
		return c, err
	}
	if err := t.Claims(&key.private.PublicKey, &c); err != nil {
		return Claims{}, fmt.Errorf("%w: the signature is wrong", ErrInvalid)
	}
	b := c.Bound
	switch {
	case c.Issuer == LegacyIssuer && c.Issuer != issuer:
		return Claims{}, ErrLegacy
	case c.Issuer != issuer:
		return Claims{}, fmt.Errorf("%w: its issuer is %q, not %q", ErrInvalid, c.Issuer, issuer)
	case c.Expiry == nil || c.Subject != Subject(b.Namespace, b.ServiceAccount.Name) || b.ServiceAccount.UID == "":
		return Claims{}, fmt.Errorf("%w: it names no service account", ErrInvalid)
	}
	switch err := c.ValidateWithLeeway(jwt.Expected{Time: now}, leeway); {
	case errors.Is(err, jwt.ErrExpired):
		return Claims{}, ErrExpired
	case err != nil:
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c, nil
}

// opened parses a token and finds the key that it says to be signed with.
func (s *KeySet) opened(token string) (*jwt.JSONWebToken, Key, error) {
	if len(token) > maxToken {
		return nil, Key{}, fmt.Errorf("%w: it is too long", ErrInvalid)
	}
	t, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{Algorithm})
	if err != nil || len(t.Headers) != 1 {
		return nil, Key{}, fmt.Errorf("%w: it is no signed JSON web token", ErrInvalid)
	}
	key, ok := s.find(t.Headers[0].KeyID)
	if !ok {
		return nil, Key{}, fmt.Errorf("%w: no key of this cluster signed it", ErrInvalid)
	}
	return t, key, nil
}

// leeway forgives clocks of members that differ a little. It is less than a
// token's last refresh leaves.
const leeway = 10 * time.Second

// uuid makes a random id.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
