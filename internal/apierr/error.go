package apierr

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Error is a failure with all that a Kubernetes client is told about it. Its
// text is the Status message. Make one with the constructors below; tell kinds
// apart with errors.Is.
type Error struct {
	status metav1.Status
	cause  error
}

// Error returns the message of the Status.
func (e *Error) Error() string { return e.status.Message }

// Status returns what a Kubernetes client is told, so that
// k8s.io/apimachinery's own tests (IsNotFound …) know the error too.
func (e *Error) Status() metav1.Status { return e.status }

// Is reports whether target is the kind of e.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == statusKind(e.status)
}

// Unwrap returns the error that e was made from, if any.
func (e *Error) Unwrap() error { return e.cause }

// New returns an error of a kind with a message of its own. An argument of %w
// stays reachable for errors.Is.
func New(kind Kind, format string, args ...any) error {
	said := fmt.Errorf(format, args...)
	return &Error{cause: errors.Unwrap(said), status: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    int32(kind.HTTP()),
		Reason:  metav1.StatusReason(kind),
		Message: said.Error(),
	}}
}

// In the constructors a resource is its plural name with its group, "pods" or
// "deployments.apps", and a kind likewise, "Pod" or "Deployment.apps": what
// String() of schema.GroupResource and schema.GroupKind give.

// NotFound says `pods "x" not found`.
func NotFound(resource, name string) error {
	return wrap(apierrors.NewNotFound(parse(resource), name), nil)
}

// AlreadyExists says `pods "x" already exists`.
func AlreadyExists(resource, name string) error {
	return wrap(apierrors.NewAlreadyExists(parse(resource), name), nil)
}

// NameTaken says that no free name could be made from a generateName.
func NameTaken(resource, name string) error {
	return wrap(apierrors.NewGenerateNameConflict(parse(resource), name, 1), nil)
}

// Conflict says `Operation cannot be fulfilled on pods "x": ` and why; a nil
// why stands for an object that was changed since it was read.
func Conflict(resource, name string, why error) error {
	if why == nil {
		why = errors.New("the object has been modified; please apply your changes to the latest version and try again")
	}
	return wrap(apierrors.NewConflict(parse(resource), name, why), why)
}

// ApplyConflict is the conflict of server-side apply: one cause per field and
// its other manager.
func ApplyConflict(message string, causes []metav1.StatusCause) error {
	return wrap(apierrors.NewApplyConflict(causes, message), nil)
}

// mostCauses bounds the errors that one answer tells.
const mostCauses = 200

// Invalid says `Deployment.apps "x" is invalid: ` with one cause per error.
func Invalid(kind, name string, errs field.ErrorList) error {
	if more := len(errs) - mostCauses; more > 0 {
		errs = append(errs[:mostCauses:mostCauses], field.Invalid(nil, field.OmitValueType{}, fmt.Sprintf("and %d errors more", more)))
	}
	return wrap(apierrors.NewInvalid(schema.ParseGroupKind(kind), name, errs), nil)
}

// BadRequest says that the request itself cannot be understood.
func BadRequest(format string, args ...any) error { return New(ErrBadRequest, format, args...) }

// Forbidden says `pods "x" is forbidden: ` and why. An empty name speaks of the
// resource, an empty resource of the request.
func Forbidden(resource, name string, why error) error {
	return wrap(apierrors.NewForbidden(parse(resource), name, why), why)
}

// Unauthorized says that nobody, or nobody known, is asking.
func Unauthorized(message string) error {
	if message == "" {
		message = "Unauthorized"
	}
	return New(ErrUnauthorized, "%s", message)
}

// MethodNotAllowed says `patch is not supported on resources of kind "pods"`.
func MethodNotAllowed(resource, action string) error {
	return wrap(apierrors.NewMethodNotSupported(parse(resource), action), nil)
}

// NotAcceptable says that no form the client accepts can be given.
func NotAcceptable(format string, args ...any) error { return New(ErrNotAcceptable, format, args...) }

// UnsupportedMediaType says that the request's form is not understood.
func UnsupportedMediaType(format string, args ...any) error {
	return New(ErrUnsupportedMediaType, format, args...)
}

// TooLarge says `Request entity too large: ` and the limit.
func TooLarge(format string, args ...any) error {
	return New(ErrTooLarge, "Request entity too large: "+format, args...)
}

// TooManyRequests asks the client to come again after a while.
func TooManyRequests(message string, after time.Duration) error {
	return wrap(apierrors.NewTooManyRequests(message, seconds(after)), nil)
}

// Expired says that a resourceVersion or continue token is too old; the client
// lists again.
func Expired(format string, args ...any) error { return New(ErrExpired, format, args...) }

// Timeout says `Timeout: ` and what; the operation may still be done.
func Timeout(message string, after time.Duration) error {
	return wrap(apierrors.NewTimeoutError(message, seconds(after)), nil)
}

// ServerTimeout says that the operation was not done and may be tried again.
func ServerTimeout(resource, operation string, after time.Duration) error {
	return wrap(apierrors.NewServerTimeout(parse(resource), operation, seconds(after)), nil)
}

// Unavailable says that nobody here can serve the request now.
func Unavailable(format string, args ...any) error { return New(ErrUnavailable, format, args...) }

// Internal says `Internal error occurred: ` and err.
func Internal(err error) error { return wrap(apierrors.NewInternalError(err), err) }

// FromStatus returns the error that a Status tells of, or nil for success.
func FromStatus(s metav1.Status) error {
	if s.Status == metav1.StatusSuccess {
		return nil
	}
	return &Error{status: s}
}

// StatusOf returns what a Kubernetes client is told of err, complete with kind
// and apiVersion. If err wraps an [Error], the client gets the Error's own
// words and not what was wrapped round it. StatusOf(nil) is success.
func StatusOf(err error) metav1.Status {
	meta := metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if err == nil {
		return metav1.Status{TypeMeta: meta, Status: metav1.StatusSuccess, Code: http.StatusOK}
	}
	err = FromGRPC(err)
	var s metav1.Status
	var api apierrors.APIStatus
	if errors.As(err, &api) {
		s = *(ptr(api.Status())).DeepCopy()
	} else if own := Kind(""); errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &own) {
		s = apierrors.NewTimeoutError("request did not complete within requested timeout - "+err.Error(), 0).ErrStatus
	} else if k := KindOf(err); k == ErrInternal && !errors.Is(err, ErrInternal) {
		s = apierrors.NewInternalError(err).ErrStatus
	} else {
		s = metav1.Status{Reason: metav1.StatusReason(k), Code: int32(k.HTTP()), Message: err.Error()}
	}
	s.TypeMeta, s.Status = meta, metav1.StatusFailure
	if s.Code == 0 {
		s.Code = int32(statusKind(s).HTTP())
	}
	return s
}

// RetryAfter returns how long the client is asked to wait, and reports whether
// it is.
func RetryAfter(err error) (time.Duration, bool) {
	n, ok := apierrors.SuggestsClientDelay(err)
	return time.Duration(n) * time.Second, ok
}

func wrap(e *apierrors.StatusError, cause error) error {
	return &Error{status: e.ErrStatus, cause: cause}
}

func parse(resource string) schema.GroupResource { return schema.ParseGroupResource(resource) }

func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

func ptr[T any](v T) *T { return &v }
