package satoken

import (
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// LegacyIssuer is what the tokens that are kept in Secrets name as their issuer.
const LegacyIssuer = "kubernetes/serviceaccount"

// ErrLegacy says that a token is one of those that are kept in Secrets, which
// VerifyLegacy reads.
var ErrLegacy = errors.New("the token is one that is kept in a Secret")

// Legacy is what a token says that is kept in a Secret of the type
// kubernetes.io/service-account-token. It has no end of its own: it is worth
// something for as long as that Secret holds it.
type Legacy struct {
	Namespace  string `json:"kubernetes.io/serviceaccount/namespace"`
	Secret     string `json:"kubernetes.io/serviceaccount/secret.name"`
	Account    string `json:"kubernetes.io/serviceaccount/service-account.name"`
	AccountUID string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// legacyClaims are all that such a token says.
type legacyClaims struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Legacy
}

// SignLegacy makes a token for a Secret with the newest key.
func (s *KeySet) SignLegacy(l Legacy) (string, error) {
	return s.sign(legacyClaims{Issuer: LegacyIssuer, Subject: Subject(l.Namespace, l.Account), Legacy: l})
}

// VerifyLegacy gives what a token of a Secret says, if one of the keys signed
// it. Whether the Secret still holds it is for the caller to look at.
func (s *KeySet) VerifyLegacy(token string) (Legacy, error) {
	t, key, err := s.opened(token)
	if err != nil {
		return Legacy{}, err
	}
	var c legacyClaims
	if err := t.Claims(&key.private.PublicKey, &c); err != nil {
		return Legacy{}, fmt.Errorf("%w: the signature is wrong", ErrInvalid)
	}
	if c.Issuer != LegacyIssuer || c.Subject != Subject(c.Namespace, c.Account) || c.Secret == "" || c.AccountUID == "" {
		return Legacy{}, fmt.Errorf("%w: it names no service account and Secret", ErrInvalid)
	}
	return c.Legacy, nil
}

// Forgotten reports whether a text is a token of a Secret whose key is none of
// these: nobody believes it any more.
func (s *KeySet) Forgotten(token string) bool {
	t, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{Algorithm})
	if err != nil || len(t.Headers) != 1 || len(token) > maxToken {
		return false
	}
	var c legacyClaims
	_, known := s.find(t.Headers[0].KeyID)
	return !known && t.UnsafeClaimsWithoutVerification(&c) == nil && c.Issuer == LegacyIssuer
}
