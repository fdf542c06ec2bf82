package apierr

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// ServerUnary makes every error of a unary method a gRPC status, see [ToGRPC].
func ServerUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	return resp, ToGRPC(err)
}

// ServerStream makes every error of a streaming method a gRPC status.
func ServerStream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return ToGRPC(next(srv, s))
}

// ClientUnary makes the error of a unary call the server's own, see [FromGRPC].
func ClientUnary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return FromGRPC(next(ctx, method, req, reply, cc, opts...))
}

// ClientStream makes the errors of a streaming call the server's own.
func ClientStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := next(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, FromGRPC(err)
	}
	return clientStream{s}, nil
}

// clientStream is a stream whose errors are ours.
type clientStream struct{ grpc.ClientStream }

// Header waits for the server's header.
func (s clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, FromGRPC(err)
}

// SendMsg sends one message.
func (s clientStream) SendMsg(m any) error { return FromGRPC(s.ClientStream.SendMsg(m)) }

// RecvMsg receives one message; io.EOF is the end.
func (s clientStream) RecvMsg(m any) error { return FromGRPC(s.ClientStream.RecvMsg(m)) }
