package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

func TestStreams(t *testing.T) {
	c := up(t, 2)
	c.pod("p", "serve")
	c.is("p", corev1.PodRunning, true)
	for n, m := range c.controls { // through each member, also one that does not lead
		c.eventually(func() error { // running is not yet having said something
			log, err := m.nodes.Logs(t.Context(), masters, "demo", "p", &corev1.PodLogOptions{})
			if err != nil {
				return err
			}
			defer log.Close()
			if b, err := io.ReadAll(log); err != nil || string(b) != "up\n" {
				return fmt.Errorf("member %d: log %q, %w", n, b, err)
			}
			return nil
		})
		var out, errs bytes.Buffer
		code, err := m.nodes.Exec(t.Context(), masters, api.ExecRequest{
			Namespace: "demo", Pod: "p", Command: []string{"echo"}, Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errs,
		})
		if err != nil || code != 3 || out.String() != "out hello" || errs.String() != "err" {
			t.Errorf("member %d: exec %d %q %q, %v", n, code, out.String(), errs.String(), err)
		}
		if _, err := m.nodes.Exec(t.Context(), masters, api.ExecRequest{Namespace: "demo", Pod: "p", Command: []string{"absent"}, Stdout: &out}); err == nil || !strings.Contains(err.Error(), "executable file not found") {
			t.Errorf("member %d: exec of nothing: %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := m.nodes.Exec(ctx, masters, api.ExecRequest{Namespace: "demo", Pod: "p", Command: []string{"hang"}, Stdout: &out}); err == nil {
			t.Errorf("member %d: a command that hangs ended well", n)
		}
		cancel()
		dials(t, c, m)
	}
	// Following ends with the container.
	log, err := c.controls[0].nodes.Logs(t.Context(), masters, "demo", "p", &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	first := make([]byte, 3)
	if _, err := io.ReadFull(log, first); err != nil || string(first) != "up\n" {
		t.Errorf("log %q, %v", first, err)
	}
	c.remove("p")
	if b, err := io.ReadAll(log); err != nil || string(b) != "down\n" {
		t.Errorf("log went on with %q, %v", b, err)
	}
	if _, err := c.controls[0].nodes.Logs(t.Context(), masters, "demo", "none", &corev1.PodLogOptions{}); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("log of no pod: %v", err)
	}
}

// dials connects to a port of the pod, which here is loopback, and closes each
// side first.
func dials(t *testing.T, c *cluster, m *control) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			var b []byte
			if b, err = io.ReadAll(conn); err == nil { // until the client has said all
				_, err = fmt.Fprintf(conn, "you said %d bytes", len(b))
			}
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	conn, err := m.nodes.Dial(t.Context(), masters, "demo", "p", port)
	if testkitNeedsRoot(err) {
		t.Log("not root: no connection into a namespace")
		l.Close()
		if err := <-served; err == nil {
			t.Error("somebody was served")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 100_000)); err != nil {
		t.Error(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "you said 100000 bytes" {
		t.Errorf("answered %q, %v", b, err)
	}
	if err := errors.Join(conn.Close(), <-served); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := m.nodes.Dial(t.Context(), masters, "demo", "p", port); !errors.Is(err, apierr.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func testkitNeedsRoot(err error) bool { return err != nil && os.Geteuid() != 0 }

func TestImages(t *testing.T) {
	c := up(t, 1)
	cl := wherryv1.NewImagesClient(c.client(0))
	list, err := cl.ListImages(t.Context(), &wherryv1.ListImagesRequest{})
	if err != nil || len(list.GetImages()) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	out, err := cl.ExportImage(t.Context(), &wherryv1.ExportImageRequest{Node: "n1", Reference: "example.test/tool:1"})
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for {
		m, err := out.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		size += len(m.GetData())
	}
	if size < 1000 {
		t.Errorf("exported %d bytes", size)
	}
	c.pod("p", "serve")
	c.is("p", corev1.PodRunning, true)
	if _, err := cl.RemoveImage(t.Context(), &wherryv1.RemoveImageRequest{Reference: "example.test/tool:1"}); !errors.Is(err, apierr.ErrConflict) {
		t.Errorf("removed an image in use: %v", err)
	}
	c.remove("p")
	c.gone("p")
	c.eventually(func() error {
		_, err := cl.RemoveImage(t.Context(), &wherryv1.RemoveImageRequest{Reference: "example.test/tool:1"})
		return err
	})
	if _, err := cl.RemoveImage(t.Context(), &wherryv1.RemoveImageRequest{Reference: "example.test/tool:1"}); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	stream, err := cl.ImportImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // no archive: the node refuses it while it still comes
		if err := stream.Send(&wherryv1.ImportImagesRequest{Data: bytes.Repeat([]byte("x"), 10_000)}); err != nil {
			break
		}
	}
	if _, err := stream.CloseAndRecv(); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("imported nonsense: %v", err)
	}
}
