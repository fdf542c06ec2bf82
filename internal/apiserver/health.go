package apiserver

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	// healthEvery is how often a watched health is looked at.
	healthEvery = 2 * time.Second
	// healthAsks bounds the checks that run at once: they need no certificate.
	healthAsks = 16
)

// Health is gRPC's health service over the checks of /readyz and /livez: the
// service "liveness" says whether this member works, every other name whether
// it can serve, which without a majority of the members it cannot.
type Health struct {
	healthv1.UnimplementedHealthServer
	ready, live func(context.Context) error
	asks        chan struct{}
	stopped     chan struct{}
	once        sync.Once
}

// NewHealth makes the service of checks that are nil when all is well.
func NewHealth(ready, live func(context.Context) error) *Health {
	return &Health{ready: ready, live: live, asks: make(chan struct{}, healthAsks), stopped: make(chan struct{})}
}

// Shutdown lets the service say that this member does not serve any more.
func (h *Health) Shutdown() { h.once.Do(func() { close(h.stopped) }) }

func (h *Health) status(ctx context.Context, service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
	select {
	case <-h.stopped:
		return healthv1.HealthCheckResponse_NOT_SERVING, nil
	case h.asks <- struct{}{}:
		defer func() { <-h.asks }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	check := h.ready
	if service == "liveness" {
		check = h.live
	}
	if err := check(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return 0, ctx.Err()
		}
		return healthv1.HealthCheckResponse_NOT_SERVING, nil
	}
	return healthv1.HealthCheckResponse_SERVING, nil
}

// Check implements healthv1.HealthServer.
func (h *Health) Check(ctx context.Context, r *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	st, err := h.status(ctx, r.GetService())
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &healthv1.HealthCheckResponse{Status: st}, nil
}

// Watch implements healthv1.HealthServer.
func (h *Health) Watch(r *healthv1.HealthCheckRequest, out grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	ctx := out.Context()
	last := healthv1.HealthCheckResponse_UNKNOWN
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	stopped := h.stopped
	for {
		st, err := h.status(ctx, r.GetService())
		if err != nil {
			return status.FromContextError(err).Err()
		}
		if st != last {
			if err := out.Send(&healthv1.HealthCheckResponse{Status: st}); err != nil {
				return err
			}
			last = st
		}
		select {
		case <-tick.C:
		case <-stopped:
			stopped = nil
		case <-ctx.Done():
			return status.Error(codes.Canceled, "the client has gone")
		}
	}
}

// AnswerInTime lets a method of the API end a little before the client's own
// deadline, so that the client hears why it was not served and not only that
// time is over. It is a grpc.UnaryServerInterceptor.
func AnswerInTime(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	end, ok := ctx.Deadline()
	if !ok || !strings.HasPrefix(info.FullMethod, "/wherry.v1.Resources/") {
		return next(ctx, req)
	}
	left := time.Until(end)
	ctx, cancel := context.WithDeadline(ctx, end.Add(-min(left/10, time.Second/2)))
	defer cancel()
	return next(ctx, req)
}
