package seal

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
)

// A wrapped key is a format byte, the key's number, the public half of a key
// made for this one wrapping, and the key under AES-256-GCM with what the two
// sides agree on. Every wrapping has a key of its own, so its nonce is zero.
const (
	wrapFormat = 1
	pointBytes = 65 // an uncompressed point of P-256
	wrapHead   = 1 + 4 + pointBytes
	wrapInfo   = "wherry data key wrap 1"
)

// PublicKey reads the public key (PKIX DER) of a member, ECDSA on P-256.
func PublicKey(der []byte) (*ecdh.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("member's public key: %w", err)
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("member's public key: it is a %T; only ECDSA on P-256 can be wrapped to", k)
	}
	e, err := pub.ECDH()
	if err != nil || e.Curve() != ecdh.P256() {
		return nil, errors.New("member's public key: only ECDSA on P-256 can be wrapped to")
	}
	return e, nil
}

// Wrap hides a key so that only the holder of a private key gets it.
func Wrap(k Key, to *ecdh.PublicKey) ([]byte, error) {
	if k.aead == nil {
		return nil, ErrNoKey
	}
	once, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	out := make([]byte, 0, wrapHead+keyBytes+tagBytes)
	out = append(out, wrapFormat)
	out = binary.BigEndian.AppendUint32(out, k.id)
	out = append(out, once.PublicKey().Bytes()...)
	aead, err := agreed(once, to, once.PublicKey(), to)
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	return aead.Seal(out, make([]byte, nonceBytes), k.raw, out), nil
}

// Unwrap gives the key that was wrapped to own.
func Unwrap(wrapped []byte, own *ecdh.PrivateKey) (Key, error) {
	if len(wrapped) == 0 || wrapped[0] != wrapFormat {
		return Key{}, errors.New("wrapped data key: this version does not know its format: it was written by a newer version")
	}
	if len(wrapped) != wrapHead+keyBytes+tagBytes {
		return Key{}, ErrDamaged
	}
	once, err := ecdh.P256().NewPublicKey(wrapped[5:wrapHead])
	if err != nil {
		return Key{}, ErrDamaged
	}
	aead, err := agreed(own, once, once, own.PublicKey())
	if err != nil {
		return Key{}, fmt.Errorf("unwrap data key: %w", err)
	}
	raw, err := aead.Open(nil, make([]byte, nonceBytes), wrapped[wrapHead:], wrapped[:wrapHead])
	if err != nil {
		return Key{}, errors.New("wrapped data key: it was wrapped to another key, or is damaged")
	}
	return OpenKey(binary.BigEndian.Uint32(wrapped[1:]), raw)
}

// agreed is the cipher that both sides come to.
func agreed(own *ecdh.PrivateKey, other, once, to *ecdh.PublicKey) (cipher.AEAD, error) {
	shared, err := own.ECDH(other)
	if err != nil {
		return nil, err
	}
	salt := append(once.Bytes(), to.Bytes()...)
	raw, err := hkdf.Key(sha256.New, shared, salt, wrapInfo, keyBytes)
	if err != nil {
		return nil, err
	}
	return newAEAD(raw)
}
