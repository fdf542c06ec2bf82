package apierr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/apierr"
)

// failing answers every call with err.
type failing struct {
	healthpb.UnimplementedHealthServer
	err error
}

func (f *failing) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return nil, f.err
}

func (f *failing) Watch(_ *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	if err := s.Send(&healthpb.HealthCheckResponse{}); err != nil {
		return err
	}
	return f.err
}

// serve returns a client of f over a connection in memory.
func serve(t *testing.T, f *failing) healthpb.HealthClient {
	t.Helper()
	lis := bufconn.Listen(1 << 16)
	srv := grpc.NewServer(grpc.UnaryInterceptor(apierr.ServerUnary), grpc.StreamInterceptor(apierr.ServerStream))
	healthpb.RegisterHealthServer(srv, f)
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(srv.Stop)
	cc, err := grpc.NewClient("passthrough:///x",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(apierr.ClientUnary), grpc.WithStreamInterceptor(apierr.ClientStream))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return healthpb.NewHealthClient(cc)
}

func TestRoundTrip(t *testing.T) {
	f := &failing{}
	c := serve(t, f)
	for _, want := range failures() {
		t.Run(want.name, func(t *testing.T) {
			f.err = fmt.Errorf("somewhere: %w", want.err)
			_, got := c.Check(t.Context(), &healthpb.HealthCheckRequest{})
			same(t, got, want)
			w, err := c.Watch(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Recv(); err != nil {
				t.Fatalf("first message: %v", err)
			}
			_, got = w.Recv()
			same(t, got, want)
		})
	}
	f.err = nil
	w, err := c.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Recv()
	if _, err := w.Recv(); err != io.EOF {
		t.Errorf("end of stream = %v, want io.EOF", err)
	}
}

func same(t *testing.T, got error, want failure) {
	t.Helper()
	if !errors.Is(got, want.kind) || got.Error() != want.text {
		t.Errorf("got %v", got)
	}
	if a, b := apierr.StatusOf(got), apierr.StatusOf(want.err); !reflect.DeepEqual(a, b) {
		t.Errorf("status\n got %+v\nwant %+v", a, b)
	}
	if st, _ := status.FromError(apierr.ToGRPC(got)); st.Code() != want.grpc {
		t.Errorf("code %v, want %v", st.Code(), want.grpc)
	}
}

func TestRichDetails(t *testing.T) {
	st, _ := status.FromError(apierr.ToGRPC(apierr.Invalid("Pod", "p", field.ErrorList{field.Required(field.NewPath("spec", "containers"), "")})))
	var info *errdetails.ErrorInfo
	var bad *errdetails.BadRequest
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.BadRequest:
			bad = d
		}
	}
	if info.GetReason() != "INVALID" || info.GetMetadata()["kind"] != "Pod" || info.GetMetadata()["name"] != "p" {
		t.Errorf("info = %v", info)
	}
	v := bad.GetFieldViolations()
	if len(v) != 1 || v[0].GetField() != "spec.containers" || v[0].GetReason() != "FIELD_VALUE_REQUIRED" {
		t.Errorf("violations = %v", v)
	}
}

func TestLongErrorsAreSaidOnce(t *testing.T) {
	var errs field.ErrorList
	for i := range 40 {
		errs = append(errs, field.Invalid(field.NewPath("spec").Index(i), i, strings.Repeat("x", 40)))
	}
	err := apierr.Invalid("Pod", "p", errs)
	st, _ := status.FromError(apierr.ToGRPC(err))
	if n := len(st.Details()); n != 2 {
		t.Errorf("%d details, want the Status and the ErrorInfo", n)
	}
	if got := apierr.StatusOf(apierr.FromGRPC(st.Err())).Details.Causes; len(got) != 40 {
		t.Errorf("%d causes arrived, want 40", len(got))
	}
}

func TestStrangers(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		got := apierr.FromGRPC(fmt.Errorf("call: %w", status.Error(code, "m")))
		if apierr.KindOf(got) == "" || got.Error() == "" {
			t.Errorf("%v became %v", code, got)
		}
	}
	if err := apierr.FromGRPC(status.Error(codes.Canceled, "m")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call is %v", err)
	}
	if err := apierr.FromGRPC(status.Error(codes.DeadlineExceeded, "m")); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, apierr.ErrTimeout) {
		t.Errorf("late call is %v", err)
	}
	if st, _ := status.FromError(apierr.ToGRPC(context.Canceled)); st.Code() != codes.Canceled {
		t.Errorf("cancelled context is %v", st.Code())
	}
	plain := errors.New("no call made this")
	if got := apierr.FromGRPC(plain); got != plain {
		t.Errorf("plain error became %v", got)
	}
	if st, _ := status.FromError(apierr.ToGRPC(apierr.BadRequest("\xff"))); !strings.Contains(st.Message(), "\uFFFD") {
		t.Errorf("message %q is not UTF-8", st.Message())
	}
}
