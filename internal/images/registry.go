package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	gcrname "github.com/google/go-containerregistry/pkg/name"
	gcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/wherry-project/wherry/internal/apierr"
)

// reach is how registries are reached: a transport for each that has settings
// of its own, under its host[:port], and one for all others under "".
type reach struct {
	transports map[string]*http.Transport
	plain      map[string]bool // may be spoken to without TLS
}

func newReach(cfg Config) (*reach, error) {
	r := &reach{transports: map[string]*http.Transport{"": newTransport(nil)}, plain: map[string]bool{}}
	for host, reg := range cfg.Registries {
		conf := &tls.Config{InsecureSkipVerify: reg.SkipVerify}
		if len(reg.CA) > 0 {
			pool, err := x509.SystemCertPool()
			if err != nil {
				pool = x509.NewCertPool()
			}
			if !pool.AppendCertsFromPEM(reg.CA) {
				return nil, fmt.Errorf("registry %s: ca holds no PEM certificate", host)
			}
			conf.RootCAs = pool
		}
		r.transports[host] = newTransport(conf)
		r.plain[host] = reg.PlainHTTP
	}
	return r, nil
}

func newTransport(conf *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
	}
}

func (r *reach) close() {
	for _, t := range r.transports {
		t.CloseIdleConnections()
	}
}

// tripper sends requests to registry host, and to wherever it redirects, and
// refuses to send one in the clear unless that was allowed: the library would
// fall back to HTTP for any private address.
type tripper struct {
	base  http.RoundTripper
	plain map[string]bool
}

func (t tripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !t.plain[req.URL.Host] && !isLoopback(req.URL.Hostname()) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("plain HTTP is not allowed for registry %s; its setting plainHTTP allows it", req.URL.Host)
	}
	return t.base.RoundTrip(req)
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && a.IsLoopback())
}

// repository is a source: one repository under one login.
type repository struct {
	name   gcrname.Repository
	puller *remote.Puller
}

func (r *reach) repository(name Reference, auth Auth, cfg Config) (*repository, error) {
	var opts []gcrname.Option
	if r.plain[name.Registry] {
		opts = append(opts, gcrname.Insecure)
	}
	repo, err := gcrname.NewRepository(name.Name(), opts...)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", ErrInvalidName, name, err)
	}
	base := r.transports[name.Registry]
	if base == nil {
		base = r.transports[""]
	}
	puller, err := remote.NewPuller(
		remote.WithTransport(tripper{base, r.plain}),
		remote.WithAuth(authn.FromConfig(authn.AuthConfig{
			Username: auth.Username, Password: auth.Password,
			IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
		})),
		remote.WithPlatform(gcr.Platform{OS: cfg.OS, Architecture: cfg.Arch}),
		remote.WithJobs(cfg.Parallel),
		remote.WithUserAgent("wherry"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
	)
	if err != nil {
		return nil, err
	}
	return &repository{name: repo, puller: puller}, nil
}

// resolve asks what name means now: the image for our platform, and the digest
// of what was named, which may be an index of several.
func (r *repository) resolve(ctx context.Context, name Reference, cfg Config) (*bundle, string, error) {
	var ref gcrname.Reference = r.name.Tag(name.Tag)
	if name.Digest != "" {
		ref = r.name.Digest(name.Digest)
	}
	desc, err := r.puller.Get(ctx, ref)
	if err != nil {
		return nil, "", err
	}
	img, err := desc.Image()
	if err != nil {
		return nil, "", err
	}
	manifestRaw, err := img.RawManifest()
	if err != nil {
		return nil, "", err
	}
	parsed, err := img.Manifest()
	if err != nil {
		return nil, "", err
	}
	if parsed.Config.Size > maxDocument {
		return nil, "", fmt.Errorf("config has %d bytes, %d is the most", parsed.Config.Size, maxDocument)
	}
	configRaw, err := img.RawConfigFile()
	if err != nil {
		return nil, "", err
	}
	b, err := newBundle(manifestRaw, configRaw, cfg.OS, cfg.Arch)
	return b, desc.Digest.String(), err
}

// blob opens a blob of the repository.
func (r *repository) blob(ctx context.Context, d descriptor) (io.ReadCloser, error) {
	l, err := r.puller.Layer(ctx, r.name.Digest(d.Digest))
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}

// again reports whether the registry may do better next time: not if it has
// answered, and clearly.
func (r *repository) again(err error) bool {
	var said *transport.Error
	return !errors.As(err, &said) || said.Temporary()
}

// explain gives err, of pulling name, its kind. The registry's own words stay.
func explain(name Reference, err error) error {
	var said *transport.Error
	var net net.Error
	kind := apierr.ErrInternal
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		kind = apierr.ErrTimeout
	case errors.As(err, &said):
		kind = kindOf(said.StatusCode)
	case errors.As(err, &net):
		kind = apierr.ErrUnavailable
	}
	return apierr.New(kind, "pull %s: %w", name, err)
}

func kindOf(status int) apierr.Kind {
	switch {
	case status == http.StatusNotFound:
		return apierr.ErrNotFound
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return apierr.ErrUnauthorized
	case status == http.StatusTooManyRequests:
		return apierr.ErrTooManyRequests
	case status >= 500:
		return apierr.ErrUnavailable
	}
	return apierr.ErrBadRequest
}
