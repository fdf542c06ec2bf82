package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"time"
)

// Debug is a part that serves Go's profiles under /debug/pprof/, and the
// handlers given by their paths, on a Unix socket that only the owner may use:
//
//	curl --unix-socket /run/wherry/noded-debug.sock http://x/debug/pprof/heap
//
// A socket left by a killed predecessor is replaced.
func Debug(socket string, more map[string]http.Handler) Part {
	return Part{Name: "debug listener", Run: func(ctx context.Context, ready func()) error {
		l, err := listenUnix(ctx, socket)
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: debugMux(more), ReadHeaderTimeout: 10 * time.Second}
		ready()
		failed := make(chan error, 1)
		go func() { failed <- srv.Serve(l) }()
		select {
		case err := <-failed:
			return fmt.Errorf("serve %s: %w", socket, err)
		case <-ctx.Done():
		}
		err = srv.Close() // a running profile is not worth waiting for
		if serr := <-failed; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
		return err
	}}
}

func debugMux(more map[string]http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	for path, h := range more {
		mux.Handle(path, h)
	}
	return mux
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
