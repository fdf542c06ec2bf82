package testimage

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is a registry in memory: an http.Handler for whatever listener the
// test has, filled without one.
type Registry struct {
	next http.Handler

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request, next http.Handler)
	user     string
	password string
	requests []string
}

// NewRegistry returns an empty registry that lets everybody in.
func NewRegistry() *Registry {
	return &Registry{next: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
}

// RequireLogin lets nobody else in from now on.
func (r *Registry) RequireLogin(user, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.password = user, password
}

// SetFault puts f before every request from now on; nil takes it away.
func (r *Registry) SetFault(f func(w http.ResponseWriter, req *http.Request, next http.Handler)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// Requests returns "METHOD path" of all requests served that contain part.
func (r *Registry) Requests(part string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, s := range r.requests {
		if strings.Contains(s, part) {
			out = append(out, s)
		}
	}
	return out
}

// ServeHTTP serves the registry's API.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	fault, user, password := r.fault, r.user, r.password
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	r.mu.Unlock()
	if user != "" {
		u, p, _ := req.BasicAuth()
		if subtle.ConstantTimeCompare([]byte(u+"\x00"+p), []byte(user+"\x00"+password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
	}
	if fault != nil {
		fault(w, req, r.next)
		return
	}
	r.next.ServeHTTP(w, req)
}

// Push puts an image in under repository:tag.
func (r *Registry) Push(repoTag string, i *Image) error {
	ref, err := name.NewTag("registry.invalid/" + repoTag)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, i.img, remote.WithTransport(direct{r.next})); err != nil {
		return fmt.Errorf("push %s: %w", repoTag, err)
	}
	return nil
}

// PushIndex puts an index of images by architecture in under repository:tag,
// and returns its digest.
func (r *Registry) PushIndex(repoTag string, byArch map[string]*Image) (string, error) {
	ref, err := name.NewTag("registry.invalid/" + repoTag)
	if err != nil {
		return "", err
	}
	idx := v1.ImageIndex(empty.Index)
	for arch, i := range byArch {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: i.img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	if err := remote.WriteIndex(ref, idx, remote.WithTransport(direct{r.next})); err != nil {
		return "", fmt.Errorf("push index %s: %w", repoTag, err)
	}
	h, err := idx.Digest()
	return h.String(), err
}

// direct answers requests by a handler without a connection.
type direct struct{ h http.Handler }

func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.RequestURI = req.URL.RequestURI()
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, in)
	resp := w.Result()
	resp.Request = req
	return resp, in.Body.Close()
}
