package pki

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// backdate is how far back a user's certificate begins, and of short ones it is
// no part of their life.
const (
	backdate  = 5 * time.Minute
	shortLife = 8 * time.Hour
)

// SignClient returns a certificate (DER) of a user for the key of a request. Its
// subject and alternative names are the request's. It is valid from now for
// life, but no longer than the CA, for the usages given and as a client. Groups
// of [ReservedGroups] are refused.
func (a *Authority) SignClient(r *x509.CertificateRequest, usage x509.KeyUsage, life time.Duration, now time.Time) ([]byte, error) {
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", r.Subject.CommonName, err)
	}
	for _, group := range r.Subject.Organization {
		if slices.Contains(ReservedGroups(), group) {
			return nil, errors.New("sign certificate: nobody gets into the group " + group + " by a request")
		}
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	if first := a.cert.NotBefore.Add(skew); now.Before(first) {
		now = first
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: r.Subject,
		DNSNames: r.DNSNames, EmailAddresses: r.EmailAddresses, IPAddresses: r.IPAddresses, URIs: r.URIs,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(-backdate).Add(life),
		KeyUsage: usage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if life < shortLife {
		tmpl.NotAfter = now.Add(life)
	}
	if tmpl.NotAfter.After(a.cert.NotAfter) {
		tmpl.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, r.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", r.Subject.CommonName, err)
	}
	return der, nil
}
