// Package kubelethttp is a node's HTTPS port, 10250: health for everyone, and
// for the cluster's administrators and members what the node's pods are and
// use. Nothing here changes anything; exec, logs and the like come over the
// node's own sessions.
package kubelethttp

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
	// Healthy says what is wrong with the node, or nil.
	Healthy func() error
	// Metrics answers /metrics.
	Metrics http.Handler
	// Pods are the node's pods as it sees them.
	Pods func() []*corev1.Pod
	// Summary is what they use.
	Summary func(ctx context.Context) (*Summary, error)
	Log     *slog.Logger
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
	srv := &http.Server{
		Handler: handler(cfg), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: requestWithin, WriteTimeout: requestWithin,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(tls.NewListener(netutil.LimitListener(l, maxConns), cfg.TLS)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
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

func handler(cfg Config) http.Handler {
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
			if err := allowed(cfg, r); err != nil {
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
	guarded("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, apierr.New(apierr.ErrNotFound, "noded does not serve %s; it serves /healthz, /metrics, /pods and /stats/summary, and controld the rest", r.URL.Path))
	})
	return mux
}

// allowed lets in administrators and members of the control plane.
func allowed(cfg Config, r *http.Request) error {
	p, err := cfg.Peer(r.TLS)
	switch {
	case err != nil:
		return apierr.New(apierr.ErrUnauthorized, "Unauthorized: %v", err)
	case p.Role == pki.Nobody:
		return apierr.New(apierr.ErrUnauthorized, "Unauthorized: show a client certificate of the cluster")
	case p.Role == pki.Member, slices.Contains(p.Groups, pki.MastersGroup):
		return nil
	}
	return apierr.New(apierr.ErrForbidden, "Forbidden (user=%s, verb=get, resource=nodes, subresource=proxy)", p.User)
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
