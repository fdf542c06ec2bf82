package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// node serves the streams of one pod.
type node struct{ port string }

func (node) Logs(ctx context.Context, u api.User, ns, pod string, o *corev1.PodLogOptions) (io.ReadCloser, error) {
	if pod != "p" {
		return nil, apierr.NotFound("pods", pod)
	}
	if o.Follow {
		r, w := io.Pipe()
		go func() {
			fmt.Fprintln(w, "one")
			<-ctx.Done()
			w.CloseWithError(ctx.Err())
		}()
		return r, nil
	}
	return io.NopCloser(strings.NewReader(fmt.Sprintf("%s %s %d\n", u.Name, o.Container, *o.TailLines))), nil
}

func (node) Ready(_ context.Context, _ api.User, _, pod string, _ *string) error {
	if pod != "p" {
		return apierr.NotFound("pods", pod)
	}
	return nil
}

func (node) Exec(_ context.Context, _ api.User, r api.ExecRequest) (int, error) {
	if r.Attach() {
		_, err := io.WriteString(r.Stdout, "attached")
		return 0, err
	}
	b, err := io.ReadAll(r.Stdin)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(r.Stdout, "%s %q %s", r.Container, r.Command, b)
	return 7, nil
}

func (n node) Dial(ctx context.Context, _ api.User, _, _ string, port uint16) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", n.port)
}

func TestStreams(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "hello")
			conn.Close()
		}
	}()
	c := start(t, options{streams: node{ln.Addr().String()}})
	pods := c.client(t, nil).CoreV1().Pods("demo")
	three := int64(3)
	b, err := pods.GetLogs("p", &corev1.PodLogOptions{Container: "c", TailLines: &three}).DoRaw(t.Context())
	if err != nil || string(b) != "kubernetes-admin c 3\n" {
		t.Errorf("log %q, %v", b, err)
	}
	if _, err := pods.GetLogs("q", &corev1.PodLogOptions{}).DoRaw(t.Context()); !apierrors.IsNotFound(err) {
		t.Errorf("log of no pod: %v", err)
	}
	for query, want := range map[string]int{"tailLines=x": 400, "sinceTime=x": 400, "stream=Stdin": 422} {
		if a := c.do(t, "GET", "/api/v1/namespaces/demo/pods/p/log?"+query, ""); a.StatusCode != want {
			t.Errorf("%s: %d %s", query, a.StatusCode, a.text)
		}
	}
	if a := c.do(t, "GET", "/api/v1/namespaces/demo/pods/q/exec?command=a&stdout=1", ""); a.StatusCode != 404 {
		t.Errorf("exec in no pod: %d %s", a.StatusCode, a.text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	follow, err := pods.GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4)
	if _, err := io.ReadFull(follow, line); err != nil || string(line) != "one\n" {
		t.Errorf("followed %q, %v", line, err)
	}
	cancel()
	follow.Close()

	exec, err := url.Parse(c.url + "/api/v1/namespaces/demo/pods/p/exec?container=c&command=cat&command=-&stdin=true&stdout=true")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := remotecommand.NewWebSocketExecutor(c.config(t), "GET", exec.String())
	if err != nil {
		t.Fatal(err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config(t), "POST", exec)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]remotecommand.Executor{"websocket": ws, "spdy": spdy} {
		var out bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("input"), Stdout: &out})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 7 || out.String() != `c ["cat" "-"] input` {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
	if a := c.do(t, "POST", "/api/v1/namespaces/demo/pods/p/exec?stdout=true", ""); a.StatusCode != 422 {
		t.Errorf("exec of nothing: %d %s", a.StatusCode, a.text)
	}
	if a := c.do(t, "POST", "/api/v1/namespaces/demo/pods/p/exec?command=x", ""); a.StatusCode != 400 {
		t.Errorf("exec without streams: %d %s", a.StatusCode, a.text)
	}
	if a := c.do(t, "POST", "/api/v1/namespaces/demo/pods/p/attach?stdout=true", ""); a.StatusCode != 400 || !strings.Contains(a.text, "Upgrade request required") {
		t.Errorf("attach without upgrade: %d %s", a.StatusCode, a.text)
	}

	forward, err := url.Parse(c.url + "/api/v1/namespaces/demo/pods/p/portforward")
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := portforward.NewSPDYOverWebsocketDialer(forward, c.config(t))
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	pf, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- pf.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := pf.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(conn)
	conn.Close()
	if err != nil || string(b) != "hello" {
		t.Errorf("forwarded %q, %v", b, err)
	}
	close(stop)
	<-ended
}
