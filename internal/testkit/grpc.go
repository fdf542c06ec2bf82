package testkit

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wherry-project/wherry/internal/apierr"
)

// GRPC serves on the loopback what register puts into a server, with gRPC's own
// limits, our errors and what options add, and connects to it. Both go with the
// test.
func GRPC(t testing.TB, register func(*grpc.Server), options ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	srv := grpc.NewServer(append([]grpc.ServerOption{grpc.ChainUnaryInterceptor(apierr.ServerUnary), grpc.ChainStreamInterceptor(apierr.ServerStream)}, options...)...)
	register(srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(apierr.ClientUnary), grpc.WithStreamInterceptor(apierr.ClientStream))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
