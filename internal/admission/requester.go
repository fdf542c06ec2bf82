package admission

import (
	certificatesv1 "k8s.io/api/certificates/v1"
)

// requester writes into a new request for a certificate who asks, whatever the
// request says of it.
func requester(r *Request) error {
	csr, ok := r.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || r.Operation != Create {
		return nil
	}
	csr.Spec.Username, csr.Spec.UID = r.User.Name, r.User.UID
	csr.Spec.Groups = append([]string(nil), r.User.Groups...)
	csr.Spec.Extra = nil
	if len(r.User.Extra) > 0 {
		csr.Spec.Extra = map[string]certificatesv1.ExtraValue{}
	}
	for k, v := range r.User.Extra {
		csr.Spec.Extra[k] = append(certificatesv1.ExtraValue(nil), v...)
	}
	return nil
}
