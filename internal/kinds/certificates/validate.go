package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minSeconds    = 600
	legacyUnknown = "kubernetes.io/legacy-unknown"
	maxSignerPath = 571 // a namespace and a name with a dot between them, and the slash
)

func usages() []certificatesv1.KeyUsage {
	all := []certificatesv1.KeyUsage{
		certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment,
		certificatesv1.UsageKeyEncipherment, certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment,
		certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign, certificatesv1.UsageEncipherOnly, certificatesv1.UsageDecipherOnly,
		certificatesv1.UsageAny, certificatesv1.UsageServerAuth, certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning,
		certificatesv1.UsageEmailProtection, certificatesv1.UsageSMIME, certificatesv1.UsageIPsecEndSystem,
		certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping,
		certificatesv1.UsageOCSPSigning, certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
	}
	slices.Sort(all)
	return all
}

func validateRequest(r *certificatesv1.CertificateSigningRequest) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("spec")
	if err := parse(r.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(at.Child("request"), r.Spec.Request, err.Error()))
	}
	if len(r.Spec.Usages) == 0 {
		errs = append(errs, field.Required(at.Child("usages"), ""))
	}
	known := usages()
	for i, u := range r.Spec.Usages {
		if !slices.Contains(known, u) {
			errs = append(errs, field.NotSupported(at.Child("usages").Index(i), u, known))
		}
		if slices.Contains(r.Spec.Usages[:i], u) {
			errs = append(errs, field.Duplicate(at.Child("usages").Index(i), u))
		}
	}
	if r.Spec.SignerName == legacyUnknown {
		errs = append(errs, field.Invalid(at.Child("signerName"), r.Spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, validateSigner(r.Spec.SignerName, at.Child("signerName"))...)
	}
	if s := r.Spec.ExpirationSeconds; s != nil && *s < minSeconds {
		errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return append(errs, validateConditions(r.Status.Conditions)...)
}

// parse checks that a request is one in PEM, and signed by the key it holds.
func parse(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return request.CheckSignature()
}

func validateSigner(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(rest, "/") {
		return field.ErrorList{field.Invalid(at, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	if n := len(domain); n > validation.DNS1123SubdomainMaxLength {
		errs = append(errs, field.TooLong(at, "", validation.DNS1123SubdomainMaxLength))
	}
	labels := strings.Split(domain, ".")
	for _, l := range labels {
		for _, msg := range validation.IsDNS1123Label(l) {
			errs = append(errs, field.Invalid(at, domain, fmt.Sprintf("validating label %q: %s", l, msg)))
		}
	}
	if len(labels) < 2 {
		errs = append(errs, field.Invalid(at, domain, "should be a domain with at least two segments separated by dots"))
	}
	if len(rest) > maxSignerPath {
		errs = append(errs, field.TooLong(at, "", maxSignerPath))
	}
	for _, l := range strings.Split(rest, ".") {
		for _, msg := range validation.IsDNS1123Label(l) {
			errs = append(errs, field.Invalid(at, rest, fmt.Sprintf("validating label %q: %s", l, msg)))
		}
	}
	return errs
}

func validateStatus(r, _ *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := validateConditions(r.Status.Conditions)
	at := field.NewPath("status", "certificate")
	if len(r.Status.Certificate) == 0 {
		return errs
	}
	blocks := 0
	for rest := r.Status.Certificate; ; blocks++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return append(errs, field.Invalid(at, "<certificate data>", fmt.Sprintf("only CERTIFICATE PEM blocks are allowed, found %q", b.Type)))
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return append(errs, field.Invalid(at, "<certificate data>", err.Error()))
		}
	}
	if blocks == 0 {
		errs = append(errs, field.Invalid(at, "<certificate data>", "must contain at least one CERTIFICATE PEM block"))
	}
	return errs
}

func validateConditions(all []certificatesv1.CertificateSigningRequestCondition) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("status", "conditions")
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, c := range all {
		one := at.Index(i)
		if c.Type == "" {
			errs = append(errs, field.Required(one.Child("type"), ""))
		}
		switch states := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}; {
		case c.Status == "":
			errs = append(errs, field.Required(one.Child("status"), ""))
		case decision(c.Type) || c.Type == certificatesv1.CertificateFailed:
			if c.Status != corev1.ConditionTrue {
				errs = append(errs, field.NotSupported(one.Child("status"), c.Status, []corev1.ConditionStatus{corev1.ConditionTrue}))
			}
		case !slices.Contains(states, c.Status):
			errs = append(errs, field.NotSupported(one.Child("status"), c.Status, states))
		}
		if seen[certificatesv1.CertificateApproved] && c.Type == certificatesv1.CertificateDenied || seen[certificatesv1.CertificateDenied] && c.Type == certificatesv1.CertificateApproved {
			errs = append(errs, field.Invalid(one.Child("type"), c.Type, "Approved and Denied conditions are mutually exclusive"))
		}
		if seen[c.Type] {
			errs = append(errs, field.Duplicate(one.Child("type"), c.Type))
		}
		seen[c.Type] = true
	}
	return errs
}

// validateApproval lets a decision never be taken back.
func validateApproval(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	var errs field.ErrorList
	for _, was := range old.Status.Conditions {
		if !decision(was.Type) && was.Type != certificatesv1.CertificateFailed {
			continue
		}
		if !slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == was.Type }) {
			errs = append(errs, field.Forbidden(field.NewPath("status", "conditions"), fmt.Sprintf("updates may not remove a condition of type %q", was.Type)))
		}
	}
	return errs
}
