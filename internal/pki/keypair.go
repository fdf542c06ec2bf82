package pki

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	// KeyFile is the private key in an identity folder.
	KeyFile  = "tls.key"
	certFile = "tls.crt"
	caFile   = "ca.crt"
)

// KeyPair is the identity of this member or node, kept in three files of one
// folder: the key, its certificate, and the cluster's CA. The key stays; the
// certificate may be replaced while connections and listeners use it. It is
// safe for concurrent use.
type KeyPair struct {
	dir  string
	ca   *x509.Certificate
	key  crypto.Signer
	cert atomic.Pointer[tls.Certificate]
}

// SaveKeyPair writes a new identity into dir (made 0700), each file 0600 and
// durable before it is seen, and opens it. cert and ca are DER.
func SaveKeyPair(dir string, key crypto.Signer, cert, ca []byte) (*KeyPair, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	// The certificate comes last: with it the identity is whole.
	for _, f := range []struct {
		name string
		pem  []byte
	}{{KeyFile, keyPEM}, {caFile, EncodeCertificate(ca)}, {certFile, EncodeCertificate(cert)}} {
		if err := WriteFile(filepath.Join(dir, f.name), f.pem, 0o600); err != nil {
			return nil, err
		}
	}
	return OpenKeyPair(dir)
}

// OpenKeyPair reads the identity that SaveKeyPair wrote. If none is there the
// error wraps fs.ErrNotExist.
func OpenKeyPair(dir string) (*KeyPair, error) {
	key, err := readPEM(filepath.Join(dir, KeyFile), "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	ca, err := readPEM(filepath.Join(dir, caFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := readPEM(filepath.Join(dir, certFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	k := &KeyPair{dir: dir}
	if k.key, err = parseKey(key); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, KeyFile), err)
	}
	if k.ca, err = x509.ParseCertificate(ca); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, caFile), err)
	}
	if err := k.use(cert); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, certFile), err)
	}
	return k, nil
}

// use makes cert the one that is presented.
func (k *KeyPair) use(cert []byte) error {
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		return err
	}
	if pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(k.key.Public()) {
		return errors.New("the certificate is not for this key")
	}
	if err := leaf.CheckSignatureFrom(k.ca); err != nil {
		return fmt.Errorf("the certificate is not of this cluster's CA: %w", err)
	}
	// The CA goes along, so that a joining machine can hold it against its token.
	k.cert.Store(&tls.Certificate{Certificate: [][]byte{cert, k.ca.Raw}, PrivateKey: k.key, Leaf: leaf})
	return nil
}

// Replace makes cert (DER, for the same key and of the same CA) the identity's
// certificate, on disk first and then for every connection to come.
func (k *KeyPair) Replace(cert []byte) error {
	before := k.cert.Load()
	if err := k.use(cert); err != nil {
		return fmt.Errorf("renewed certificate: %w", err)
	}
	if err := WriteFile(filepath.Join(k.dir, certFile), EncodeCertificate(cert), 0o600); err != nil {
		k.cert.Store(before)
		return err
	}
	return nil
}

// CA returns the cluster's CA certificate.
func (k *KeyPair) CA() *x509.Certificate { return k.ca }

// Leaf returns the certificate in use.
func (k *KeyPair) Leaf() *x509.Certificate { return k.cert.Load().Leaf }

// Self returns who this is to others.
func (k *KeyPair) Self() Peer { return peerOf(k.Leaf()) }

// PublicDER returns the public key (PKIX).
func (k *KeyPair) PublicDER() []byte { return k.Leaf().RawSubjectPublicKeyInfo }

// Agree returns the private key as one that agrees on secrets: what was wrapped
// to the public key is unwrapped with it.
func (k *KeyPair) Agree() (*ecdh.PrivateKey, error) {
	key, ok := k.key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a %T cannot be wrapped to; only ECDSA on P-256 can", k.key)
	}
	return key.ECDH()
}

// CSR returns a request (DER) for a new certificate of the same key, with the
// names and addresses wished for.
func (k *KeyPair) CSR(names []string, addrs []netip.Addr) ([]byte, error) {
	return NewCSR(k.key, k.Leaf().Subject.CommonName, names, addrs)
}

// RenewAt returns when two thirds of the certificate's life have passed.
func (k *KeyPair) RenewAt() time.Time {
	c := k.Leaf()
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// The pace of renewals that fail.
const (
	renewFirst = 5 * time.Second
	renewLast  = 10 * time.Minute
	// lookAgain bounds how long a sleep may be: a clock that jumps, and a
	// machine that was suspended, are noticed then.
	lookAgain = time.Hour
)

// KeepFresh renews the certificate whenever RenewAt has come, until ctx ends.
// renew gets a new certificate (DER) from the cluster; when it fails, failed is
// told (for the log) and it is tried again, later and later up to ten minutes.
func (k *KeyPair) KeepFresh(ctx context.Context, renew func(ctx context.Context) ([]byte, error), failed func(error)) error {
	retry := renewFirst
	for ctx.Err() == nil {
		wait := min(time.Until(k.RenewAt()), lookAgain)
		if wait <= 0 {
			err := k.renew(ctx, renew)
			if err == nil {
				retry = renewFirst
				continue
			}
			if ctx.Err() == nil {
				failed(fmt.Errorf("renew certificate: %w", err))
			}
			wait, retry = retry, min(2*retry, renewLast)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// renew gets and takes one new certificate.
func (k *KeyPair) renew(ctx context.Context, renew func(ctx context.Context) ([]byte, error)) error {
	cert, err := renew(ctx)
	if err != nil {
		return err
	}
	if err := k.Replace(cert); err != nil {
		return err
	}
	if time.Until(k.RenewAt()) <= 0 {
		return errors.New("the new certificate is due for renewal already: is the clock right?")
	}
	return nil
}

// EncodeCertificate returns a certificate (DER) as PEM.
func EncodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// EncodeKey returns a private key as PEM (PKCS #8).
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func readPEM(path, kind string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: no PEM block %q", path, kind)
	}
	return block.Bytes, nil
}

// WriteFile replaces a file as a whole: after a power cut it is the old one or
// the new one, and when WriteFile has returned it is the new one.
func WriteFile(path string, data []byte, perm fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
