// Package gateway serves the Kubernetes API over HTTPS: it translates paths,
// parameters and bodies into calls of api.Resources and api.PodStreams, and
// their results into what Kubernetes clients expect. It decides nothing about
// objects; that is the API server's, so that gRPC means the same.
package gateway

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/version"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/audit"
	"github.com/wherry-project/wherry/internal/discovery"
	"github.com/wherry-project/wherry/internal/render"
)

// Config are the parts that a Gateway stands in front of.
type Config struct {
	API api.Resources
	// User names the user of a request (authn.Authenticator.Request).
	User func(r *http.Request) (api.User, error)
	// Hold gives a context for a request that stays open, which ends when the
	// client's certificate is believed no more
	// (authn.Authenticator.Hold); nil holds nothing.
	Hold func(ctx context.Context, s *tls.ConnectionState) (held context.Context, release func())
	// Authorize answers whether u may do verb to t, for streams; objects are
	// authorized by API. Nil lets nobody but system:masters.
	Authorize func(u api.User, t api.Target, verb string) error
	// AuthorizePath answers for paths that are no resources. Nil lets
	// everybody see health and version, users see discovery and OpenAPI, and
	// system:masters and system:monitoring the metrics.
	AuthorizePath func(u api.User, verb, path string) error
	// Streams are logs, exec, attach and port-forward; nil answers 503.
	Streams api.PodStreams
	// Backends are what proxy subresources lead to; nil answers 503.
	Backends api.Backends
	// OpenAPI gives the schema documents; nil answers 404.
	OpenAPI OpenAPI
	// Audit keeps a record of every request; nil keeps none.
	Audit *audit.Log
	// OpenID gives what others check tokens by; nil answers 404.
	OpenID OpenID
	// Live and Ready are the checks of /livez (and /healthz) and /readyz.
	Live, Ready []Check
	// Registry is served on /metrics and gets the gateway's own metrics.
	Registry *prometheus.Registry
	Version  version.Info
	Log      *slog.Logger
	// Now is the clock of ages in tables; nil is time.Now.
	Now func() time.Time
	// Limits that are 0 are Kubernetes' own.
	Limits Limits
	// Flight is what other doors to the API share; nil makes one of the Limits.
	Flight *Flight
}

// Gateway is the HTTP face of the API. It may be used by many goroutines.
type Gateway struct {
	cfg     Config
	docs    *discovery.Documents
	render  *render.Renderer
	flight  *Flight
	metrics *metrics
	serveMx http.Handler
	zippers sync.Pool
	// long counts long-running requests: the HTTP server forgets those that
	// took over their connection.
	long sync.WaitGroup
}

// New makes a gateway.
func New(cfg Config) (*Gateway, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Limits = cfg.Limits.orDefault()
	if cfg.Flight == nil {
		cfg.Flight = NewFlight(cfg.Limits)
	}
	m, err := newMetrics(cfg.Registry)
	if err != nil {
		return nil, fmt.Errorf("register the gateway's metrics: %w", err)
	}
	return &Gateway{
		cfg: cfg, docs: discovery.New(cfg.API.Kinds()), render: render.New(cfg.API.Codec(), cfg.Now),
		flight: cfg.Flight, metrics: m, serveMx: metricsHandler(cfg.Registry),
		zippers: sync.Pool{New: func() any { return newZipper() }},
	}, nil
}

func newZipper() *gzip.Writer {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil { // the level is a constant
		panic(err)
	}
	return z
}

// call is one request on its way through the gateway.
type call struct {
	g    *Gateway
	w    *recorder
	r    *http.Request
	user api.User
	path path
	warn []string
	// entry is the audit log's, and refused the error that was answered.
	entry   *audit.Entry
	refused *metav1.Status
	began   time.Time
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	c := &call{g: g, w: &recorder{ResponseWriter: w}, r: r, path: parsePath(r.Method, r.URL), began: began}
	w.Header().Set("Audit-Id", auditID(r))
	w.Header().Set("Cache-Control", "no-cache, private")
	defer func() {
		g.metrics.observe(c, time.Since(began))
	}()
	defer c.recorded()
	defer func() {
		if p := recover(); p != nil {
			g.panicked(c, p)
		}
	}()
	ctx, cancel, err := c.deadline()
	if err != nil {
		c.fail(err)
		return
	}
	defer cancel()
	if c.path.longRunning() {
		g.long.Add(1)
		defer g.long.Done()
	}
	c.r = r.WithContext(ctx)
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// serve authenticates and hands the request to its handler.
func (c *call) serve() error {
	var err error
	c.user, err = c.g.cfg.User(c.r)
	c.record(c.began)
	if err != nil {
		return err
	}
	leave, err := c.enter()
	if err != nil {
		return err
	}
	defer leave()
	if c.path.resource {
		return c.serveResource()
	}
	return c.servePath()
}

// serveResource hands a request for objects to the handler of its verb.
func (c *call) serveResource() error {
	if c.path.stream() {
		return c.serveStream()
	}
	if c.path.proxied() {
		return c.serveProxy()
	}
	err := c.handle()
	switch apierr.KindOf(err) {
	case apierr.ErrBadRequest, apierr.ErrInvalid, apierr.ErrNotAcceptable, apierr.ErrUnsupportedMediaType, apierr.ErrTooLarge:
		if first := c.allowed(); first != nil {
			return first // as the API says, which has perhaps not been asked
		}
	}
	return err
}

// allowed says what the API says before it looks at options and bodies: whether
// the user may, and whether the resource has the verb.
func (c *call) allowed() error {
	t, verb := c.path.Target, c.path.verb
	k, err := c.kind()
	if err != nil || verb == "" {
		return err
	}
	if err := c.g.cfg.Authorize(c.user, t, verb); err != nil {
		return err
	}
	verbs := k.Verbs
	if sub, ok := k.Subresource(t.Subresource); ok {
		verbs = sub.Verbs
	}
	if !slices.Contains(verbs, verb) {
		return errMethod()
	}
	return nil
}

// handle hands a request to the handler of its verb.
func (c *call) handle() error {
	switch c.path.verb {
	case "get":
		return c.get()
	case "list":
		return c.list()
	case "watch":
		return c.watch()
	case "create":
		return c.create()
	case "update":
		return c.update()
	case "patch":
		return c.patch()
	case "delete":
		return c.delete()
	case "deletecollection":
		return c.deleteCollection()
	}
	return errMethod()
}

func errMethod() error {
	return apierr.New(apierr.ErrMethodNotAllowed, "the server does not allow this method on the requested resource")
}

// deadline bounds a request in time: a long-running one ends when the server
// stops, all others after the time limit or what the client asks for.
func (c *call) deadline() (context.Context, context.CancelFunc, error) {
	ctx := c.r.Context()
	if c.path.longRunning() {
		ctx, cancel := c.hold(ctx)
		if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
			release := context.AfterFunc(stop, cancel)
			return ctx, func() { release(); cancel() }, c.unlimit()
		}
		return ctx, cancel, c.unlimit()
	}
	limit := c.g.cfg.Limits.Time
	if asked := c.r.URL.Query().Get("timeout"); asked != "" {
		d, err := time.ParseDuration(asked)
		if err != nil {
			return nil, nil, apierr.BadRequest("invalid timeout specified in the request URL - %w", err)
		}
		if d > 0 { // a little less, so that the client hears why
			limit = min(limit, d-min(d/10, time.Second))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, cancel, nil
}

// hold gives the context of a long-running request.
func (c *call) hold(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if c.g.cfg.Hold == nil {
		return ctx, cancel
	}
	ctx, release := c.g.cfg.Hold(ctx, c.r.TLS)
	return ctx, func() { release(); cancel() }
}

// unlimit takes the server's time limits from the connection, for as long as
// this request goes on.
func (c *call) unlimit() error {
	rc := http.NewResponseController(c.w)
	for _, set := range []func(time.Time) error{rc.SetReadDeadline, rc.SetWriteDeadline} {
		if err := set(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	return nil
}

// panicked answers a request whose handler broke.
func (g *Gateway) panicked(c *call, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	c.entry.Panicked("the request could not be handled")
	g.cfg.Log.Error("request broke its handler", "method", c.r.Method, "path", c.r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if c.w.status != 0 {
		panic(http.ErrAbortHandler) // the answer has begun: cut it off
	}
	c.fail(apierr.Internal(errors.New("the request could not be handled")))
}

// auditID names the request in logs, by the client's own name for it if there
// is one.
func auditID(r *http.Request) string {
	if id := r.Header.Get("Audit-Id"); id != "" && len(id) <= 64 && printable(id) {
		return id
	}
	return string(uuid.NewUUID())
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return true
}
