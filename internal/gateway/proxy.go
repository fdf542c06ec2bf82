package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/upgrade"
)

const (
	// maxPage bounds the pages whose links are rewritten, packed and unpacked;
	// longer ones pass as they are.
	maxPage, maxUnpacked = 2 << 20, 8 << 20
	// flushProxied is how soon a client sees what a backend has written.
	flushProxied = 100 * time.Millisecond
)

// serveProxy answers for the proxy subresource of pods, services and nodes: the
// request goes on to the backend as it came.
func (c *call) serveProxy() error {
	t := c.path.Target
	if (t.Resource == "nodes") != (t.Namespace == "") {
		return errNotServed()
	}
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(t.Name)
	if !ok {
		return apierr.BadRequest("invalid %s request %q", strings.TrimSuffix(t.Resource, "s"), t.Name)
	}
	if err := c.mayStream(c.path.verb); err != nil {
		return err
	}
	if c.g.cfg.Backends == nil {
		return apierr.Unavailable("this server has no connection to nodes, so it cannot serve %s/proxy", t.Resource)
	}
	b, err := c.g.cfg.Backends.Backend(c.r.Context(), t.Resource, t.Namespace, name, port)
	if err != nil {
		return err
	}
	at := &url.URL{Scheme: scheme, Host: b.Address, Path: c.path.rest, RawPath: c.path.rawRest, RawQuery: c.r.URL.RawQuery}
	if b.Noded || at.Scheme == "" {
		at.Scheme = "http" // to noded the session is safe enough
	}
	transport := c.transport(b)
	defer transport.CloseIdleConnections()
	switch {
	case upgrade.Requested(c.r):
		return c.proxyUpgrade(at, transport)
	case c.path.rest == "" && (c.r.Method == http.MethodGet || c.r.Method == http.MethodHead):
		to := c.r.URL.EscapedPath() + "/"
		if q := c.r.URL.RawQuery; q != "" {
			to += "?" + q
		}
		c.w.Header().Set("Location", to)
		c.w.WriteHeader(http.StatusMovedPermanently)
		return nil
	}
	c.proxy(at, transport)
	return nil
}

// transport connects to one backend, whatever address is asked for. The
// connections end with the request.
func (c *call) transport(b api.Backend) *http.Transport {
	ctx := c.r.Context()
	return &http.Transport{
		DialContext: func(dial context.Context, _, _ string) (net.Conn, error) {
			conn, err := c.g.cfg.Backends.DialBackend(dial, b)
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() }) // whoever uses it finds out
			return conn, nil
		},
		// Pods have certificates of their own making, if any; as in Kubernetes
		// nobody vouches for them.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 1 << 20,
	}
}

// proxy passes an ordinary request on.
func (c *call) proxy(at *url.URL, transport http.RoundTripper) {
	rewrite := &proxy.Transport{
		Scheme: c.r.URL.Scheme, Host: c.r.URL.Host, PathPrepend: strings.TrimSuffix(c.r.URL.Path, c.path.rest),
		RoundTripper: shortPages{transport},
	}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = at
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			if host, _, err := net.SplitHostPort(r.In.RemoteAddr); err == nil {
				r.Out.Header.Set("X-Forwarded-For", strings.Join(append(r.In.Header["X-Forwarded-For"], host), ", "))
			}
			dropCredentials(r.Out.Header)
		},
		Transport: rewrite, FlushInterval: flushProxied, ErrorLog: log.New(logWriter{c.g.cfg.Log}, "", 0),
		ModifyResponse: func(r *http.Response) error {
			longPage(r.Header)
			for name := range r.Header { // the backend does not speak for this origin
				if strings.HasPrefix(name, "Access-Control-Allow-") {
					r.Header.Del(name)
				}
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { c.fail(unreached(err)) },
	}
	p.ServeHTTP(c.w, c.r)
}

// dropCredentials takes from a request what shows who sends it: the user has
// been authorized, and a backend could use it as its own.
func dropCredentials(h http.Header) {
	h.Del("Authorization")
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") {
			h.Del(name)
		}
	}
}

// unreached is what a client hears when a backend could not be reached.
func unreached(err error) error {
	if apierr.KindOf(err) != apierr.ErrInternal {
		return err
	}
	return apierr.Unavailable("error trying to reach service: %w", err)
}

// proxyUpgrade passes a request on that asks for another protocol, and then
// the bytes both ways.
func (c *call) proxyUpgrade(at *url.URL, transport *http.Transport) error {
	var failed error
	if at.Path == "" {
		at.Path = "/"
	}
	h := proxy.NewUpgradeAwareHandler(at, transport, false, true, responder(func(err error) { failed = unreached(err) }))
	r := c.r.Clone(c.r.Context())
	dropCredentials(r.Header)
	h.ServeHTTP(&endsWith{recorder: c.w, ctx: c.r.Context()}, r)
	return c.upgraded(failed)
}

// responder takes the errors of a proxy.
type responder func(error)

// Error implements proxy.ErrorResponder.
func (f responder) Error(_ http.ResponseWriter, _ *http.Request, err error) { f(err) }

// shortPages passes pages on for rewriting that are short enough, and hides
// the longer ones from it.
type shortPages struct{ next http.RoundTripper }

// pageType is where the type of a long page stands meanwhile.
const pageType = "X-Wherry-Page-Type"

// RoundTrip implements http.RoundTripper.
func (s shortPages) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Header.Del(pageType)
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(kind) != "text/html" || r.Method == http.MethodHead {
		return resp, nil
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	resp.Body = joined{io.MultiReader(bytes.NewReader(start), resp.Body), resp.Body}
	if len(start) > maxPage || !unpacks(resp.Header.Get("Content-Encoding"), start) {
		resp.Header.Set(pageType, resp.Header.Get("Content-Type"))
		resp.Header.Del("Content-Type")
	}
	return resp, nil
}

// unpacks reports whether a page can be unpacked and stays short.
func unpacks(encoding string, page []byte) bool {
	switch encoding {
	case "":
		return true
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(page))
		if err != nil {
			return false
		}
		n, err := io.Copy(io.Discard, io.LimitReader(z, maxUnpacked+1))
		return err == nil && n <= maxUnpacked
	}
	return false
}

// longPage gives a long page its type again.
func longPage(h http.Header) {
	if kind := h.Get(pageType); kind != "" {
		h.Set("Content-Type", kind)
		h.Del(pageType)
	}
}

// joined reads one thing and closes another.
type joined struct {
	io.Reader
	io.Closer
}

// endsWith gives a connection away that ends with the request.
type endsWith struct {
	*recorder
	ctx context.Context
}

// Hijack implements http.Hijacker.
func (w *endsWith) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := w.recorder.Hijack()
	if err == nil {
		context.AfterFunc(w.ctx, func() { _ = conn.Close() }) // whoever uses it finds out
	}
	return conn, buf, err
}
