// Package apierr names the ways in which Wherry refuses or fails: one [Kind]
// each, which errors.Is finds in any error that wraps it, and constructors that
// say it in the words Kubernetes clients know.
//
// It alone knows how a kind looks outside the program: as metav1.Status with
// its HTTP code and reason, and as a gRPC status with rich details. Both
// translations lose nothing: an error that crosses gRPC arrives with the same
// Status it left with.
//
//	if errors.Is(err, apierr.ErrNotFound) { … }
//	return apierr.NotFound("deployments.apps", name)
//	return apierr.New(apierr.ErrNotFound, "image %s is not on this node", ref)
package apierr

import (
	"context"
	"errors"
	"net/http"

	"google.golang.org/grpc/codes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Kind is a kind of failure, and an error that says no more than that. Its text
// is the reason of the Kubernetes Status. Kinds are constants: compare with
// errors.Is, wrap with %w.
type Kind string

// The kinds of failure. Each stands for one HTTP code and reason, and for one
// gRPC code; see the table below.
const (
	ErrNotFound             = Kind(metav1.StatusReasonNotFound)
	ErrAlreadyExists        = Kind(metav1.StatusReasonAlreadyExists)
	ErrConflict             = Kind(metav1.StatusReasonConflict)
	ErrInvalid              = Kind(metav1.StatusReasonInvalid)
	ErrBadRequest           = Kind(metav1.StatusReasonBadRequest)
	ErrForbidden            = Kind(metav1.StatusReasonForbidden)
	ErrUnauthorized         = Kind(metav1.StatusReasonUnauthorized)
	ErrMethodNotAllowed     = Kind(metav1.StatusReasonMethodNotAllowed)
	ErrNotAcceptable        = Kind(metav1.StatusReasonNotAcceptable)
	ErrUnsupportedMediaType = Kind(metav1.StatusReasonUnsupportedMediaType)
	ErrTooLarge             = Kind(metav1.StatusReasonRequestEntityTooLarge)
	ErrTooManyRequests      = Kind(metav1.StatusReasonTooManyRequests)
	ErrExpired              = Kind(metav1.StatusReasonExpired)
	ErrTimeout              = Kind(metav1.StatusReasonTimeout)
	ErrServerTimeout        = Kind(metav1.StatusReasonServerTimeout)
	ErrUnavailable          = Kind(metav1.StatusReasonServiceUnavailable)
	ErrInternal             = Kind(metav1.StatusReasonInternalError)
)

// face is what a kind looks like outside.
type face struct {
	kind Kind
	http int
	grpc codes.Code
}

// faces is in order of preference: where several kinds share a code, the first
// is taken for a stranger's error that has only the code.
func faces() []face {
	return []face{
		{ErrNotFound, http.StatusNotFound, codes.NotFound},
		{ErrConflict, http.StatusConflict, codes.Aborted},
		{ErrAlreadyExists, http.StatusConflict, codes.AlreadyExists},
		{ErrBadRequest, http.StatusBadRequest, codes.InvalidArgument},
		{ErrInvalid, http.StatusUnprocessableEntity, codes.InvalidArgument},
		{ErrForbidden, http.StatusForbidden, codes.PermissionDenied},
		{ErrUnauthorized, http.StatusUnauthorized, codes.Unauthenticated},
		{ErrMethodNotAllowed, http.StatusMethodNotAllowed, codes.Unimplemented},
		{ErrNotAcceptable, http.StatusNotAcceptable, codes.InvalidArgument},
		{ErrUnsupportedMediaType, http.StatusUnsupportedMediaType, codes.InvalidArgument},
		{ErrTooManyRequests, http.StatusTooManyRequests, codes.ResourceExhausted},
		{ErrTooLarge, http.StatusRequestEntityTooLarge, codes.ResourceExhausted},
		{ErrExpired, http.StatusGone, codes.OutOfRange},
		{ErrTimeout, http.StatusGatewayTimeout, codes.DeadlineExceeded},
		{ErrUnavailable, http.StatusServiceUnavailable, codes.Unavailable},
		{ErrInternal, http.StatusInternalServerError, codes.Internal},
		{ErrServerTimeout, http.StatusInternalServerError, codes.Unavailable},
	}
}

// Error returns the reason, as in a Kubernetes Status.
func (k Kind) Error() string { return string(k) }

// HTTP returns the HTTP status code of k.
func (k Kind) HTTP() int {
	for _, f := range faces() {
		if f.kind == k {
			return f.http
		}
	}
	return http.StatusInternalServerError
}

// Code returns the gRPC code of k.
func (k Kind) Code() codes.Code {
	for _, f := range faces() {
		if f.kind == k {
			return f.grpc
		}
	}
	return codes.Unknown
}

// KindOf returns the kind of err: of the error of this package it wraps, of a
// Kubernetes client's error, of a gRPC call's, or of a context that ended. Any
// other error is ErrInternal. KindOf(nil) is "".
func KindOf(err error) Kind {
	err = FromGRPC(err)
	var k Kind
	var api apierrors.APIStatus
	switch {
	case err == nil:
		return ""
	case errors.As(err, &api):
		return statusKind(api.Status())
	case errors.As(err, &k):
		return k
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return ErrTimeout
	}
	return ErrInternal
}

// statusKind returns the kind of a Status: by its reason if we know it, else by
// its code.
func statusKind(s metav1.Status) Kind {
	if s.Reason == metav1.StatusReasonGone {
		return ErrExpired
	}
	for _, f := range faces() {
		if f.kind == Kind(s.Reason) {
			return f.kind
		}
	}
	return httpKind(int(s.Code))
}

// httpKind returns the kind that stands for an HTTP code without a reason.
func httpKind(code int) Kind {
	for _, f := range faces() {
		if f.http == code {
			return f.kind
		}
	}
	if code >= 400 && code < 500 {
		return ErrBadRequest
	}
	return ErrInternal
}

// grpcKind returns the kind that stands for a gRPC code without details.
func grpcKind(code codes.Code) Kind {
	switch code {
	case codes.Canceled:
		return ErrTimeout
	case codes.FailedPrecondition:
		return ErrBadRequest
	}
	for _, f := range faces() {
		if f.grpc == code {
			return f.kind
		}
	}
	return ErrInternal
}
