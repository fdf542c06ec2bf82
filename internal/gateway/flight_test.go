package gateway_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/gateway"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/testkit"
)

// waits is a service of which one call waits until the test lets it go.
type waits struct {
	wherryv1.UnimplementedResourcesServer
	inside, release chan struct{}
}

func (w *waits) Get(ctx context.Context, r *wherryv1.GetRequest) (*wherryv1.GetResponse, error) {
	if r.GetTarget().GetName() != "wait" {
		return &wherryv1.GetResponse{}, nil
	}
	w.inside <- struct{}{}
	select {
	case <-w.release:
		return &wherryv1.GetResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *waits) Create(context.Context, *wherryv1.CreateRequest) (*wherryv1.CreateResponse, error) {
	return &wherryv1.CreateResponse{}, nil
}

func (w *waits) Watch(_ *wherryv1.WatchRequest, s grpc.ServerStreamingServer[wherryv1.WatchResponse]) error {
	return s.Send(&wherryv1.WatchResponse{})
}

// flies serves w behind the interceptor of a Flight. Who calls is in the
// metadata.
func flies(t *testing.T, f *gateway.Flight, w *waits) wherryv1.ResourcesClient {
	t.Helper()
	user := func(ctx context.Context) (api.User, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if len(md.Get("master")) > 0 {
			return api.User{Name: "root", Groups: []string{"system:masters"}}, nil
		}
		return api.User{Name: "jane"}, nil
	}
	return wherryv1.NewResourcesClient(testkit.GRPC(t, func(srv *grpc.Server) {
		wherryv1.RegisterResourcesServer(srv, w)
	}, grpc.ChainUnaryInterceptor(f.Unary(user))))
}

func get(name string) *wherryv1.GetRequest {
	return &wherryv1.GetRequest{Target: &wherryv1.Target{Name: name}}
}

// TestLimitsOverGRPC: calls over gRPC and requests over HTTPS take the same
// places.
func TestLimitsOverGRPC(t *testing.T) {
	f := gateway.NewFlight(gateway.Limits{Reads: 1})
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.Flight = f }})
	w := &waits{inside: make(chan struct{}), release: make(chan struct{})}
	rpc := flies(t, f, w)
	jane := c.http(t, c.certificate(t, pki.Request{User: "jane", Life: time.Hour}))
	ended := make(chan error, 1)
	go func() {
		_, err := rpc.Get(t.Context(), get("wait"))
		ended <- err
	}()
	<-w.inside
	_, err := rpc.Get(t.Context(), get("other"))
	if after, ok := apierr.RetryAfter(err); !errors.Is(err, apierr.ErrTooManyRequests) || !ok || after != time.Second {
		t.Errorf("a call too many: %v, %s", err, after)
	}
	if a := c.doAs(t, jane, "GET", "/apis", ""); a.StatusCode != 429 {
		t.Errorf("a request too many: %d %s", a.StatusCode, a.text)
	}
	if _, err := rpc.Get(metadata.AppendToOutgoingContext(t.Context(), "master", "yes"), get("other")); err != nil {
		t.Errorf("an administrator in a full house: %v", err)
	}
	if _, err := rpc.Create(t.Context(), &wherryv1.CreateRequest{}); err != nil {
		t.Errorf("a write has places of its own: %v", err)
	}
	s, err := rpc.Watch(t.Context(), &wherryv1.WatchRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	if err != nil {
		t.Errorf("a watch takes no place: %v", err)
	}
	w.release <- struct{}{}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := rpc.Get(t.Context(), get("other")); err != nil {
		t.Errorf("the place was not given back: %v", err)
	}
}

// TestTimeLimitOverGRPC: a call without a deadline of its own ends all the same.
func TestTimeLimitOverGRPC(t *testing.T) {
	w := &waits{inside: make(chan struct{}, 1)}
	rpc := flies(t, gateway.NewFlight(gateway.Limits{Time: 100 * time.Millisecond}), w)
	if _, err := rpc.Get(t.Context(), get("wait")); !errors.Is(err, apierr.ErrTimeout) {
		t.Errorf("a call that takes too long: %v", err)
	}
}
