package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"k8s.io/client-go/rest"
)

// httpCommand is the first argument of a process that answers over HTTPS without
// looking anything up: what net/http, TLS and the kernel take of a request.
const httpCommand = "http"

// floorAnswer is as long as a ConfigMap of 256 B.
var floorAnswer = bytes.Repeat([]byte("x"), 560)

// httpFloor serves until ctx ends. It prints "ready" when it does.
func httpFloor(ctx context.Context, args []string) error {
	f := flag.NewFlagSet(httpCommand, flag.ContinueOnError)
	address := f.String("address", "", "")
	var id identity
	id.flags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	conf, err := id.config()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: &floorHandler{}, TLSConfig: conf, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000}}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	fmt.Println("ready")
	select {
	case <-ctx.Done():
		return srv.Close()
	case err := <-served:
		return err
	}
}

// floorHandler answers a GET, and tells all watches what is posted.
type floorHandler struct {
	mu      sync.Mutex
	watches []chan []byte
}

// ServeHTTP implements http.Handler.
func (h *floorHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.watches {
			c <- body
		}
	case r.URL.Query().Get("watch") != "":
		c := make(chan []byte, 4)
		h.mu.Lock()
		h.watches = append(h.watches, c)
		h.mu.Unlock()
		rc := http.NewResponseController(w)
		for next := floorAnswer[:1]; ; {
			if _, err := w.Write(next); err != nil || rc.Flush() != nil {
				return
			}
			select {
			case next = <-c:
			case <-r.Context().Done():
				return
			}
		}
	}
	_, _ = w.Write(floorAnswer) // a client that has gone is not measured
}

// floorCells measures what the Kubernetes API cannot be quicker than: gets, and
// a write seen by all watchers.
func (b *bench) floorCells(ctx context.Context) (get, fan cell, err error) {
	dir, err := os.MkdirTemp(b.dir, "http-")
	if err != nil {
		return get, fan, err
	}
	id, err := newIdentity(dir)
	if err != nil {
		return get, fan, err
	}
	self, err := os.Executable()
	if err != nil {
		return get, fan, err
	}
	addresses, err := freeAddresses(1)
	if err != nil {
		return get, fan, err
	}
	p, err := b.startSaying(ctx, "ready", self, httpCommand, "-address", addresses[0], "-ca", id.ca, "-cert", id.cert, "-key", id.key)
	if err != nil {
		return get, fan, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	config := &rest.Config{
		Host: "https://" + addresses[0], Dial: (&net.Dialer{}).DialContext,
		TLSClientConfig: rest.TLSClientConfig{CAFile: id.ca, CertFile: id.cert, KeyFile: id.key},
	}
	clients := &kubeClients{}
	defer func() { err = errors.Join(err, clients.close()) }()
	for range apiClients / 10 {
		c, err := dialPlain(ctx, config)
		if err != nil {
			return get, fan, err
		}
		clients.plain = append(clients.plain, c)
	}
	get, err = load(ctx, apiClients, b.cell, func(ctx context.Context, client, n int) error {
		_, err := clients.plain[client%len(clients.plain)].do(ctx, "GET", mapsPath+"/p0-0", nil, "")
		return err
	})
	if err != nil {
		return get, fan, err
	}
	fan, err = plainFanOut(ctx, clients)
	return get, fan, err
}
