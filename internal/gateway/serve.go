package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	headerWait = 30 * time.Second
	idleWait   = 3 * time.Minute
	// stopWait is how long requests may still take when the server stops.
	stopWait = 10 * time.Second
)

// stopKey finds, in the context of a request, the context that ends when the
// server stops: long-running requests end with it, others are let finish.
type stopKey struct{}

// Run serves HTTPS (HTTP/1.1 and 2) on ln until ctx ends, lets running requests
// finish, and closes ln. The TLS configuration asks for client certificates and
// leaves it to Config.User to believe them.
func (g *Gateway) Run(ctx context.Context, ln net.Listener, t *tls.Config) error {
	srv := g.server(ctx)
	srv.TLSConfig = t.Clone()
	// Over HTTP/2 one connection holds all of a client's requests.
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1000, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the Kubernetes API: %w", err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	err := srv.Shutdown(late)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop the Kubernetes API: %w", err), srv.Close())
	}
	<-served
	return errors.Join(err, g.streamsEnd(late))
}

// streamsEnd waits for the handlers that took over their connections.
func (g *Gateway) streamsEnd(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		g.long.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the Kubernetes API: streams did not end in %v", stopWait)
	}
}

func (g *Gateway) server(ctx context.Context) *http.Server {
	base := context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx)
	limit := g.cfg.Limits.Time + headerWait
	return &http.Server{
		Handler:           g,
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       limit,
		WriteTimeout:      limit,
		IdleTimeout:       idleWait,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          log.New(logWriter{g.cfg.Log}, "", 0),
	}
}

// logWriter takes what the HTTP server says of single connections, which is
// of use only when one looks for it.
type logWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("http server", "said", string(p))
	return len(p), nil
}
