package kubelethttp

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/testkit"
)

// TestInside asks without a certificate what the port would refuse.
func TestInside(t *testing.T) {
	testkit.Leaks(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.log"), []byte("of the machine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	ca, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	inside := NewInside()
	cfg := Config{
		TLS:     &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{pair(t, ca, pki.NodeRequest("n1", nil, nil))}},
		Peer:    pki.NewVerifier(ca.Certificate(), func(pki.Peer) error { return nil }, time.Now).Peer,
		Healthy: func() error { return nil },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a_metric 1") }),
		Logs: func(ctx context.Context, namespace, pod, container string, q url.Values, out io.Writer) error {
			if pod != "p" {
				return apierr.NotFound("pods", pod)
			}
			fmt.Fprintf(out, "%s/%s/%s %s\n", namespace, pod, container, q.Get("tailLines"))
			if q.Get("follow") == "true" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		},
		LogDir: dir, Inside: inside, Log: slog.New(slog.DiscardHandler),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, cfg, l) }()
	tr := &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return inside.Dial(ctx) },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	client := &http.Client{Transport: tr}
	for path, want := range map[string]string{
		"/healthz": "ok", "/metrics": "a_metric 1", "/logs/a.log": "of the machine", "/containerLogs/demo/p/c?tailLines=3": "demo/p/c 3\n",
		"/containerLogs/demo/q/c": `"code":404`, "/exec/x": `"code":404`,
	} {
		r, err := client.Get("http://n1" + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if r, err := client.Get("http://n1/logs/out"); err != nil || r.StatusCode == 200 {
		t.Errorf("a link leads out of the folder: %v %v", r, err)
	} else {
		r.Body.Close()
	}
	// A log that is followed ends with its client.
	r, err := client.Get("http://n1/containerLogs/demo/p/c?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 9)
	if _, err := io.ReadFull(r.Body, line); err != nil || string(line) != "demo/p/c " {
		t.Errorf("%q, %v", line, err)
	}
	r.Body.Close()
	tr.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := inside.Dial(t.Context()); err == nil {
		t.Error("dialled what is no longer served")
	}
}
