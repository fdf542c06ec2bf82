package dispatch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/testkit"
)

// limited is a connection of who may GET and PUT, to a backend that says what it
// got.
func limited(t *testing.T) net.Conn {
	t.Helper()
	testkit.Leaks(t)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/upgrade":
			if r.Header.Get("Upgrade") == "" {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			line, err := buf.ReadString('\n')
			fmt.Fprintf(conn, "%s%v", line, err)
		case "/slow":
			fmt.Fprint(w, "first ")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/early":
			fmt.Fprint(w, "enough")
		default:
			b, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %q %v agent %q", r.Method, r.URL, b, err, r.UserAgent())
		}
	}))
	t.Cleanup(backend.Close)
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", backend.Listener.Addr().String())
	}
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	r := requests{in: server, out: server, conn: conn, dial: dial, may: func(method string) error {
		if verb := proxyVerb(method); verb != "get" && verb != "update" {
			return apierr.Forbidden("pods", "web:80", errors.New("not yours"))
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	done := make(chan error, 1)
	go func() { done <- errors.Join(r.serve(ctx), server.Close()) }()
	t.Cleanup(func() {
		_ = client.Close()
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the connection is still served")
		}
	})
	if err := client.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestRequestsOfSomeMethods(t *testing.T) {
	for _, tt := range []struct{ name, send, want string }{
		{"one that is allowed", "GET /a?b=c HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\n\r\n", `200 GET /a?b=c "" <nil> agent "me"`},
		{"two at once", "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.1\r\nHost: x\r\n\r\n", `200 PUT /a "hi" <nil> agent ""|200 GET /b "" <nil> agent ""`},
		{"a body in chunks", "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", `200 PUT /a "hi" <nil> agent ""`},
		{"one that asks first", "PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", `100 |200 PUT /a "hi" <nil> agent ""`},
		{"one that nobody reads", "PUT /early HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.1\r\nHost: x\r\n\r\n", `200 enough|200 GET /b "" <nil> agent ""`},
		{"another method", "POST /a HTTP/1.1\r\nHost: x\r\n\r\n", `403 pods "web:80" is forbidden: not yours`},
		{"a method of nobody", "OPTIONS /a HTTP/1.1\r\nHost: x\r\n\r\n", `403 pods "web:80" is forbidden: not yours`},
		{"another behind one that is allowed", "GET /a HTTP/1.1\r\nHost: x\r\n\r\nDELETE /a HTTP/1.1\r\nHost: x\r\n\r\n", `200 GET /a "" <nil> agent ""|403 pods "web:80" is forbidden: not yours`},
		{"another inside an upgrade that is none", "GET /upgrade HTTP/1.1\r\nHost: x\r\n\r\nPOST /a HTTP/1.1\r\nHost: x\r\n\r\n", `204 |403 pods "web:80" is forbidden: not yours`},
		{"another in a body of two lengths", "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nhi!POST /a HTTP/1.1\r\n\r\n", "400 only HTTP requests may be sent here"},
		{"no HTTP", "\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", "400 only HTTP requests may be sent here"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", `403 pods "web:80" is forbidden: not yours`},
		{"a header without end", "GET /a HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20), "400 the header of a request must not be longer than"},
		{"an upgrade", "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nPOST as it likes\n", "101 POST as it likes\n<nil>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := limited(t)
			go func() { _, _ = io.WriteString(conn, tt.send) }() // what is not read says so below
			answers := bufio.NewReader(conn)
			for want := range strings.SplitSeq(tt.want, "|") {
				resp, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatalf("instead of %q: %v", want, err)
				}
				body := io.Reader(resp.Body)
				if resp.StatusCode == http.StatusSwitchingProtocols {
					if resp.Header.Get("Upgrade") != "echo" || resp.Header.Get("Connection") != "Upgrade" {
						t.Errorf("header %v", resp.Header)
					}
					body = answers
				}
				b, err := io.ReadAll(body)
				if err != nil {
					t.Fatal(err)
				}
				got := fmt.Sprintf("%d %s", resp.StatusCode, b)
				if resp.Header.Get("Content-Type") == "application/json" {
					_, text, _ := strings.Cut(string(b), `"message":"`)
					text, _, _ = strings.Cut(text, `","`)
					got = fmt.Sprintf("%d %s", resp.StatusCode, strings.ReplaceAll(text, `\"`, `"`))
				}
				if !strings.HasPrefix(got, want) {
					t.Errorf("answered %q, want %q", got, want)
				}
			}
		})
	}
}

// What comes little by little is passed on as it comes.
func TestRequestsOfLongAnswers(t *testing.T) {
	conn := limited(t)
	if _, err := io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "first " {
		t.Errorf("read %q, %v", b, err)
	}
}

// FuzzRequests sends anything: a backend never hears a method that was not
// allowed, and the connection comes to its end.
func FuzzRequests(f *testing.F) {
	var heard atomic.Value
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if proxyVerb(r.Method) != "get" {
			heard.Store(r.Method)
		}
		_, _ = io.Copy(w, r.Body) // the client may have gone
	}))
	f.Cleanup(backend.Close)
	for _, seed := range []string{
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\nDELETE /a HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nX: y\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
		"HEAD /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhiPUT / HTTP/1.1\r\n\r\n",
		"GET http://other/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\nPOST / HTTP/1.1\r\n\r\n",
		"GET /a\rb HTTP/1.1\r\nHost: x\r\nX: a\n POST / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "get / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		dial := func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", backend.Listener.Addr().String())
		}
		r := requests{in: bytes.NewReader(sent), out: io.Discard, dial: dial, may: func(method string) error {
			if proxyVerb(method) != "get" {
				return apierr.Forbidden("pods", "web", errors.New("not yours"))
			}
			return nil
		}}
		_ = r.serve(ctx) // an error is an end too
		if ctx.Err() != nil {
			t.Error("the connection has no end")
		}
		if method := heard.Load(); method != nil {
			t.Errorf("the backend heard %s", method)
		}
	})
}
