package e2e

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// cutter is a transport whose watches can be cut and held back.
type cutter struct {
	http.RoundTripper
	expired, lists, initial atomic.Int32 // answers of 410; lists; watches that begin with what is there

	mu     sync.Mutex
	gate   chan struct{} // closed or nil when watches may begin
	bodies map[*cutBody]bool
}

// cutBody is the stream of a watch that can be ended as if the server had.
type cutBody struct {
	io.ReadCloser
	cut  atomic.Bool
	gone func(*cutBody)
}

// Close implements io.Closer.
func (b *cutBody) Close() error {
	b.gone(b)
	return b.ReadCloser.Close()
}

// Read implements io.Reader.
func (b *cutBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.cut.Load() {
		err = io.EOF
	}
	return n, err
}

// RoundTrip implements http.RoundTripper.
func (c *cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	if q.Get("watch") == "" {
		if strings.HasSuffix(r.URL.Path, "/configmaps") && r.Method == http.MethodGet {
			c.lists.Add(1)
		}
		return c.RoundTripper.RoundTrip(r)
	}
	if q.Get("sendInitialEvents") == "true" {
		c.initial.Add(1)
	}
	c.mu.Lock()
	gate := c.gate
	c.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	resp, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusGone {
		c.expired.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &cutBody{ReadCloser: resp.Body, gone: c.forget}
	if c.gate != nil { // it began while all were cut
		b.cut.Store(true)
		_ = resp.Body.Close()
	} else {
		c.bodies[b] = true
	}
	resp.Body = b
	return resp, nil
}

func (c *cutter) forget(b *cutBody) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.bodies, b)
}

// watching reports whether a watch goes on.
func (c *cutter) watching() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.bodies) > 0
}

// cut ends all watches and holds back new ones, until resume.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate = make(chan struct{})
	for b := range c.bodies {
		b.cut.Store(true)
		_ = b.ReadCloser.Close() // it may have ended
	}
	clear(c.bodies)
}

func (c *cutter) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.gate)
	c.gate = nil
}
