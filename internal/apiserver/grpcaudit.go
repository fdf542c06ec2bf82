package apiserver

import (
	"context"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/anypb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/audit"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// unaudited are the services that only the cluster's own programs call, and
// those that everybody may.
func unaudited(method string) bool {
	for _, service := range []string{"/wherry.v1.Raft/", "/wherry.v1.Nodes/", "/grpc."} {
		if strings.HasPrefix(method, service) {
			return true
		}
	}
	return false
}

// Auditor records gRPC calls in an audit log, as the gateway does for HTTP.
// Calls of Resources are recorded as what they ask of objects; all others, and
// streams, by the path of their method.
type Auditor struct {
	Log   *audit.Log
	Kinds *api.Kinds
	User  func(context.Context) (api.User, error)
}

// Unary is the interceptor of single calls.
func (a Auditor) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if a.Log == nil || unaudited(info.FullMethod) {
		return next(ctx, req)
	}
	call := a.call(ctx, info.FullMethod)
	if r, ok := req.(interface{ GetTarget() *wherryv1.Target }); ok && strings.HasPrefix(info.FullMethod, "/wherry.v1.Resources/") {
		t := target(r.GetTarget())
		call.Target = &t
	}
	// It fails when the call has gone, and then nobody misses it.
	_ = grpc.SetHeader(ctx, metadata.Pairs("audit-id", call.ID))
	e := a.Log.Begin(call)
	if e.Wants(audit.Request) {
		if r, ok := req.(interface{ GetObject() *anypb.Any }); ok {
			a.keep(r.GetObject(), e.Request)
		}
	}
	resp, err := next(ctx, req)
	if r, ok := resp.(interface{ GetObject() *anypb.Any }); ok && err == nil && e.Wants(audit.RequestResponse) {
		a.keep(r.GetObject(), e.Response)
	}
	end(e, err)
	return resp, err
}

// Stream is the interceptor of streams.
func (a Auditor) Stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if a.Log == nil || unaudited(info.FullMethod) {
		return next(srv, s)
	}
	e := a.Log.Begin(a.call(s.Context(), info.FullMethod))
	e.Started(200)
	err := next(srv, s)
	end(e, err)
	return err
}

func (a Auditor) keep(obj *anypb.Any, into func(any)) {
	if o, err := a.Kinds.ObjectOf(obj); err == nil {
		into(o)
	}
}

func (a Auditor) call(ctx context.Context, method string) audit.Call {
	c := audit.Call{
		ID: string(uuid.NewUUID()), URI: method, Path: method, Received: time.Now(),
		Verb: strings.ToLower(method[strings.LastIndexByte(method, '/')+1:]),
	}
	c.User, _ = a.User(ctx) // who is refused is told so by the call itself
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
			c.SourceIPs = []string{host}
		}
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		c.UserAgent = strings.Join(md.Get("user-agent"), " ")
	}
	return c
}

func end(e *audit.Entry, err error) {
	if err != nil {
		st := apierr.StatusOf(err)
		e.Complete(st)
		return
	}
	e.Complete(metav1.Status{Code: 200})
}
