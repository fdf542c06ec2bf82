package pki

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Why a certificate is not believed; errors.Is tells them apart.
var (
	ErrNotOurs = errors.New("certificate is not of this cluster's CA")
	ErrExpired = errors.New("certificate has expired")
	ErrPinned  = errors.New("key is not the one the cluster has pinned")
)

// believed bounds how many certificates a Verifier remembers as ours.
const believed = 4096

// Verifier tells who is at the other end of a connection. It is asked for every
// call, not once for a connection, so that a member or node that was removed,
// and a user whose certificate ends, are out at once; the signature alone is
// remembered.
type Verifier struct {
	ca *x509.Certificate
	// pinned refuses a member or node whose key is not the pinned one.
	pinned func(Peer) error
	now    func() time.Time

	mu   sync.Mutex
	ours map[[sha256.Size]byte]struct{}
}

// NewVerifier returns a Verifier for the cluster of ca. pinned is asked about
// every member and node whose certificate is of the CA; its refusal should wrap
// [ErrPinned]. now is the clock that users' certificates are held against.
func NewVerifier(ca *x509.Certificate, pinned func(Peer) error, now func() time.Time) *Verifier {
	return &Verifier{ca: ca, pinned: pinned, now: now, ours: make(map[[sha256.Size]byte]struct{})}
}

// Peer returns who is at the other end; a connection without a certificate is
// of Nobody and no error.
func (v *Verifier) Peer(s *tls.ConnectionState) (Peer, error) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return Peer{}, nil
	}
	return v.Certificate(s.PeerCertificates[0])
}

// FromContext returns who made a gRPC call, see Peer.
func (v *Verifier) FromContext(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Peer{}, nil
	}
	return v.Peer(&info.State)
}

// Certificate returns whom a client's certificate stands for, whose key the
// handshake has proved.
func (v *Verifier) Certificate(c *x509.Certificate) (Peer, error) {
	p := peerOf(c)
	if err := v.signed(c); err != nil {
		return Peer{}, fmt.Errorf("%q: %w", p.User, err)
	}
	if p.Role == User {
		now := v.now()
		if now.Before(c.NotBefore) {
			return Peer{}, fmt.Errorf("%q: %w: it is valid from %s", p.User, ErrExpired, c.NotBefore.Format(time.RFC3339))
		}
		if now.After(c.NotAfter) {
			return Peer{}, fmt.Errorf("%q: %w on %s", p.User, ErrExpired, c.NotAfter.Format(time.RFC3339))
		}
		return p, nil
	}
	if err := v.pinned(p); err != nil {
		return Peer{}, fmt.Errorf("%s %q: %w", p.Role, p.Name, err)
	}
	return p, nil
}

// signed checks that c is our CA's and for clients, once for each certificate.
func (v *Verifier) signed(c *x509.Certificate) error {
	sum := sha256.Sum256(c.Raw)
	v.mu.Lock()
	_, ok := v.ours[sum]
	v.mu.Unlock()
	if ok {
		return nil
	}
	if err := chain(c, v.ca, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.ours) >= believed {
		clear(v.ours)
	}
	v.ours[sum] = struct{}{}
	return nil
}

// chain checks everything about c but its dates: it is verified as of a moment
// at which it was valid.
func chain(c, ca *x509.Certificate, usage x509.ExtKeyUsage) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: c.NotBefore.Add(skew), KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	return nil
}

// ServerConfig is for everything that listens, HTTPS and gRPC. It asks clients
// for a certificate, insists on none, and leaves who they are to a [Verifier],
// so that a refusal can say why; TLS itself proves that they hold the key.
func (k *KeyPair) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.cert.Load(), nil },
	}
}

// ClientConfig is for connections of members and nodes to a controld, by
// whatever name or address: the server must be a member by the CA, and accept
// must not refuse it (for a connection to a certain member, or to hold it
// against pinned keys). A nil accept takes every member. Dates are not asked.
func (k *KeyPair) ClientConfig(accept func(Peer) error) *tls.Config {
	return k.client(Member, accept)
}

// NodeClientConfig is ClientConfig for connections to a noded.
func (k *KeyPair) NodeClientConfig(accept func(Peer) error) *tls.Config {
	return k.client(Node, accept)
}

func (k *KeyPair) client(role Role, accept func(Peer) error) *tls.Config {
	c := clientConfig(func(s tls.ConnectionState) error {
		return server(s, k.ca, role, accept)
	})
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.cert.Load(), nil }
	return c
}

// JoinConfig is for the first connection of a machine that has nothing but a
// token: the server must be a member under the CA that the token names. It
// presents no certificate.
func JoinConfig(t Token) *tls.Config {
	return clientConfig(func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) < 2 {
			return fmt.Errorf("%w: the server does not show its cluster's CA", ErrTokenWrongCA)
		}
		ca := s.PeerCertificates[len(s.PeerCertificates)-1]
		if err := t.CheckCA(ca); err != nil {
			return err
		}
		return server(s, ca, Member, nil)
	})
}

// clientConfig replaces the standard verification, which would ask for dates
// and host names, by verify.
func clientConfig(verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // verify does it, and must not be nil
		VerifyConnection:   verify,
	}
}

// server checks the certificate a server presented.
func server(s tls.ConnectionState, ca *x509.Certificate, role Role, accept func(Peer) error) error {
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("%w: the server shows none", ErrNotOurs)
	}
	c := s.PeerCertificates[0]
	p := peerOf(c)
	if err := chain(c, ca, x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("server %q: %w", p.User, err)
	}
	if p.Role != role {
		return fmt.Errorf("server %q: %w: not a %s", p.User, ErrNotOurs, role)
	}
	if accept == nil {
		return nil
	}
	if err := accept(p); err != nil {
		return fmt.Errorf("server %q: %w", p.User, err)
	}
	return nil
}
