// Package csr answers approved requests for certificates of the signer
// kubernetes.io/kube-apiserver-client, and removes requests that are done or
// that nobody answers. Requests to other signers are left to those.
package csr

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "certificate"

// Signer is the signer whose requests are answered.
const Signer = certificatesv1.KubeAPIServerClientSignerName

const (
	resource = "certificatesigningrequests.certificates.k8s.io"
	// refused is the reason of the condition Failed.
	refused = "SignerValidationFailure"
	// shortest is the least life that is given, and pki.UserLife the most: it is
	// also what those get who ask for none.
	shortest = 10 * time.Minute
)

// New makes the controller that signs. authority opens the cluster's CA.
func New(w reconcile.Writer, authority func(*store.Snapshot) (*pki.Authority, error)) reconcile.Controller {
	return reconcile.Controller{
		Name:   Name,
		Inputs: []reconcile.Input{{Resource: resource}},
		Reconcile: func(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
			r, err := get(s, key)
			if r == nil || err != nil || !waiting(r) {
				return 0, err
			}
			ca, err := authority(s)
			if err != nil {
				return 0, err
			}
			return 0, answer(ctx, w, r, ca)
		},
	}
}

// get gives a request, or nil if there is none.
func get(s *store.Snapshot, key reconcile.Key) (*certificatesv1.CertificateSigningRequest, error) {
	r, err := store.Get[*certificatesv1.CertificateSigningRequest](s, api.Key{Resource: resource, Name: key.Name})
	if errors.Is(err, apierr.ErrNotFound) {
		return nil, nil
	}
	return r, err
}

// waiting reports whether a request is approved and ours to answer.
func waiting(r *certificatesv1.CertificateSigningRequest) bool {
	return r.Spec.SignerName == Signer && len(r.Status.Certificate) == 0 && r.DeletionTimestamp == nil &&
		has(r, certificatesv1.CertificateApproved) != nil && has(r, certificatesv1.CertificateDenied) == nil && has(r, certificatesv1.CertificateFailed) == nil
}

// has gives a condition that is true.
func has(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i, c := range r.Status.Conditions {
		if c.Type == t && (c.Status == corev1.ConditionTrue || c.Status == "") {
			return &r.Status.Conditions[i]
		}
	}
	return nil
}

// answer writes the certificate, or why there will be none.
func answer(ctx context.Context, w reconcile.Writer, r *certificatesv1.CertificateSigningRequest, ca *pki.Authority) error {
	next := r.DeepCopy()
	request, usage, err := check(r)
	if err != nil {
		next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: refused, Message: err.Error(),
		})
	} else {
		der, err := ca.SignClient(request, usage, life(r.Spec.ExpirationSeconds), time.Now())
		if err != nil {
			return err
		}
		next.Status.Certificate = pki.EncodeCertificate(der)
	}
	_, err = w.UpdateStatus(ctx, next)
	if errors.Is(err, apierr.ErrNotFound) {
		return nil
	}
	return err
}

// check reads a request and refuses what the signer does not give.
func check(r *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, x509.KeyUsage, error) {
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return nil, 0, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, 0, err
	}
	for _, group := range request.Subject.Organization { // of an older version, which let it in
		if slices.Contains(pki.ReservedGroups(), group) {
			return nil, 0, fmt.Errorf("use of %s signer with %s group is not allowed", Signer, group)
		}
	}
	usage, client := x509.KeyUsage(0), false
	for _, u := range r.Spec.Usages {
		switch u {
		case certificatesv1.UsageDigitalSignature:
			usage |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			usage |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageClientAuth:
			client = true
		default:
			return nil, 0, fmt.Errorf("invalid usage for client certificate: %s", u)
		}
	}
	if !client {
		return nil, 0, fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return request, usage, nil
}

// life is how long a certificate is to live.
func life(seconds *int32) time.Duration {
	if seconds == nil {
		return pki.UserLife
	}
	return max(shortest, min(time.Duration(*seconds)*time.Second, pki.UserLife))
}
