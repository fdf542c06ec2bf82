package authn

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Call names the user of a gRPC call. The metadata are those of the HTTP
// headers: authorization, and impersonate-user and its like.
func (a *Authenticator) Call(ctx context.Context) (api.User, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	authorization := ""
	if v := md.Get("authorization"); len(v) > 0 {
		authorization = v[0]
	}
	u, err := a.User(ctx, connection(ctx), authorization)
	if err != nil {
		return api.User{}, err
	}
	header := http.Header{}
	for key, values := range md {
		if strings.HasPrefix(key, "impersonate-") {
			header[http.CanonicalHeaderKey(key)] = values
		}
	}
	return a.impersonate(u, header)
}

// connection is the TLS connection that a call came over.
func connection(ctx context.Context) *tls.ConnectionState {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return &info.State
		}
	}
	return nil
}

// somebody refuses calls of nobody, but for the services and methods in open.
func (a *Authenticator) somebody(ctx context.Context, method string, open []string) error {
	for _, o := range open {
		if method == o || strings.HasSuffix(o, "/") && strings.HasPrefix(method, o) {
			return nil
		}
	}
	u, err := a.Call(ctx)
	if err == nil && u.Has(Unauthenticated) {
		err = apierr.Unauthorized("Unauthorized: " + method + " needs a client certificate or a token")
	}
	return err
}

// ServerUnary refuses calls of nobody, but for those in open: whole methods, or
// services, which end in a slash.
func (a *Authenticator) ServerUnary(open ...string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := a.somebody(ctx, info.FullMethod, open); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// ServerStream is ServerUnary for streams. They end when the key of the member
// or node at the other end is believed no more, see Hold.
func (a *Authenticator) ServerStream(open ...string) grpc.StreamServerInterceptor {
	return func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, release := a.Hold(s.Context(), connection(s.Context()))
		defer release()
		if err := a.somebody(ctx, info.FullMethod, open); err != nil {
			return err
		}
		err := next(srv, heldStream{s, ctx})
		if why := Revoked(ctx); why != nil {
			return why
		}
		return err
	}
}
