package seal_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/wherry-project/wherry/internal/seal"
)

func newKey(t *testing.T, id uint32) seal.Key {
	t.Helper()
	k, err := seal.NewKey(id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealOpen(t *testing.T) {
	k := newKey(t, 7)
	for _, plain := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("secret"), 1000)} {
		sealed, err := k.Seal("secrets/a/b", plain)
		if err != nil {
			t.Fatal(err)
		}
		if !seal.Is(sealed) || len(sealed) != len(plain)+seal.Overhead || len(plain) > 4 && bytes.Contains(sealed, plain[:5]) {
			t.Errorf("%d bytes became %q", len(plain), sealed)
		}
		if id, err := seal.KeyOf(sealed); id != 7 || err != nil {
			t.Errorf("key %d, %v", id, err)
		}
		again, err := k.Seal("secrets/a/b", plain)
		if err != nil || bytes.Equal(again, sealed) {
			t.Errorf("the same twice: %v", err)
		}
		got, err := k.Open("secrets/a/b", sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("opened to %q, %v", got, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	k, other := newKey(t, 1), newKey(t, 1)
	sealed, err := k.Seal("secrets/a/b", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := k.Open("secrets/a/b", changed); err == nil {
			t.Errorf("byte %d was changed, and it opened", i)
		}
		if _, err := k.Open("secrets/a/b", sealed[:i]); err == nil {
			t.Errorf("cut at %d, and it opened", i)
		}
	}
	for name, open := range map[string]func() ([]byte, error){
		"another record":    func() ([]byte, error) { return k.Open("secrets/a/c", sealed) },
		"another key":       func() ([]byte, error) { return other.Open("secrets/a/b", sealed) },
		"a key of other id": func() ([]byte, error) { return newKey(t, 2).Open("secrets/a/b", sealed) },
		"no key":            func() ([]byte, error) { return seal.Key{}.Open("secrets/a/b", sealed) },
		"what was not sealed": func() ([]byte, error) {
			return k.Open("secrets/a/b", []byte("\n\x05value and more of it, so that it is long"))
		},
		"nothing":              func() ([]byte, error) { return k.Open("secrets/a/b", nil) },
		"of a newer format":    func() ([]byte, error) { b := bytes.Clone(sealed); b[1]++; return k.Open("secrets/a/b", b) },
		"sealed without a key": func() ([]byte, error) { return seal.Key{}.Seal("a", nil) },
	} {
		if b, err := open(); err == nil {
			t.Errorf("%s: opened to %q", name, b)
		}
	}
}

func member(t *testing.T) (*ecdh.PrivateKey, *ecdh.PublicKey) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	pub, err := seal.PublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	own, err := k.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return own, pub
}

func TestWrap(t *testing.T) {
	k := newKey(t, 3)
	own, pub := member(t)
	stranger, _ := member(t)
	wrapped, err := seal.Wrap(k, pub)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped, k.Bytes()) {
		t.Error("the key is in its wrapping")
	}
	got, err := seal.Unwrap(wrapped, own)
	if err != nil || got.ID() != 3 || !bytes.Equal(got.Bytes(), k.Bytes()) {
		t.Errorf("unwrapped to key %d, %v", got.ID(), err)
	}
	if _, err := seal.Unwrap(wrapped, stranger); err == nil {
		t.Error("another member unwrapped it")
	}
	for i := range wrapped {
		changed := bytes.Clone(wrapped)
		changed[i] ^= 1
		if _, err := seal.Unwrap(changed, own); err == nil {
			t.Errorf("byte %d was changed, and it was unwrapped", i)
		}
		if _, err := seal.Unwrap(wrapped[:i], own); err == nil {
			t.Errorf("cut at %d, and it was unwrapped", i)
		}
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(weak.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.PublicKey(der); err == nil || !strings.Contains(err.Error(), "P-256") {
		t.Errorf("an RSA key: %v", err)
	}
}

func TestCovers(t *testing.T) {
	for resource, want := range map[string]bool{
		"secrets": true, "authority.internal.wherry": true, "signingkeys" + seal.Suffix: true,
		"configmaps": false, "secrets.example.com": false, "identities.internal.wherry": false, "": false,
	} {
		if seal.Covers(resource) != want {
			t.Errorf("%q: %v", resource, !want)
		}
	}
}

const word = "correct horse"

// cheap is for tests only.
var cheap = seal.Cost{Passes: 1, Memory: 64}

func archive(t *testing.T, contents []byte, cost seal.Cost) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := seal.NewWriter(&out, []byte(word), []byte("about it"), cost)
	if err != nil {
		t.Fatal(err)
	}
	for b := contents; len(b) > 0; { // in uneven parts
		n := min(len(b), 10007)
		if _, err := w.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unarchive(b []byte, passphrase string) ([]byte, []byte, error) {
	r, err := seal.NewReader(bytes.NewReader(b), []byte(passphrase))
	if err != nil {
		return nil, nil, err
	}
	out, err := io.ReadAll(r)
	return out, r.About, err
}

func TestArchive(t *testing.T) {
	const chunk = 64 << 10
	for _, n := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk} {
		contents := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		b := archive(t, contents, cheap)
		got, about, err := unarchive(b, word)
		if err != nil || !bytes.Equal(got, contents) || string(about) != "about it" {
			t.Errorf("%d bytes came back as %d about %q, %v", n, len(got), about, err)
		}
		if n > 0 && bytes.Contains(b, contents[:min(n, 16)]) && n >= 16 {
			t.Errorf("%d bytes are in the clear", n)
		}
	}
}

func TestArchiveRefuses(t *testing.T) {
	const chunk = 64<<10 + 16
	contents := bytes.Repeat([]byte("abcdefgh"), 20000) // three chunks
	good := archive(t, contents, cheap)
	body := len(good) - len(contents) - 3*16 // where the chunks begin
	changed := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x20
		return b
	}
	swapped := bytes.Clone(good)
	copy(swapped[body:], good[body+chunk:body+2*chunk])
	copy(swapped[body+chunk:], good[body:body+chunk])
	newer := bytes.Clone(good)
	newer[len("wherrybackup")] = 9
	for name, tt := range map[string]struct {
		b    []byte
		word string
		want error
	}{
		"wrong passphrase":              {good, "wrong horse", seal.ErrPassphrase},
		"no passphrase":                 {good, "", seal.ErrPassphrase},
		"nothing":                       {nil, word, seal.ErrArchiveCut},
		"another file":                  {[]byte("PK\x03\x04 something else"), word, seal.ErrNotArchive},
		"cut in the magic word":         {good[:5], word, seal.ErrArchiveCut},
		"cut in the head":               {good[:40], word, seal.ErrArchiveCut},
		"cut before the chunks":         {good[:body], word, seal.ErrArchiveCut},
		"cut in the first chunk":        {good[:body+100], word, seal.ErrArchiveBroken},
		"cut between chunks":            {good[:body+chunk], word, seal.ErrArchiveCut},
		"cut between later chunks":      {good[:body+2*chunk], word, seal.ErrArchiveCut},
		"cut by one byte":               {good[:len(good)-1], word, seal.ErrArchiveBroken},
		"longer":                        {append(bytes.Clone(good), 0), word, seal.ErrArchiveBroken},
		"chunks swapped":                {swapped, word, seal.ErrArchiveBroken},
		"a chunk left out":              {append(bytes.Clone(good[:body]), good[body+chunk:]...), word, seal.ErrArchiveBroken},
		"newer format":                  {newer, word, seal.ErrNewerArchive},
		"changed salt":                  {changed(20), word, seal.ErrArchiveBroken},
		"changed cost":                  {changed(30), word, seal.ErrArchiveBroken},
		"changed in what it says":       {changed(45), word, seal.ErrArchiveBroken},
		"changed tag of the passphrase": {changed(body - 1), word, seal.ErrPassphrase},
		"changed first chunk":           {changed(body + 5), word, seal.ErrArchiveBroken},
		"changed last byte":             {changed(len(good) - 1), word, seal.ErrArchiveBroken},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := unarchive(tt.b, tt.word); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := seal.NewWriter(io.Discard, nil, nil, cheap); err == nil {
		t.Error("an empty passphrase was taken")
	}
}

// An archive that is kept has the proper cost in its head; a cost that no reader
// takes cannot be written.
func TestArchiveCost(t *testing.T) {
	b := archive(t, []byte("contents"), seal.ProperCost())
	if passes, memory := binary.BigEndian.Uint32(b[29:]), binary.BigEndian.Uint32(b[33:]); passes != 3 || memory != 32<<10 {
		t.Errorf("%d passes over %d KiB", passes, memory)
	}
	if got, _, err := unarchive(b, word); err != nil || string(got) != "contents" {
		t.Errorf("it came back as %q, %v", got, err)
	}
	for _, bad := range []seal.Cost{{}, {Passes: 1}, {Memory: 64}, {Passes: 101, Memory: 64}, {Passes: 1, Memory: 1<<20 + 1}} {
		if _, err := seal.NewWriter(io.Discard, []byte(word), nil, bad); err == nil {
			t.Errorf("the cost %+v was taken", bad)
		}
	}
}
