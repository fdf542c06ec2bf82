package probes

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// GRPC checks by the standard health service at host:port, about a service of
// that name; agent is the User-Agent.
func GRPC(address, service, agent string) Check {
	return func(ctx context.Context) (Result, string) {
		conn, err := grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(agent), grpc.WithNoProxy())
		if err != nil {
			return Failure, fmt.Sprintf("error: failed to connect service %q: %v", address, err)
		}
		defer conn.Close()
		answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
		switch status.Code(err) {
		case codes.OK:
		case codes.Unimplemented:
			return Failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message())
		case codes.DeadlineExceeded:
			return Failure, "timeout: health rpc did not complete in time"
		case codes.Unavailable:
			return Failure, fmt.Sprintf("error: failed to connect service %q: %s", address, status.Convert(err).Message())
		default:
			return Failure, fmt.Sprintf("error: health rpc probe failed: %v", err)
		}
		if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			return Failure, fmt.Sprintf("service unhealthy (responded with %q)", answer.GetStatus())
		}
		return Success, "service healthy"
	}
}
