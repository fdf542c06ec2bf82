package dispatch

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// proxyVerb is what a user must be allowed to do to a proxy subresource to send
// a request of a method through it; of an unknown one nothing but everything.
func proxyVerb(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return ""
}

// Connect implements wherryv1.PodsServer. Bytes may be any request, so they are
// for who may make each; who may make some makes HTTP requests.
func (p *Pods) Connect(stream grpc.BidiStreamingServer[wherryv1.ConnectRequest, wherryv1.ConnectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return apierr.BadRequest("the first message must be start")
	}
	ctx := stream.Context()
	u, err := p.s.cfg.Identify(ctx)
	if err != nil {
		return err
	}
	t := api.Target{Version: "v1", Resource: start.GetResource(), Namespace: start.GetNamespace(), Name: start.GetName(), Subresource: "proxy"}
	switch t.Resource {
	case "pods", "services", "nodes":
	default:
		return apierr.BadRequest("resource: %q: must be pods, services or nodes", t.Resource)
	}
	if t.Name == "" || (t.Namespace == "") != (t.Resource == "nodes") {
		return apierr.BadRequest("name must be given, and namespace of all but nodes")
	}
	if port := start.GetPort(); port != "" { // as a rule for one object names it
		t.Name = utilnet.JoinSchemeNamePort("", t.Name, port)
	}
	may := func(method string) error { return p.s.cfg.Authorize(u, t, proxyVerb(method)) }
	any, every := mayProxy(may)
	if every != nil && any != nil {
		return any
	}
	b, err := p.s.Backend(ctx, t.Resource, t.Namespace, start.GetName(), start.GetPort())
	if err != nil {
		return err
	}
	conn, err := p.s.DialBackend(ctx, b)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := stream.Send(&wherryv1.ConnectResponse{}); err != nil {
		return err
	}
	next := func() ([]byte, error) {
		m, err := stream.Recv()
		return m.GetData(), err
	}
	send := func(b []byte) error { return stream.Send(&wherryv1.ConnectResponse{Data: b}) }
	if every != nil {
		r := requests{in: &received{next: next}, out: writerFunc(send), conn: conn, may: may, dial: func(ctx context.Context) (net.Conn, error) { return p.s.DialBackend(ctx, b) }}
		return r.serve(ctx)
	}
	go pour(conn, next) // ends with the stream, which ends when the handler returns
	return carry(conn, send)
}

// mayProxy asks for each method, and gives an error unless some are allowed, and
// one unless all are.
func mayProxy(may func(method string) error) (some, all error) {
	allowed := false
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		err := may(method)
		allowed = allowed || err == nil
		if all == nil {
			all = err
		}
	}
	if !allowed {
		some = all
	}
	return some, all
}
