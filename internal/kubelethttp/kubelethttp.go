// Package kubelethttp is a node's HTTPS port, 10250: health for everyone, and
// what the node's pods are and use for the cluster's administrators and members,
// and for whom else the API lets. Nothing here changes anything; exec, logs and the like come over the
// node's own sessions. The control plane asks the same things over a session
// (Inside), which needs no way to the port.
package kubelethttp

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"golang.org/x/net/netutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
)

const (
	// maxConns bounds the connections, and requestWithin one request.
	maxConns      = 128
	requestWithin = 30 * time.Second
	stopWithin    = 2 * time.Second
)

// Config are the parts of the port.
type Config struct {
	// Address is where to listen, such as :10250.
	Address string
	// TLS is the node's own certificate; clients show theirs, which Peer
	// tells.
	TLS  *tls.Config
	Peer func(*tls.ConnectionState) (pki.Peer, error)
	// Node is the node's name. Reviewer asks the API about those who are
	// neither administrators nor members; nil refuses them.
	Node     string
	Reviewer Reviewer
	// Healthy says what is wrong with the node, or nil.
	Healthy func() error
	// Metrics answers /metrics.
	Metrics http.Handler
	// Pods are the node's pods as it sees them.
	Pods func() []*corev1.Pod
	// Summary is what they use.
	Summary func(ctx context.Context) (*Summary, error)
	// Logs writes the log of a container as the query asks.
	Logs func(ctx context.Context, namespace, pod, container string, q url.Values, out io.Writer) error
	// LogDir is the folder that /logs/ shows; empty shows none.
	LogDir string
	// Inside is served beside the port; nil is not.
	Inside *Inside
	Log    *slog.Logger
}

// Run serves until ctx ends. Ready is called once the port is taken.
func Run(ctx context.Context, cfg Config, ready func()) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return fmt.Errorf("listen on %s, where metrics are served: %w", cfg.Address, err)
	}
	ready()
	return serve(ctx, cfg, l)
}

func serve(ctx context.Context, cfg Config, l net.Listener) error {
	outside := listening{server(ctx, cfg, new(guard).allowed), tls.NewListener(netutil.LimitListener(l, maxConns), cfg.TLS)}
	if cfg.Inside == nil {
		return outside.run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	anybody := func(Config, *http.Request) error { return nil }
	inside := listening{server(ctx, cfg, anybody), netutil.LimitListener(cfg.Inside, maxConns)}
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- inside.run(ctx)
	}()
	err := outside.run(ctx)
	cancel()
	return errors.Join(err, <-ended)
}

func server(ctx context.Context, cfg Config, may func(Config, *http.Request) error) *http.Server {
	return &http.Server{
		Handler: handler(cfg, may), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: requestWithin, WriteTimeout: requestWithin,
		IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
}

// listening is a server and where it listens.
type listening struct {
	srv *http.Server
	at  net.Listener
}

// run serves until ctx ends.
func (l listening) run(ctx context.Context) error {
	srv := l.srv
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l.at) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.at.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	err := srv.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close() // a slow client is not worth waiting for
	}
	if serr := <-failed; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

func handler(cfg Config, may func(Config, *http.Request) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := cfg.Healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
	})
	guarded := func(pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := may(cfg, r); err != nil {
				refuse(w, err)
				return
			}
			h(w, r)
		})
	}
	guarded("GET /metrics", cfg.Metrics.ServeHTTP)
	guarded("GET /pods", func(w http.ResponseWriter, _ *http.Request) {
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
		for _, p := range cfg.Pods() {
			list.Items = append(list.Items, *p)
		}
		slices.SortFunc(list.Items, func(a, b corev1.Pod) int {
			return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
		})
		answer(w, http.StatusOK, list)
	})
	guarded("GET /stats/summary", func(w http.ResponseWriter, r *http.Request) {
		s, err := cfg.Summary(r.Context())
		if err != nil {
			refuse(w, apierr.Internal(err))
			return
		}
		answer(w, http.StatusOK, s)
	})
	guarded("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) { containerLogs(cfg, w, r) })
	if cfg.LogDir != "" {
		guarded("GET /logs/", func(w http.ResponseWriter, r *http.Request) { logFiles(cfg.LogDir, w, r) })
	}
	guarded("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, apierr.New(apierr.ErrNotFound, "noded does not serve %s; it serves /healthz, /metrics, /pods, /stats/summary, /containerLogs/ and /logs/, and controld the rest", r.URL.Path))
	})
	return mux
}

// containerLogs answers with a container's log, for as long as it is followed.
func containerLogs(cfg Config, w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := errors.Join(rc.SetWriteDeadline(time.Time{}), rc.SetReadDeadline(time.Time{})); err != nil && !errors.Is(err, http.ErrNotSupported) {
		refuse(w, apierr.Internal(err))
		return
	}
	out := &logAnswer{w: w, flush: rc.Flush}
	err := cfg.Logs(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), r.URL.Query(), out)
	switch {
	case err != nil && !out.begun:
		refuse(w, err)
	case err != nil && r.Context().Err() == nil:
		panic(http.ErrAbortHandler) // the client must not take it for the end
	}
}

// logFiles shows the files below a folder; links do not lead out of it.
func logFiles(dir string, w http.ResponseWriter, r *http.Request) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		refuse(w, apierr.Internal(err))
		return
	}
	defer root.Close()
	http.StripPrefix("/logs/", http.FileServerFS(root.FS())).ServeHTTP(w, r)
}

// logAnswer writes a log; the header comes with its first byte, or at its end.
type logAnswer struct {
	w     http.ResponseWriter
	flush func() error
	begun bool
}

// Write implements io.Writer.
func (a *logAnswer) Write(p []byte) (int, error) {
	if !a.begun {
		a.begun = true
		a.w.Header().Set("Content-Type", "text/plain")
	}
	n, err := a.w.Write(p)
	if err == nil {
		err = a.flush()
	}
	return n, err
}

func refuse(w http.ResponseWriter, err error) {
	st := apierr.StatusOf(err)
	answer(w, int(st.Code), st)
}

func answer(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // a client that has gone needs no answer
}
