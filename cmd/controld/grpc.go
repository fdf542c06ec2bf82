package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/descriptors"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// request is what a certificate should be for.
type request struct {
	names []string
	addrs []netip.Addr
}

// open are the methods and services that need no client certificate.
func openMethods() []string {
	return []string{
		wherryv1.Cluster_Join_FullMethodName, "/grpc.health.v1.Health/",
		"/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/",
	}
}

// maxStreams bounds what one connection has open at a time, as over HTTPS.
const maxStreams = 1000

// grpcServer makes the server of port 7443 with all its services.
func (d *controld) grpcServer() *grpc.Server {
	auditor := apiserver.Auditor{Log: d.audit, Kinds: d.api.Kinds(), User: d.users.Call}
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(d.keys.ServerConfig())),
		grpc.ChainUnaryInterceptor(apierr.ServerUnary, auditor.Unary, apiserver.AnswerInTime, d.users.ServerUnary(openMethods()...), d.flight.Unary(d.users.Call)),
		grpc.ChainStreamInterceptor(apierr.ServerStream, auditor.Stream, d.users.ServerStream(openMethods()...)),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	d.raft.Register(s)
	wherryv1.RegisterResourcesServer(s, apiserver.NewService(d.api, d.users.Call))
	wherryv1.RegisterPodsServer(s, d.nodes.Pods())
	wherryv1.RegisterNodesServer(s, d.nodes)
	wherryv1.RegisterImagesServer(s, d.nodes.Images())
	wherryv1.RegisterClusterServer(s, d.cluster)
	d.health = apiserver.NewHealth(d.current, d.alive)
	healthv1.RegisterHealthServer(s, d.health)
	descriptors.Register(s)
	return s
}

// serveGRPC serves until ctx ends. Sessions and streams have no end of their
// own: after a moment for the rest they are cut.
func (d *controld) serveGRPC(ctx context.Context, ready func()) error {
	served := make(chan error, 1)
	go func() { served <- d.grpc.Serve(d.rpc) }()
	ready()
	select {
	case err := <-served:
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}
	cut := time.AfterFunc(200*time.Millisecond, d.grpc.Stop)
	defer cut.Stop()
	d.grpc.GracefulStop()
	return <-served
}

// dialer connects to other members.
type dialer struct{ tls *tls.Config }

// connect makes a connection without waiting for it.
func (d dialer) connect(address string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, append(more,
		grpc.WithTransportCredentials(credentials.NewTLS(d.tls.Clone())),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDisableServiceConfig(),
	)...)
}

// member is the dialer of the Raft.
func (d dialer) member(_ context.Context, address string) (grpc.ClientConnInterface, error) {
	return d.connect(address, grpc.WithContextDialer(forgetful))
}

// forgetful connects so that closing throws away what was not delivered yet: a
// write that was given up must not reach the leader when the network is whole
// again.
func forgetful(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetLinger(0)
	}
	return conn, err
}

// ask asks a member whether it serves.
func (d dialer) ask(ctx context.Context, address string) error {
	conn, err := d.connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err == nil && resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		err = apierr.Unavailable("%s: %s", address, resp.GetStatus())
	}
	return err
}

// askEntry asks the members that were known when this one joined.
func (d *controld) askEntry(ctx context.Context) error {
	all := errors.New("no member answers")
	for _, address := range d.others() {
		err := d.askEntryAt(ctx, address)
		if err == nil {
			return nil
		}
		all = errors.Join(all, fmt.Errorf("enter at %s: %w", address, err))
	}
	return all
}

func (d *controld) askEntryAt(ctx context.Context, address string) error {
	conn, err := dialer{d.keys.ClientConfig(nil)}.connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r := &wherryv1.EnterRequest{Address: d.address}
	if d.member.Rebuilding != "" {
		r.MemberId = d.member.ID
	}
	_, err = wherryv1.NewClusterClient(conn).Enter(ctx, r)
	return apierr.FromGRPC(err)
}

// renewAt has this member's certificate renewed at another one.
func (d *controld) renewAt(ctx context.Context, address string, csr []byte) ([]byte, error) {
	conn, err := dialer{d.keys.ClientConfig(nil)}.connect(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := wherryv1.NewClusterClient(conn).Renew(ctx, &wherryv1.RenewRequest{Csr: csr})
	return r.GetCertificate(), apierr.FromGRPC(err)
}
