package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/gateway"
)

// backends reach one server, whatever is asked for, and note what that was.
type backends struct {
	address string
	asked   chan string
	fail    error
}

func (b *backends) Backend(_ context.Context, resource, namespace, name, port string) (api.Backend, error) {
	b.asked <- resource + " " + namespace + " " + name + " " + port
	return api.Backend{Node: "n1", Address: b.address, Noded: resource == "nodes"}, b.fail
}

func (b *backends) DialBackend(ctx context.Context, to api.Backend) (net.Conn, error) {
	if to.Address != b.address {
		return nil, apierr.Unavailable("unknown address %q", to.Address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", b.address)
}

// echo is a backend: /page has links, /ws speaks WebSocket, all else tells what
// it was asked.
func echo(page []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/page":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			if r.URL.RawQuery == "gzip" {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				defer z.Close()
				z.Write(page)
				return
			}
			w.Write(page)
			return
		case r.URL.Path == "/moved":
			w.Header().Set("Location", "/there/")
			w.WriteHeader(http.StatusFound)
			return
		case r.URL.Path == "/ws":
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			kind, b, err := c.Read(r.Context())
			if err == nil {
				err = c.Write(r.Context(), kind, append([]byte("heard "), b...))
			}
			if err == nil {
				c.Close(websocket.StatusNormalClosure, "")
			}
			return
		}
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		fmt.Fprintf(w, "%s %s body=%s uri=%s auth=%q as=%q", r.Method, r.RequestURI, b, r.Header.Get("X-Forwarded-Uri"),
			r.Header.Get("Authorization"), r.Header.Get("Impersonate-User"))
	})
}

func TestProxy(t *testing.T) {
	page := []byte(`<html><a href="/next">next</a><a href="rel">rel</a></html>`)
	backend := httptest.NewServer(echo(page))
	defer backend.Close()
	b := &backends{address: backend.Listener.Addr().String(), asked: make(chan string, 100)}
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.Backends = b }})
	client := c.http(t, c.admin)
	ask := func(method, path, body string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", "identity")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(text)
	}
	const svc = "/api/v1/namespaces/demo/services/http:web:80/proxy"
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		resp, text := ask(method, svc+"/a%2Fb//c/?x=1&watch=true", "hello")
		want := method + " /a%2Fb//c/?x=1&watch=true body=hello uri=" + svc
		if resp.StatusCode != 200 || !strings.HasPrefix(text, want) || !strings.Contains(text, `auth="" as=""`) || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %q, want %q", method, resp.StatusCode, text, want)
		}
		if got := <-b.asked; got != "services demo web 80" {
			t.Errorf("asked for %q", got)
		}
	}
	if resp, _ := ask("HEAD", svc+"/x", ""); resp.StatusCode != 200 {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
	for path, want := range map[string]string{
		"/api/v1/namespaces/demo/pods/web/proxy/":       "pods demo web ",
		"/api/v1/namespaces/demo/pods/web:8080/proxy/x": "pods demo web 8080",
		"/api/v1/nodes/n1/proxy/metrics":                "nodes  n1 ",
		"/api/v1/nodes/n1:9100/proxy/metrics":           "nodes  n1 9100",
	} {
		for len(b.asked) > 0 {
			<-b.asked
		}
		resp, text := ask("GET", path, "")
		if resp.StatusCode != 200 || !strings.HasPrefix(text, "GET "+path[strings.Index(path, "/proxy")+6:]) {
			t.Errorf("%s: %d %q", path, resp.StatusCode, text)
		}
		if got := <-b.asked; got != want {
			t.Errorf("%s asked for %q, want %q", path, got, want)
		}
	}
	// Without a slash: GET is sent to where relative links work, others pass.
	resp, _ := ask("GET", svc+"?a=b", "")
	if resp.StatusCode != 301 || resp.Header.Get("Location") != svc+"/?a=b" {
		t.Errorf("no slash: %d %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	if resp, text := ask("POST", svc, "x"); resp.StatusCode != 200 || !strings.HasPrefix(text, "POST / body=x") {
		t.Errorf("POST without slash: %d %q", resp.StatusCode, text)
	}
	if resp, _ := ask("GET", svc+"/moved", ""); resp.Header.Get("Location") != svc+"/there/" {
		t.Errorf("redirected to %q", resp.Header.Get("Location"))
	}
	for _, q := range []string{"", "?gzip"} {
		resp, text := ask("GET", svc+"/page"+q, "")
		if q != "" {
			z, err := gzip.NewReader(strings.NewReader(text))
			if err != nil {
				t.Fatalf("%v: %q", err, text)
			}
			plain, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			text = string(plain)
		}
		if want := `<a href="` + svc + `/next">next</a><a href="rel">`; !strings.Contains(text, want) || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("page%s: %q %v", q, text, resp.Header)
		}
	}
	for path, want := range map[string]int{
		"/api/v1/namespaces/demo/services/a:b:c:d/proxy/": 400, "/api/v1/namespaces/demo/configmaps/a/proxy/": 404,
		"/api/v1/namespaces/demo/nodes/a/proxy/": 404, "/api/v1/pods/a/proxy/": 404,
	} {
		if resp, text := ask("GET", path, ""); resp.StatusCode != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	b.fail = apierr.Unavailable("no endpoints available for service %q", "web")
	if resp, text := ask("GET", svc+"/", ""); resp.StatusCode != 503 || !strings.Contains(text, `no endpoints available for service \"web\"`) {
		t.Errorf("no endpoints: %d %s", resp.StatusCode, text)
	}
}

// TestProxyLongPage passes a page on that is too long to be rewritten.
func TestProxyLongPage(t *testing.T) {
	page := append([]byte(`<html><a href="/next">next</a>`), bytes.Repeat([]byte("x"), 3<<20)...)
	backend := httptest.NewServer(echo(page))
	defer backend.Close()
	b := &backends{address: backend.Listener.Addr().String(), asked: make(chan string, 100)}
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.Backends = b }})
	for _, q := range []string{"", "?gzip"} {
		resp, err := c.http(t, c.admin).Get(c.url + "/api/v1/namespaces/demo/pods/web/proxy/page" + q)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.Header.Get("Content-Type") != "text/html; charset=utf-8" || q == "" && !bytes.Equal(text, page) {
			t.Errorf("page%s: %d bytes, %v", q, len(text), resp.Header)
		}
	}
}

// TestProxyUpgrade speaks WebSocket through the proxy.
func TestProxyUpgrade(t *testing.T) {
	backend := httptest.NewServer(echo(nil))
	defer backend.Close()
	b := &backends{address: backend.Listener.Addr().String(), asked: make(chan string, 100)}
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.Backends = b }})
	client := c.http(t, c.admin)
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	conn, resp, err := websocket.Dial(t.Context(), c.url+"/api/v1/namespaces/demo/pods/web/proxy/ws", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatalf("%v %v", err, resp)
	}
	defer conn.CloseNow()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("you")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(t.Context()); err != nil || string(got) != "heard you" {
		t.Errorf("%q, %v", got, err)
	}
	// A backend that speaks nothing of it.
	_, resp, err = websocket.Dial(t.Context(), c.url+"/api/v1/namespaces/demo/pods/web/proxy/other", &websocket.DialOptions{HTTPClient: client})
	if err == nil || resp == nil || resp.StatusCode < 400 {
		t.Errorf("no upgrade: %v %v", resp, err)
	}
	// One that is not there.
	b.fail = apierr.NotFound("pods", "web")
	_, resp, err = websocket.Dial(t.Context(), c.url+"/api/v1/namespaces/demo/pods/web/proxy/ws", &websocket.DialOptions{HTTPClient: client})
	if err == nil || resp == nil || resp.StatusCode != 404 {
		t.Errorf("no pod: %v %v", resp, err)
	}
}
