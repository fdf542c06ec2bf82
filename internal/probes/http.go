package probes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// maxBody is how much of an answer is read.
const maxBody = 10 << 10

// maxRedirects is how many redirects within one host are followed.
const maxRedirects = 10

// HTTP is a request for a path. Certificates are not checked: the program is
// known by its address.
type HTTP struct {
	// Scheme is http or https.
	Scheme, Host string
	Port         int
	// Path may have a query.
	Path string
	// Header are set over the usual ones; Host names the virtual host.
	Header http.Header
	// Agent is the User-Agent unless Header has one.
	Agent string
}

// URL is where the request goes.
func (h HTTP) URL() string {
	u, err := url.Parse(h.Path)
	if err != nil { // a path with odd bytes is sent as it is
		u = &url.URL{Path: h.Path}
	}
	u.Scheme, u.Host = h.Scheme, net.JoinHostPort(h.Host, strconv.Itoa(h.Port))
	return u.String()
}

// Get makes the request and gives the status and the beginning of the body.
// Redirects to another host are not followed: they are the answer.
func (h HTTP) Get(ctx context.Context) (status int, body string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL(), nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Accept", "*/*")
	r.Header.Set("User-Agent", h.Agent)
	for name, values := range h.Header {
		if http.CanonicalHeaderKey(name) == "Host" && len(values) > 0 {
			r.Host = values[0]
			continue
		}
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as Kubernetes does: the address is the identity
	}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport, CheckRedirect: sameHost}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return 0, "", fmt.Errorf("read the answer of %s: %w", h.URL(), err)
	}
	// A program that gives up when its client does can answer while the
	// connection is being closed: too late.
	if err := ctx.Err(); err != nil {
		return 0, "", fmt.Errorf("GET %s: %w", h.URL(), err)
	}
	return answer.StatusCode, string(b), nil
}

// sameHost follows redirects within the first request's host.
func sameHost(r *http.Request, via []*http.Request) error {
	if r.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// Check checks by the request: 200 to 399 is success, a redirect to another
// host a success with a warning.
func (h HTTP) Check() Check {
	return func(ctx context.Context) (Result, string) {
		status, body, err := h.Get(ctx)
		switch {
		case err != nil:
			return Failure, err.Error()
		case status >= http.StatusOK && status < http.StatusMultipleChoices:
			return Success, body
		case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
			return Warning, "Probe terminated redirects, Response body: " + body
		}
		return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", status)
	}
}
