package apiserver

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
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

// Auditor records gRPC calls in an audit log, as the gateway does for HTTP, so
// that one policy means the same over both. Calls of Resources and Pods are
// recorded as what they ask of objects; all others by the path of their method.
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
		call.Target = a.target(r.GetTarget())
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

// Stream is the interceptor of streams. What a stream is for stands in its first
// message: it is recorded when that has come.
func (a Auditor) Stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if a.Log == nil || unaudited(info.FullMethod) {
		return next(srv, s)
	}
	r := &recordedStream{ServerStream: s, a: a, call: a.call(s.Context(), info.FullMethod)}
	_ = s.SetHeader(metadata.Pairs("audit-id", r.call.ID)) // as for single calls
	err := next(srv, r)
	r.ended(err)
	return err
}

// recordedStream records a stream.
type recordedStream struct {
	grpc.ServerStream
	a    Auditor
	call audit.Call

	mu           sync.Mutex // guards the entry: messages go both ways at a time
	begun, going bool
	over         bool
	entry        *audit.Entry
}

// RecvMsg implements grpc.ServerStream.
func (r *recordedStream) RecvMsg(m any) error {
	err := r.ServerStream.RecvMsg(m)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.begin(m)
	}
	return err
}

// SendMsg implements grpc.ServerStream.
func (r *recordedStream) SendMsg(m any) error {
	r.mu.Lock()
	if !r.going && !r.over {
		r.begin(nil)
		r.going = true
		r.entry.Started(200)
	}
	r.mu.Unlock()
	return r.ServerStream.SendMsg(m)
}

// begin records what the stream is for, once: by its first message, or, where
// it ended before that, by its method. The caller holds the lock.
func (r *recordedStream) begin(first any) {
	if r.begun || r.over {
		return
	}
	r.begun = true
	if t, verb := r.a.asks(r.call.Path, first); t != nil {
		r.call.Target, r.call.Verb = t, verb
	}
	r.entry = r.a.Log.Begin(r.call)
}

func (r *recordedStream) ended(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(nil)
	r.over = true
	end(r.entry, err)
}

// asks gives what a stream asks of which object, as its first message says;
// nil if it is of no object. Whoever was refused before has said nothing, and
// only the kind of thing is known.
func (a Auditor) asks(method string, first any) (*api.Target, string) {
	pod := func(sub, namespace, name, verb string) (*api.Target, string) {
		return &api.Target{Version: "v1", Resource: "pods", Subresource: sub, Namespace: namespace, Name: name}, verb
	}
	switch m := first.(type) {
	case *wherryv1.WatchRequest:
		return a.target(m.GetTarget()), "watch"
	case *wherryv1.LogsRequest:
		return pod("log", m.GetNamespace(), m.GetPod(), "get")
	case *wherryv1.ExecRequest:
		if start := m.GetStart(); start != nil && len(start.GetCommand()) == 0 {
			return pod("attach", start.GetNamespace(), start.GetPod(), "create")
		}
		return pod("exec", m.GetStart().GetNamespace(), m.GetStart().GetPod(), "create")
	case *wherryv1.PortForwardRequest:
		return pod("portforward", m.GetStart().GetNamespace(), m.GetStart().GetPod(), "create")
	case *wherryv1.ConnectRequest:
		start := m.GetStart()
		name := start.GetName()
		if start.GetPort() != "" { // as in a path
			name += ":" + start.GetPort()
		}
		return &api.Target{Version: "v1", Resource: start.GetResource(), Subresource: "proxy", Namespace: start.GetNamespace(), Name: name}, "create"
	}
	switch method {
	case wherryv1.Pods_Logs_FullMethodName:
		return pod("log", "", "", "get")
	case wherryv1.Pods_Exec_FullMethodName:
		return pod("exec", "", "", "create")
	case wherryv1.Pods_PortForward_FullMethodName:
		return pod("portforward", "", "", "create")
	case wherryv1.Pods_Connect_FullMethodName:
		return pod("proxy", "", "", "create")
	}
	return nil, ""
}

// target is what a call names, with the version that an empty one stands for.
func (a Auditor) target(named *wherryv1.Target) *api.Target {
	t := target(named)
	if t.Version == "" {
		if k, ok := a.Kinds.Resource(t.Group, "", t.Resource); ok {
			t.Version = k.Version
		}
	}
	return &t
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
	if err == nil {
		e.Decided(http.StatusOK)
		e.Complete(metav1.Status{Code: http.StatusOK})
		return
	}
	st := apierr.StatusOf(err)
	e.Response(&st)
	e.Decided(int(st.Code))
	e.Complete(st)
}
