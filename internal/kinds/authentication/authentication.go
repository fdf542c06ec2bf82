// Package authentication holds the kinds by which one asks who somebody is.
// They are not stored.
package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// TokenReview is the kind that says whose a token is.
func TokenReview() *api.Kind {
	return &api.Kind{
		Group: authenticationv1.GroupName, Version: "v1", Kind: "TokenReview",
		Resource: "tokenreviews", Singular: "tokenreview",
		Verbs: []string{"create"}, Virtual: true,
		New: func() api.Object { return &authenticationv1.TokenReview{} },
	}
}

// SelfSubjectReview is the kind that says who asks.
func SelfSubjectReview() *api.Kind {
	return &api.Kind{
		Group: authenticationv1.GroupName, Version: "v1", Kind: "SelfSubjectReview",
		Resource: "selfsubjectreviews", Singular: "selfsubjectreview",
		Verbs: []string{"create"}, Virtual: true,
		New: func() api.Object { return &authenticationv1.SelfSubjectReview{} },
	}
}

// The bounds of a token's life in seconds.
const (
	defaultSeconds = 60 * 60
	minSeconds     = 10 * 60
	maxSeconds     = 1 << 32
)

// DefaultTokenRequest fills in what a request for a token leaves out.
func DefaultTokenRequest(r *authenticationv1.TokenRequest) {
	if r.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultSeconds)
		r.Spec.ExpirationSeconds = &seconds
	}
}

// ValidateTokenRequest checks a defaulted request for a token.
func ValidateTokenRequest(r *authenticationv1.TokenRequest) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	seconds := *r.Spec.ExpirationSeconds
	if path := spec.Child("expirationSeconds"); seconds < minSeconds {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	} else if seconds > maxSeconds {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	for i, a := range r.Spec.Audiences {
		if a == "" {
			errs = append(errs, field.Invalid(spec.Child("audiences").Index(i), a, "must not be empty"))
		}
	}
	return errs
}
