package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Sealed bytes are the mark, a format byte, the number of the key, a nonce, and
// the ciphertext. No protobuf message and no JSON begins with the mark.
const (
	mark         = 0x00
	recordFormat = 1
	keyBytes     = 32
	headBytes    = 2 + 4 // mark, format, number of the key
	nonceBytes   = 12
	tagBytes     = 16

	// Overhead is how much longer sealed bytes are.
	Overhead = headBytes + nonceBytes + tagBytes
)

var (
	// ErrNoKey says that bytes were sealed with a key that is not at hand.
	ErrNoKey = errors.New("sealed with a key that is not at hand")
	// ErrDamaged says that sealed bytes were changed, or belong elsewhere.
	ErrDamaged = errors.New("sealed bytes are damaged, or belong to something else")
)

// Suffix ends the name of every resource that the cluster keeps for itself and
// that is sealed.
const Suffix = ".sealed.wherry"

// Covers reports whether the records of a resource are sealed at rest: Secrets,
// the cluster's CA, and every resource whose name ends in [Suffix].
func Covers(resource string) bool {
	return resource == "secrets" || resource == "authority.internal.wherry" || strings.HasSuffix(resource, Suffix)
}

// Key seals and opens. The zero Key does neither.
type Key struct {
	id   uint32
	aead cipher.AEAD
	raw  []byte
}

// NewKey makes a key with a number, which is not 0.
func NewKey(id uint32) (Key, error) {
	raw := make([]byte, keyBytes)
	if _, err := rand.Read(raw); err != nil {
		return Key{}, fmt.Errorf("make data key: %w", err)
	}
	return OpenKey(id, raw)
}

// OpenKey is the key that Bytes gave the bytes of.
func OpenKey(id uint32, raw []byte) (Key, error) {
	if id == 0 || len(raw) != keyBytes {
		return Key{}, errors.New("data key: it needs a number and 32 bytes")
	}
	aead, err := newAEAD(raw)
	return Key{id: id, aead: aead, raw: append([]byte(nil), raw...)}, err
}

func newAEAD(raw []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	return cipher.NewGCM(block)
}

// ID is the key's number.
func (k Key) ID() uint32 { return k.id }

// Bytes is the key itself, to be wrapped or put into an archive.
func (k Key) Bytes() []byte { return append([]byte(nil), k.raw...) }

// Seal hides plain. The name is not hidden and not kept: Open needs the same.
func (k Key) Seal(name string, plain []byte) ([]byte, error) {
	if k.aead == nil {
		return nil, ErrNoKey
	}
	out := make([]byte, headBytes+nonceBytes, len(plain)+Overhead)
	out[0], out[1] = mark, recordFormat
	binary.BigEndian.PutUint32(out[2:], k.id)
	nonce := out[headBytes:]
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return k.aead.Seal(out, nonce, plain, aad(out[:headBytes], name)), nil
}

// Open gives what Seal hid.
func (k Key) Open(name string, sealed []byte) ([]byte, error) {
	id, err := KeyOf(sealed)
	if err != nil {
		return nil, err
	}
	if k.aead == nil || id != k.id {
		return nil, ErrNoKey
	}
	nonce := sealed[headBytes : headBytes+nonceBytes]
	plain, err := k.aead.Open(nil, nonce, sealed[headBytes+nonceBytes:], aad(sealed[:headBytes], name))
	if err != nil {
		return nil, ErrDamaged
	}
	return plain, nil
}

func aad(head []byte, name string) []byte {
	return append(append(make([]byte, 0, len(head)+len(name)), head...), name...)
}

// Is reports whether bytes are sealed.
func Is(b []byte) bool { return len(b) > 0 && b[0] == mark }

// KeyOf gives the number of the key that bytes were sealed with.
func KeyOf(sealed []byte) (uint32, error) {
	switch {
	case !Is(sealed), len(sealed) < Overhead:
		return 0, ErrDamaged
	case sealed[1] != recordFormat:
		return 0, fmt.Errorf("sealed bytes of format %d; this version knows %d: they were written by a newer version", sealed[1], recordFormat)
	}
	return binary.BigEndian.Uint32(sealed[2:]), nil
}
