package csr

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// How long requests are kept: those that were answered, from the answer on, and
// those that wait for an approval or for a signer.
const (
	keepAnswered = time.Hour
	keepWaiting  = 24 * time.Hour
)

// Cleaner makes the controller that removes requests. It looks at one when it
// changes and when its time is over.
func Cleaner(w reconcile.Writer) reconcile.Controller {
	return reconcile.Controller{
		Name:   "csrcleaner",
		Inputs: []reconcile.Input{{Resource: resource}},
		Reconcile: func(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
			r, err := get(s, key)
			if r == nil || err != nil || r.DeletionTimestamp != nil {
				return 0, err
			}
			if left := time.Until(until(r)); left > 0 {
				return left, nil
			}
			err = w.Delete(ctx, api.Key{Resource: resource, Name: r.Name}, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(r.UID))})
			if errors.Is(err, apierr.ErrNotFound) || errors.Is(err, apierr.ErrConflict) {
				return 0, nil // it is gone, or another one
			}
			return 0, err
		},
	}
}

// until is when a request is to go.
func until(r *certificatesv1.CertificateSigningRequest) time.Time {
	approved := has(r, certificatesv1.CertificateApproved)
	end := r.CreationTimestamp.Add(keepWaiting)
	if approved != nil {
		end = approved.LastUpdateTime.Add(keepWaiting)
		if len(r.Status.Certificate) > 0 {
			end = approved.LastUpdateTime.Add(keepAnswered)
			if over, ok := expiry(r.Status.Certificate); ok && over.Before(end) {
				end = over
			}
		}
	}
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		if c := has(r, t); c != nil && (approved == nil || c.LastUpdateTime.Add(keepAnswered).Before(end)) {
			end = c.LastUpdateTime.Add(keepAnswered)
		}
	}
	return end
}

// expiry is the last date of the first certificate of a text.
func expiry(text []byte) (time.Time, bool) {
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}, false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return c.NotAfter, true
}
