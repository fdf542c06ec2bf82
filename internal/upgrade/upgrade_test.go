package upgrade_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/testkit"
	"github.com/wherry-project/wherry/internal/upgrade"
)

func TestMain(m *testing.M) {
	os.Exit(testkit.LeaksMain(m,
		// Ends a second after the connection.
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).shutdown"),
		// What a client leaves behind that is cancelled.
		goleak.IgnoreAnyFunction("k8s.io/client-go/tools/remotecommand.(*stream).Read"),
		goleak.IgnoreAnyFunction("k8s.io/client-go/tools/remotecommand.(*streamProtocolV4).stream"),
		goleak.IgnoreAnyFunction("k8s.io/client-go/tools/remotecommand.(*heartbeat).start"),
		// Or whose second stream is refused before it has read the first.
		goleak.IgnoreAnyFunction("k8s.io/client-go/tools/portforward.(*PortForwarder).handleConnection.func1"),
	))
}

// serve runs a session behind a server; the query says which streams.
func serve(t *testing.T, run upgrade.Session) *url.URL {
	t.Helper()
	done := make(chan struct{}, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { done <- struct{}{} }()
		q := r.URL.Query()
		o := upgrade.Options{Stdin: q.Has("stdin"), Stdout: q.Has("stdout"), Stderr: q.Has("stderr"), TTY: q.Has("tty")}
		if err := upgrade.Exec(w, r, o, run); err != nil && !upgrade.Answered(err) {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(func() {
		srv.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the handler did not return")
		}
	})
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

type maker func(t *testing.T, u *url.URL) remotecommand.Executor

func clients() map[string]maker {
	return map[string]maker{
		"websocket": func(t *testing.T, u *url.URL) remotecommand.Executor {
			e, err := remotecommand.NewWebSocketExecutor(&rest.Config{Host: u.Host}, "GET", u.String())
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
		"spdy": func(t *testing.T, u *url.URL) remotecommand.Executor {
			e, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: u.Host}, "POST", u)
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
	}
}

func TestExecCopiesBothWays(t *testing.T) {
	for name, client := range clients() {
		t.Run(name, func(t *testing.T) {
			u := serve(t, func(_ context.Context, s upgrade.Streams) (int, error) {
				if s.Resize != nil {
					t.Error("sizes without a terminal")
				}
				n, err := io.Copy(s.Stdout, s.Stdin)
				if err != nil {
					return 0, err
				}
				fmt.Fprintf(s.Stderr, "%d bytes", n)
				return 3, nil
			})
			u.RawQuery = "stdin&stdout&stderr"
			in := strings.Repeat("0123456789abcdef", 1<<16)
			var out, errs bytes.Buffer
			err := client(t, u).StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errs})
			var exit utilexec.CodeExitError
			if !errors.As(err, &exit) || exit.Code != 3 {
				t.Errorf("ended with %v, want exit code 3", err)
			}
			if out.String() != in || errs.String() != fmt.Sprintf("%d bytes", len(in)) {
				t.Errorf("%d bytes came back, stderr %q", out.Len(), errs.String())
			}
		})
	}
}

type sizeQueue chan *remotecommand.TerminalSize

func (q sizeQueue) Next() *remotecommand.TerminalSize { return <-q }

func TestExecTerminal(t *testing.T) {
	for name, client := range clients() {
		t.Run(name, func(t *testing.T) {
			u := serve(t, func(ctx context.Context, s upgrade.Streams) (int, error) {
				if s.Stderr != nil {
					t.Error("a terminal has no stderr")
				}
				select {
				case size := <-s.Resize:
					fmt.Fprintf(s.Stdout, "%dx%d", size.Width, size.Height)
				case <-ctx.Done():
				}
				return 0, nil
			})
			u.RawQuery = "stdin&stdout&tty"
			q := make(sizeQueue, 1)
			q <- &remotecommand.TerminalSize{Width: 80, Height: 24}
			in, closeIn := io.Pipe()
			var out bytes.Buffer
			err := client(t, u).StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: q})
			close(q)
			closeIn.Close()
			if err != nil || out.String() != "80x24" {
				t.Errorf("got %q, %v", out.String(), err)
			}
		})
	}
}

func TestExecTellsWhyNothingRan(t *testing.T) {
	for name, client := range clients() {
		t.Run(name, func(t *testing.T) {
			u := serve(t, func(context.Context, upgrade.Streams) (int, error) {
				return 0, apierr.BadRequest("container %q is not running", "c")
			})
			u.RawQuery = "stdout"
			err := client(t, u).StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
			if err == nil || !strings.Contains(err.Error(), `container "c" is not running`) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSessionEndsWithItsClient(t *testing.T) {
	for name, client := range clients() {
		t.Run(name, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan struct{})
			u := serve(t, func(ctx context.Context, s upgrade.Streams) (int, error) {
				close(began)
				<-ctx.Done()
				close(ended)
				return 0, ctx.Err()
			})
			u.RawQuery = "stdout"
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-began; cancel() }()
			if err := client(t, u).StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard}); err == nil {
				t.Error("a cancelled stream gave no error")
			}
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Error("the session outlives its client")
			}
		})
	}
}

func TestOldWebSocketProtocols(t *testing.T) {
	for _, protocol := range []string{"base64.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"} {
		t.Run(protocol, func(t *testing.T) {
			u := serve(t, func(_ context.Context, s upgrade.Streams) (int, error) {
				var b [2]byte
				if _, err := io.ReadFull(s.Stdin, b[:]); err != nil {
					return 0, err
				}
				_, err := s.Stdout.Write(b[:])
				return 0, err
			})
			u.RawQuery = "stdin&stdout"
			c, resp, err := websocket.Dial(t.Context(), u.String(), &websocket.DialOptions{Subprotocols: []string{protocol}, HTTPHeader: http.Header{"Origin": {"http://elsewhere.example"}}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			if resp.Header.Get("Sec-WebSocket-Protocol") != protocol {
				t.Errorf("chose %q", resp.Header.Get("Sec-WebSocket-Protocol"))
			}
			in, want, kind := []byte("\x00hi"), "\x01hi", websocket.MessageBinary
			if strings.HasPrefix(protocol, "base64") {
				in, want, kind = []byte("0aGk="), "1aGk=", websocket.MessageText
			}
			if err := c.Write(t.Context(), kind, in); err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				_, msg, err := c.Read(t.Context())
				if err != nil {
					break
				}
				got = append(got, string(msg))
			}
			if len(got) < 2 || len(got[0]) != 1 || got[1] != want {
				t.Errorf("messages %q", got)
			}
			if protocol == "v4.channel.k8s.io" && (len(got) != 3 || got[2] != "\x03"+`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}`) {
				t.Errorf("messages %q", got)
			}
		})
	}
}

func TestRefusesWhatIsNoUpgrade(t *testing.T) {
	u := serve(t, func(context.Context, upgrade.Streams) (int, error) { return 0, nil })
	for _, h := range []http.Header{
		{},
		{"Connection": {"Upgrade"}, "Upgrade": {"h2c"}},
		{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"v9.channel.k8s.io"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}},
	} {
		req := &http.Request{Method: http.MethodGet, URL: u, Header: h}
		resp, err := http.DefaultTransport.RoundTrip(req.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%v: %s", h, resp.Status)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestPortForward(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := upgrade.PortForward(w, r, func(ctx context.Context, port uint16) (net.Conn, error) {
			if port != 80 {
				return nil, fmt.Errorf("connection refused")
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", echo.Addr().String())
		})
		if err != nil && !upgrade.Answered(err) {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, tunnel := range []bool{true, false} {
		t.Run(fmt.Sprintf("tunnel %v", tunnel), func(t *testing.T) {
			stop, ready := make(chan struct{}), make(chan struct{})
			var errs bytes.Buffer
			f := forwarder(t, u, tunnel, stop, ready, &errs)
			ended := make(chan error, 1)
			go func() { ended <- f.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-ended:
				t.Fatal(err)
			}
			ports, err := f.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			data := strings.Repeat("ping", 1<<18)
			for range 3 {
				if got := roundTrip(t, ports[0].Local, data); got != data {
					t.Errorf("%d bytes came back of %d", len(got), len(data))
				}
			}
			if got := roundTrip(t, ports[1].Local, ""); got != "" {
				t.Errorf("a closed port answered %q", got)
			}
			close(stop)
			<-ended
			if errs.Len() > 0 {
				t.Errorf("the client complains: %s", errs.String())
			}
		})
	}
}

func forwarder(t *testing.T, u *url.URL, tunnel bool, stop, ready chan struct{}, errs *bytes.Buffer) *portforward.PortForwarder {
	t.Helper()
	cfg := &rest.Config{Host: u.Host}
	rt, up, err := spdy.RoundTripperFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	dialer := spdy.NewDialer(up, &http.Client{Transport: rt}, "POST", u)
	if tunnel {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(u, cfg); err != nil {
			t.Fatal(err)
		}
	}
	f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80", "0:81"}, stop, ready, io.Discard, errs)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func roundTrip(t *testing.T, port uint16, data string) string {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		io.WriteString(c, data)
	}()
	got := make([]byte, len(data))
	if len(data) == 0 {
		got = make([]byte, 1)
	}
	n, _ := io.ReadFull(c, got)
	return string(got[:n])
}

// FuzzFrames sends what the fuzzer likes as the messages of a session.
func FuzzFrames(f *testing.F) {
	run := func(ctx context.Context, s upgrade.Streams) (int, error) {
		_, err := io.Copy(s.Stdout, s.Stdin)
		return 0, err
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrade.Exec(w, r, upgrade.Options{Stdin: true, Stdout: true, TTY: true}, run)
	}))
	f.Cleanup(srv.Close)
	f.Add(0, []byte("\x00hello"))
	f.Add(0, []byte("\xff\x00"))
	f.Add(0, []byte("\x04{\"Width\":1}"))
	f.Add(1, []byte("0aGk="))
	protocols := []string{"v5.channel.k8s.io", "base64.channel.k8s.io"}
	f.Fuzz(func(t *testing.T, n int, msg []byte) {
		c, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{Subprotocols: []string{protocols[uint(n)%2]}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		if err := c.Write(t.Context(), websocket.MessageBinary, msg); err != nil {
			t.Fatal(err)
		}
		_ = c.Write(t.Context(), websocket.MessageBinary, []byte("\xff\x00"))
	})
}
