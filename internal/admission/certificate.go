package admission

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
)

// approver lets those decide about a request for a certificate who may approve
// for its signer.
func approver(r *Request) error {
	old, ok := r.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok || r.Operation != Update || r.Subresource != "approval" {
		return nil
	}
	return r.maySign("approve", old)
}

// signer lets those write certificates and conditions who may sign for the
// signer of the request.
func signer(r *Request) error {
	old, ok := r.Old.(*certificatesv1.CertificateSigningRequest)
	csr, ok2 := r.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || !ok2 || r.Operation != Update || r.Subresource != "status" {
		return nil
	}
	if bytes.Equal(old.Status.Certificate, csr.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, csr.Status.Conditions) {
		return nil
	}
	return r.maySign("sign", old)
}

// maySign asks whether the user may do verb for the signer of a request, or for
// all signers of that one's domain.
func (r *Request) maySign(verb string, csr *certificatesv1.CertificateSigningRequest) error {
	if r.Authorize == nil {
		return nil
	}
	domain, _, _ := strings.Cut(csr.Spec.SignerName, "/")
	for _, name := range []string{csr.Spec.SignerName, domain + "/*"} {
		if r.Authorize(api.Target{Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Name: name}, verb) == nil {
			return nil
		}
	}
	return forbidRequest(csr, "user not permitted to %s requests with signerName %q", verb, csr.Spec.SignerName)
}

// subject refuses requests to the cluster's own signer for groups whose members
// are no ordinary users. What cannot be read is left to validation.
func subject(r *Request) error {
	csr, ok := r.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || r.Operation != Create || r.Subresource != "" || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil {
		return nil
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil
	}
	for _, group := range request.Subject.Organization {
		if slices.Contains(pki.ReservedGroups(), group) {
			return forbidRequest(csr, "use of %s signer with %s group is not allowed", csr.Spec.SignerName, group)
		}
	}
	return nil
}

func forbidRequest(csr *certificatesv1.CertificateSigningRequest, format string, args ...any) error {
	return apierr.Forbidden("certificatesigningrequests.certificates.k8s.io", csr.Name, fmt.Errorf(format, args...))
}
