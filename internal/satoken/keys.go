package satoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// format is that of the stored keys.
const format = 1

// Key signs tokens. Its id is a hash of its public half.
type Key struct {
	ID      string
	Created time.Time
	private *ecdsa.PrivateKey
}

// KeySet is the cluster's keys, the newest first: it signs, and all are
// believed. It does not change.
type KeySet struct{ keys []Key }

// New makes a set with one key.
func New(now time.Time) (*KeySet, error) { return (&KeySet{}).Rotated(now, 0) }

// Rotated gives a set with a new key that signs from now on. Keys that a newer
// one replaced longer ago than keep are left out: tokens that they signed must
// have expired by then.
func (s *KeySet) Rotated(now time.Time, keep time.Duration) (*KeySet, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for tokens: %w", err)
	}
	fresh, err := newKey(private, now)
	if err != nil {
		return nil, err
	}
	return (&KeySet{keys: append([]Key{fresh}, s.keys...)}).Kept(now, keep), nil
}

// Kept gives the set without the keys that Rotated leaves out.
func (s *KeySet) Kept(now time.Time, keep time.Duration) *KeySet {
	out := &KeySet{}
	for i, k := range s.keys {
		if i == 0 || now.Sub(s.keys[i-1].Created) <= keep {
			out.keys = append(out.keys, k)
		}
	}
	return out
}

func newKey(private *ecdsa.PrivateKey, created time.Time) (Key, error) {
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return Key{}, fmt.Errorf("encode a key for tokens: %w", err)
	}
	sum := sha256.Sum256(der)
	return Key{ID: base64.RawURLEncoding.EncodeToString(sum[:]), Created: created.UTC().Truncate(time.Second), private: private}, nil
}

// Keys are the keys, the newest first.
func (s *KeySet) Keys() []Key { return append([]Key(nil), s.keys...) }

// find gives a key by its id.
func (s *KeySet) find(id string) (Key, bool) {
	for _, k := range s.keys {
		if k.ID == id {
			return k, true
		}
	}
	return Key{}, false
}

// document is how keys are stored.
type document struct {
	Format int         `json:"format"`
	Keys   []storedKey `json:"keys"`
}

type storedKey struct {
	Created time.Time `json:"created"`
	Private []byte    `json:"private"` // PKCS #8
}

// Encode writes the keys down, private halves and all.
func (s *KeySet) Encode() ([]byte, error) {
	d := document{Format: format}
	for _, k := range s.keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return nil, fmt.Errorf("encode a key for tokens: %w", err)
		}
		d.Keys = append(d.Keys, storedKey{k.Created, der})
	}
	return json.Marshal(d)
}

// Decode reads what Encode wrote.
func Decode(b []byte) (*KeySet, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("read the keys of tokens: %w", err)
	}
	if d.Format != format {
		return nil, fmt.Errorf("read the keys of tokens: format %d is not known, only %d: upgrade this controld", d.Format, format)
	}
	s := &KeySet{}
	for _, k := range d.Keys {
		parsed, err := x509.ParsePKCS8PrivateKey(k.Private)
		private, ok := parsed.(*ecdsa.PrivateKey)
		if err == nil && !ok {
			err = fmt.Errorf("it is a %T", parsed)
		}
		if err != nil {
			return nil, fmt.Errorf("read a key of tokens: %w", err)
		}
		key, err := newKey(private, k.Created)
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, key)
	}
	if len(s.keys) == 0 {
		return nil, errors.New("read the keys of tokens: there is none")
	}
	return s, nil
}

// JWKS is the public halves, as OpenID Connect publishes them.
func (s *KeySet) JWKS() ([]byte, error) {
	set := jose.JSONWebKeySet{}
	for _, k := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &k.private.PublicKey, KeyID: k.ID, Algorithm: string(Algorithm), Use: "sig"})
	}
	return json.Marshal(set)
}

// Discovery is the document by which others find the keys of an issuer.
func Discovery(issuer, jwks string) ([]byte, error) {
	return json.Marshal(struct {
		Issuer     string   `json:"issuer"`
		JWKS       string   `json:"jwks_uri"`
		Responses  []string `json:"response_types_supported"`
		Subjects   []string `json:"subject_types_supported"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}{issuer, jwks, []string{"id_token"}, []string{"public"}, []string{string(Algorithm)}})
}
