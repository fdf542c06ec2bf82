package apierr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/apierr"
)

// failure is one error and all that is promised of it.
type failure struct {
	name string
	err  error
	kind apierr.Kind
	http int
	grpc codes.Code
	text string
}

func failures() []failure {
	why := errors.New("because")
	invalid := apierr.Invalid("Deployment.apps", "web", field.ErrorList{
		field.Invalid(field.NewPath("spec", "replicas"), -1, "must be greater than or equal to 0"),
		field.Required(field.NewPath("spec", "selector"), ""),
	})
	return []failure{
		{"core not found", apierr.NotFound("pods", "x"), apierr.ErrNotFound, 404, codes.NotFound, `pods "x" not found`},
		{"group not found", apierr.NotFound("deployments.apps", "x"), apierr.ErrNotFound, 404, codes.NotFound, `deployments.apps "x" not found`},
		{"dotted group", apierr.NotFound("leases.coordination.k8s.io", "x"), apierr.ErrNotFound, 404, codes.NotFound, `leases.coordination.k8s.io "x" not found`},
		{"exists", apierr.AlreadyExists("pods", "x"), apierr.ErrAlreadyExists, 409, codes.AlreadyExists, `pods "x" already exists`},
		{"name taken", apierr.NameTaken("pods", "x-"), apierr.ErrAlreadyExists, 409, codes.AlreadyExists, `pods "x-" already exists, the server was not able to generate a unique name for the object`},
		{"stale", apierr.Conflict("deployments.apps", "x", nil), apierr.ErrConflict, 409, codes.Aborted, `Operation cannot be fulfilled on deployments.apps "x": the object has been modified; please apply your changes to the latest version and try again`},
		{"precondition", apierr.Conflict("pods", "x", why), apierr.ErrConflict, 409, codes.Aborted, `Operation cannot be fulfilled on pods "x": because`},
		{"apply", apierr.ApplyConflict("Apply failed with 1 conflict", nil), apierr.ErrConflict, 409, codes.Aborted, `Apply failed with 1 conflict`},
		{"invalid", invalid, apierr.ErrInvalid, 422, codes.InvalidArgument, `Deployment.apps "web" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.selector: Required value]`},
		{"bad request", apierr.BadRequest("bad %d", 7), apierr.ErrBadRequest, 400, codes.InvalidArgument, `bad 7`},
		{"forbidden", apierr.Forbidden("pods", "", errors.New(`User "u" cannot list resource "pods" in API group "" in the namespace "default"`)), apierr.ErrForbidden, 403, codes.PermissionDenied, `pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "default"`},
		{"forbidden name", apierr.Forbidden("pods", "x", why), apierr.ErrForbidden, 403, codes.PermissionDenied, `pods "x" is forbidden: because`},
		{"unauthorized", apierr.Unauthorized(""), apierr.ErrUnauthorized, 401, codes.Unauthenticated, `Unauthorized`},
		{"method", apierr.MethodNotAllowed("pods", "patch"), apierr.ErrMethodNotAllowed, 405, codes.Unimplemented, `patch is not supported on resources of kind "pods"`},
		{"not acceptable", apierr.NotAcceptable("only JSON"), apierr.ErrNotAcceptable, 406, codes.InvalidArgument, `only JSON`},
		{"media type", apierr.UnsupportedMediaType("text/x"), apierr.ErrUnsupportedMediaType, 415, codes.InvalidArgument, `text/x`},
		{"too large", apierr.TooLarge("limit is %d", 3145728), apierr.ErrTooLarge, 413, codes.ResourceExhausted, `Request entity too large: limit is 3145728`},
		{"too many", apierr.TooManyRequests("slow down", 1500*time.Millisecond), apierr.ErrTooManyRequests, 429, codes.ResourceExhausted, `slow down`},
		{"expired", apierr.Expired("too old resource version: %d (%d)", 1, 9), apierr.ErrExpired, 410, codes.OutOfRange, `too old resource version: 1 (9)`},
		{"timeout", apierr.Timeout("request did not complete", 0), apierr.ErrTimeout, 504, codes.DeadlineExceeded, `Timeout: request did not complete`},
		{"server timeout", apierr.ServerTimeout("pods", "create", time.Second), apierr.ErrServerTimeout, 500, codes.Unavailable, `The create operation against pods could not be completed at this time, please try again.`},
		{"unavailable", apierr.Unavailable("no leader"), apierr.ErrUnavailable, 503, codes.Unavailable, `no leader`},
		{"internal", apierr.Internal(why), apierr.ErrInternal, 500, codes.Internal, `Internal error occurred: because`},
		{"own words", apierr.New(apierr.ErrNotFound, "no chain %q", "c"), apierr.ErrNotFound, 404, codes.NotFound, `no chain "c"`},
	}
}

func TestConstructors(t *testing.T) {
	for _, f := range failures() {
		t.Run(f.name, func(t *testing.T) {
			wrapped := fmt.Errorf("do it: %w", f.err)
			if !errors.Is(wrapped, f.kind) || apierr.KindOf(wrapped) != f.kind {
				t.Errorf("kind = %v, want %v", apierr.KindOf(wrapped), f.kind)
			}
			if f.err.Error() != f.text {
				t.Errorf("text\n got %s\nwant %s", f.err, f.text)
			}
			s := apierr.StatusOf(wrapped)
			if int(s.Code) != f.http || f.kind.HTTP() != f.http || s.Message != f.text || s.Kind != "Status" || s.APIVersion != "v1" || s.Status != metav1.StatusFailure {
				t.Errorf("status = %+v", s)
			}
			if f.kind.Code() != f.grpc {
				t.Errorf("grpc code %v, want %v", f.kind.Code(), f.grpc)
			}
			for _, other := range failures() {
				if other.kind != f.kind && errors.Is(f.err, other.kind) {
					t.Errorf("is %v too", other.kind)
				}
			}
		})
	}
	if !apierrors.IsConflict(failures()[5].err) {
		t.Error("Kubernetes' own test does not know our conflict")
	}
}

func TestDetails(t *testing.T) {
	d := apierr.StatusOf(apierr.Invalid("Deployment.apps", "web", field.ErrorList{
		field.NotSupported(field.NewPath("spec", "strategy", "type"), "X", []string{"Recreate", "RollingUpdate"}),
	})).Details
	if d.Group != "apps" || d.Kind != "Deployment" || d.Name != "web" || len(d.Causes) != 1 ||
		d.Causes[0].Type != metav1.CauseTypeFieldValueNotSupported || d.Causes[0].Field != "spec.strategy.type" {
		t.Errorf("details = %+v", d)
	}
	if after, ok := apierr.RetryAfter(apierr.TooManyRequests("x", 1500*time.Millisecond)); !ok || after != 2*time.Second {
		t.Errorf("retry after %v %v, want 2s", after, ok)
	}
	if _, ok := apierr.RetryAfter(apierr.Timeout("x", 0)); ok {
		t.Error("asks to retry after nothing")
	}
}

func TestStatusOfOthers(t *testing.T) {
	tests := []struct {
		name string
		err  error
		code int32
		text string
	}{
		{"nil", nil, http.StatusOK, ""},
		{"plain", errors.New("boom"), 500, "Internal error occurred: boom"},
		{"kind", fmt.Errorf("image %q: %w", "a", apierr.ErrNotFound), 404, `image "a": NotFound`},
		{"deadline", fmt.Errorf("dial: %w", context.DeadlineExceeded), 504, "Timeout: request did not complete within requested timeout - dial: context deadline exceeded"},
		{"client's", apierrors.NewBadRequest("no"), 400, "no"},
		{"a gRPC call's", status.Error(codes.NotFound, "gone"), 404, "gone"},
		{"gone", apierr.FromStatus(metav1.Status{Reason: metav1.StatusReasonGone, Message: "old"}), 410, "old"},
		{"stranger's code", apierr.FromStatus(metav1.Status{Code: 418, Message: "tea"}), 418, "tea"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s := apierr.StatusOf(tt.err); s.Code != tt.code || s.Message != tt.text {
				t.Errorf("got %d %q, want %d %q", s.Code, s.Message, tt.code, tt.text)
			}
		})
	}
	if err := apierr.FromStatus(apierr.StatusOf(nil)); err != nil {
		t.Errorf("success became %v", err)
	}
	if why := errors.New("why"); !errors.Is(apierr.New(apierr.ErrInternal, "x: %w", why), why) {
		t.Error("New lost what it wraps")
	}
}
