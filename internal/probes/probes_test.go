package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/wherry-project/wherry/internal/testkit"
)

func TestRun(t *testing.T) {
	results := func(text string) []Result { // s, w, f, u
		var out []Result
		for _, c := range text {
			out = append(out, map[rune]Result{'s': Success, 'w': Warning, 'f': Failure, 'u': Unknown}[c])
		}
		return out
	}
	tests := []struct {
		name, seen, settled string // settled: + where the result counts
		cfg                 Config
	}{
		{"once is enough", "sf", "++", Config{Successes: 1, Failures: 1}},
		{"three failures in a row", "ffsfff", "--+--+", Config{Successes: 1, Failures: 3}},
		{"two successes in a row", "sfss", "-+-+", Config{Successes: 2, Failures: 1}},
		{"a warning is a success", "wswf", "-++-", Config{Successes: 2, Failures: 2}},
		{"unknown changes nothing", "fuuf", "---+", Config{Successes: 1, Failures: 2}},
		{"goes on counting", "ffff", "-+++", Config{Successes: 1, Failures: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				tt.cfg.Delay, tt.cfg.Period, tt.cfg.Timeout = 5*time.Second, 10*time.Second, time.Second
				seen := results(tt.seen)
				got, n, began := "", 0, time.Now()
				Run(ctx, tt.cfg, began, func(context.Context) (Result, string) {
					if at := time.Since(began); at != 5*time.Second+time.Duration(n)*10*time.Second {
						t.Errorf("check %d at %v", n, at)
					}
					n++
					return seen[n-1], "text"
				}, func(o Outcome) {
					got += map[bool]string{true: "+", false: "-"}[o.Settled]
					if n == len(seen) {
						cancel()
					}
				})
				if got != tt.settled {
					t.Errorf("settled %s, want %s", got, tt.settled)
				}
			})
		})
	}
}

func TestRunTimesOutAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		n := 0
		Run(ctx, Config{Period: 10 * time.Second, Timeout: 2 * time.Second, Successes: 1, Failures: 1}, time.Now(),
			Exec(func(ctx context.Context) (int, string, error) { <-ctx.Done(); return 0, "half", ctx.Err() }),
			func(o Outcome) {
				n++
				if o.Result != Failure || o.Output != "command timed out: half" {
					t.Errorf("got %v %q", o.Result, o.Output)
				}
			})
		if n != 3 {
			t.Errorf("%d checks in 25 s, want 3", n)
		}
	})
}

func TestExec(t *testing.T) {
	for _, tt := range []struct {
		code int
		err  error
		want Result
	}{{0, nil, Success}, {1, nil, Failure}, {0, errors.New("no such program"), Unknown}} {
		got, text := Exec(func(context.Context) (int, string, error) { return tt.code, "out", tt.err })(t.Context())
		if got != tt.want || text == "" {
			t.Errorf("code %d, %v: %v %q, want %v", tt.code, tt.err, got, text, tt.want)
		}
	}
}

func target(t *testing.T, s *httptest.Server, path string) HTTP {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return HTTP{Scheme: u.Scheme, Host: u.Hostname(), Port: port, Path: path, Agent: "kube-probe/1.34"}
}

func TestHTTP(t *testing.T) {
	testkit.Leaks(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/code/", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Path[len("/code/"):])
		w.WriteHeader(code)
		fmt.Fprint(w, "body")
	})
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/code/200", http.StatusFound) })
	mux.HandleFunc("/there", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 20<<10)) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, " ", r.Header.Get("User-Agent"), " ", r.Header.Get("Accept"), " ", r.Header.Get("X-Two"), " ", r.URL.RawQuery)
	})
	for _, start := range []func(http.Handler) *httptest.Server{httptest.NewServer, httptest.NewTLSServer} {
		s := start(mux)
		defer s.Close()
		for _, tt := range []struct {
			path string
			want Result
			text string
		}{
			{"/code/200", Success, "body"}, {"/code/399", Warning, ""}, {"/code/400", Failure, "HTTP probe failed with statuscode: 400"},
			{"/code/503", Failure, "statuscode: 503"}, {"/here", Success, "body"}, {"/there", Warning, "Probe terminated redirects"},
			{"/round", Failure, "stopped after 10 redirects"}, {"/slow", Failure, "deadline exceeded"}, {"/big", Success, "xxx"},
		} {
			limit := time.Minute
			if tt.path == "/slow" {
				limit = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			got, text := target(t, s, tt.path).Check()(ctx)
			cancel()
			if got != tt.want || !strings.Contains(text, tt.text) || len(text) > maxBody {
				t.Errorf("%s%s: %v %.80q, want %v %q", s.URL, tt.path, got, text, tt.want, tt.text)
			}
		}
		h := target(t, s, "/echo?a=b")
		h.Header = http.Header{"host": {"virtual"}, "X-Two": {"2"}}
		if _, body, err := h.Get(t.Context()); err != nil || body != "virtual kube-probe/1.34 */* 2 a=b" {
			t.Errorf("echo: %q, %v", body, err)
		}
		h.Header = http.Header{"User-Agent": {"me"}}
		if _, body, err := h.Get(t.Context()); err != nil || !strings.Contains(body, " me ") {
			t.Errorf("echo: %q, %v", body, err)
		}
		s.Close()
		if got, text := h.Check()(t.Context()); got != Failure || !strings.Contains(text, "connection refused") {
			t.Errorf("nobody there: %v %q", got, text)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if got, text := TCP(l.Addr().String())(t.Context()); got != Success {
		t.Errorf("%v %q", got, text)
	}
	l.Close()
	if got, text := TCP(l.Addr().String())(t.Context()); got != Failure || !strings.Contains(text, "connection refused") {
		t.Errorf("nobody there: %v %q", got, text)
	}
}

func TestGRPC(t *testing.T) {
	testkit.Leaks(t)
	serve := func(s *grpc.Server) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(s.Stop)
		return l.Addr().String()
	}
	h := health.NewServer()
	h.SetServingStatus("up", healthv1.HealthCheckResponse_SERVING)
	h.SetServingStatus("down", healthv1.HealthCheckResponse_NOT_SERVING)
	good := grpc.NewServer()
	healthv1.RegisterHealthServer(good, h)
	addr, bare := serve(good), serve(grpc.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct {
		addr, service string
		want          Result
		text          string
	}{
		{addr, "up", Success, "service healthy"}, {addr, "", Success, ""}, {addr, "down", Failure, `service unhealthy (responded with "NOT_SERVING")`},
		{addr, "other", Failure, "health rpc probe failed"}, {bare, "", Failure, "does not implement the grpc health protocol"},
		{"127.0.0.1:1", "", Failure, "failed to connect service"}, {l.Addr().String(), "", Failure, "timeout"},
	} {
		limit := time.Minute
		if tt.text == "timeout" {
			limit = 500 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		got, text := GRPC(tt.addr, tt.service, "kube-probe/1.34")(ctx)
		cancel()
		if got != tt.want || !strings.Contains(text, tt.text) {
			t.Errorf("%s %q: %v %q, want %v %q", tt.addr, tt.service, got, text, tt.want, tt.text)
		}
	}
}
