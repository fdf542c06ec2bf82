// Package pki is the cluster's identity: its certificate authority, the
// certificates of members, nodes and users, the join tokens, and the TLS
// configurations that hold connections to them.
//
// Three promises. The identity of a member or node is the public key that the
// cluster has pinned for it, under a chain to the cluster's CA; the dates in
// its certificate are not asked, so that a machine that was off for months
// comes back by itself. The dates bind users. And a renewed certificate is for
// the same key and takes effect with the next connection, without closing a
// listener.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// How long certificates live. Those of members and nodes are renewed when two
// thirds have passed.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	HostLife      = 30 * 24 * time.Hour
	UserLife      = 365 * 24 * time.Hour

	// skew is how far the clock of a machine may be behind the signer's.
	skew = 10 * time.Minute
)

// Authority is a cluster's certificate authority: it signs. It is safe for
// concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes the CA of a new cluster (ECDSA P-256), valid from now.
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "wherry-ca", Organization: []string{cluster}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(AuthorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the cluster CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the cluster CA back: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// OpenAuthority returns the authority of a CA certificate (DER) and its key
// (PKCS #8 DER), as Certificate and Key gave them.
func OpenAuthority(cert, key []byte) (*Authority, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("cluster CA certificate: %w", err)
	}
	if !c.IsCA {
		return nil, errors.New("cluster CA certificate: not a CA")
	}
	k, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("cluster CA key: %w", err)
	}
	if pub, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(k.Public()) {
		return nil, errors.New("cluster CA: the key is not the certificate's")
	}
	return &Authority{cert: c, key: k}, nil
}

// Certificate returns the CA certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Key returns the CA's private key as PKCS #8 DER: to be sealed before it goes
// anywhere.
func (a *Authority) Key() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(a.key) }

// Hash returns what join tokens name the CA by, see [Hash].
func (a *Authority) Hash() string { return Hash(a.cert) }

// Hash returns the SHA-256 of a certificate's public key (its
// SubjectPublicKeyInfo), in hex. For a CA it is what join tokens carry; for a
// member or node it is the key that is pinned.
func Hash(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// KeyHash returns the Hash that a certificate for this public key will have.
func KeyHash(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Request says what a certificate is to state. All of it is the caller's
// decision: nothing is taken from a CSR but the key.
type Request struct {
	// User and Groups become the common name and the organizations.
	User   string
	Groups []string
	// Names and Addresses let the holder serve TLS under them; with neither
	// the certificate is for clients only.
	Names     []string
	Addresses []netip.Addr
	// Life is how long it is valid: HostLife if zero.
	Life time.Duration
}

// Sign returns a certificate (DER) for a public key, valid from now, or from
// the CA's own first day if the clock has lost its time.
func (a *Authority) Sign(pub crypto.PublicKey, req Request, now time.Time) ([]byte, error) {
	if req.User == "" {
		return nil, errors.New("sign certificate: no user")
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	if first := a.cert.NotBefore.Add(skew); now.Before(first) {
		now = first
	}
	life := req.Life
	if life == 0 {
		life = HostLife
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: req.User, Organization: req.Groups},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              req.Names,
	}
	for _, addr := range req.Addresses {
		tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(addr.Unmap().AsSlice()))
	}
	if len(tmpl.DNSNames)+len(tmpl.IPAddresses) > 0 {
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", req.User, err)
	}
	return der, nil
}

// NewKey makes a private key (ECDSA P-256).
func NewKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T does not sign", k)
	}
	return s, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}
