package dispatch

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// streamChunk is how much of a log or connection goes into one message.
const streamChunk = 32 << 10

// Pods serves wherry.v1.Pods by the nodes' sessions.
type Pods struct {
	wherryv1.UnimplementedPodsServer
	s *Server
}

// Pods gives the service over the server's sessions.
func (s *Server) Pods() *Pods { return &Pods{s: s} }

// allowed finds the caller and asks whether it may use a pod's subresource.
func (p *Pods) allowed(ctx context.Context, verb, namespace, pod, sub string) (api.User, error) {
	if namespace == "" || pod == "" {
		return api.User{}, apierr.BadRequest("namespace and pod must be given")
	}
	u, err := p.s.cfg.Identify(ctx)
	if err != nil {
		return u, err
	}
	return u, p.s.cfg.Authorize(u, api.Target{Version: "v1", Resource: "pods", Namespace: namespace, Name: pod, Subresource: sub}, verb)
}

// Logs implements wherryv1.PodsServer.
func (p *Pods) Logs(r *wherryv1.LogsRequest, out grpc.ServerStreamingServer[wherryv1.LogsResponse]) error {
	ctx := out.Context()
	u, err := p.allowed(ctx, "get", r.GetNamespace(), r.GetPod(), "log")
	if err != nil {
		return err
	}
	o := &corev1.PodLogOptions{
		Container: r.GetContainer(), Follow: r.GetFollow(), Previous: r.GetPrevious(), Timestamps: r.GetTimestamps(),
		SinceSeconds: r.SinceSeconds, TailLines: r.TailLines, LimitBytes: r.LimitBytes,
	}
	if text := r.GetSinceTime(); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return apierr.BadRequest("since_time: %w", err)
		}
		o.SinceTime = &metav1.Time{Time: t}
	}
	log, err := p.s.Logs(ctx, u, r.GetNamespace(), r.GetPod(), o)
	if err != nil {
		return err
	}
	defer log.Close()
	return carry(log, func(b []byte) error { return out.Send(&wherryv1.LogsResponse{Data: b}) })
}

// carry sends what it reads until the end. Sent bytes are not used again: the
// transport may hold on to them.
func carry(from io.Reader, send func([]byte) error) error {
	for {
		b := make([]byte, streamChunk)
		n, err := from.Read(b)
		if n > 0 {
			if serr := send(b[:n]); serr != nil {
				return serr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Exec implements wherryv1.PodsServer.
func (p *Pods) Exec(stream grpc.BidiStreamingServer[wherryv1.ExecRequest, wherryv1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return apierr.BadRequest("the first message must be start")
	}
	sub := "exec"
	if len(start.GetCommand()) == 0 {
		sub = "attach"
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	u, err := p.allowed(ctx, "create", start.GetNamespace(), start.GetPod(), sub)
	if err != nil {
		return err
	}
	r := api.ExecRequest{
		Namespace: start.GetNamespace(), Pod: start.GetPod(), Container: start.GetContainer(),
		Command: start.GetCommand(), TTY: start.GetTty(),
	}
	if start.GetStdout() {
		r.Stdout = writerFunc(func(b []byte) error {
			return stream.Send(&wherryv1.ExecResponse{Response: &wherryv1.ExecResponse_Stdout{Stdout: b}})
		})
	}
	if start.GetStderr() && !start.GetTty() {
		r.Stderr = writerFunc(func(b []byte) error {
			return stream.Send(&wherryv1.ExecResponse{Response: &wherryv1.ExecResponse_Stderr{Stderr: b}})
		})
	}
	in, input := io.Pipe()
	defer in.Close()
	if start.GetStdin() {
		r.Stdin = in
	}
	sizes := make(chan api.TerminalSize, 1)
	if start.GetTty() {
		r.Resize = sizes
	}
	go func() { // ends with the stream, which ends when the handler returns
		defer close(sizes)
		input.CloseWithError(heed(ctx, stream, start, input, sizes))
	}()
	code, err := p.s.Exec(ctx, u, r)
	if err != nil {
		return err
	}
	return stream.Send(&wherryv1.ExecResponse{Response: &wherryv1.ExecResponse_Exit{Exit: &wherryv1.ExecExit{Code: int32(code)}}})
}

// heed hands on what the client of an exec sends. After the end of input it
// goes on for sizes.
func heed(ctx context.Context, stream grpc.BidiStreamingServer[wherryv1.ExecRequest, wherryv1.ExecResponse], start *wherryv1.ExecStart, input *io.PipeWriter, sizes chan<- api.TerminalSize) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		switch r := m.GetRequest().(type) {
		case *wherryv1.ExecRequest_Stdin:
			if !start.GetStdin() {
				continue
			}
			if _, err := input.Write(r.Stdin); err != nil {
				return err
			}
		case *wherryv1.ExecRequest_CloseStdin:
			input.CloseWithError(io.EOF)
		case *wherryv1.ExecRequest_Resize:
			if !start.GetTty() {
				continue
			}
			size := api.TerminalSize{Width: uint16(min(r.Resize.GetWidth(), 65535)), Height: uint16(min(r.Resize.GetHeight(), 65535))}
			select {
			case sizes <- size:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// writerFunc sends each write as a message of its own.
type writerFunc func([]byte) error

// Write implements io.Writer.
func (f writerFunc) Write(b []byte) (int, error) {
	if err := f(append([]byte(nil), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// PortForward implements wherryv1.PodsServer.
func (p *Pods) PortForward(stream grpc.BidiStreamingServer[wherryv1.PortForwardRequest, wherryv1.PortForwardResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return apierr.BadRequest("the first message must be start")
	}
	if start.GetPort() < 1 || start.GetPort() > 65535 {
		return apierr.BadRequest("port: %d: must be 1 to 65535", start.GetPort())
	}
	ctx := stream.Context()
	u, err := p.allowed(ctx, "create", start.GetNamespace(), start.GetPod(), "portforward")
	if err != nil {
		return err
	}
	conn, err := p.s.Dial(ctx, u, start.GetNamespace(), start.GetPod(), uint16(start.GetPort()))
	if err != nil {
		return err
	}
	defer conn.Close()
	go pour(conn, func() ([]byte, error) { // ends with the stream, which ends when the handler returns
		m, err := stream.Recv()
		return m.GetData(), err
	})
	return carry(conn, func(b []byte) error { return stream.Send(&wherryv1.PortForwardResponse{Data: b}) })
}

// pour writes what a client sends, until its end.
func pour(conn net.Conn, next func() ([]byte, error)) {
	for {
		b, err := next()
		if err == nil {
			_, err = conn.Write(b)
		}
		if errors.Is(err, io.EOF) {
			if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
				return // the other side may still answer
			}
		}
		if err != nil {
			_ = conn.Close() // whoever reads it finds out
			return
		}
	}
}
