package nodelink

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

const maxChunk = 32 << 10

// carried is a stream that a member asked for.
type carried struct {
	stream grpc.BidiStreamingClient[wherryv1.StreamRequest, wherryv1.StreamResponse]
	send   sync.Mutex
	// down has what the member sends; it is closed at the stream's end. One
	// goroutine reads the stream, whoever wants a message takes it from here.
	down chan *wherryv1.StreamResponse
	rest []byte
}

// pump reads the stream until it ends or ctx does.
func (c *carried) pump(ctx context.Context) {
	defer close(c.down)
	for {
		m, err := c.stream.Recv()
		if err != nil {
			return
		}
		select {
		case c.down <- m:
		case <-ctx.Done():
			return
		}
	}
}

func (c *carried) push(m *wherryv1.StreamRequest) error {
	c.send.Lock()
	defer c.send.Unlock()
	return c.stream.Send(m)
}

// Write sends bytes up.
func (c *carried) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		k := min(len(p), maxChunk)
		if err := c.push(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_Bytes{Bytes: append([]byte(nil), p[:k]...)}}); err != nil {
			return n, err
		}
		n += k
		p = p[k:]
	}
	return n, nil
}

// Read gives the bytes that come down, until the other side's end.
func (c *carried) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		m, ok := <-c.down
		if !ok {
			return 0, io.ErrUnexpectedEOF
		}
		if m.GetEnd() {
			return 0, io.EOF
		}
		c.rest = m.GetBytes()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// finish says how it went: the end, or the error.
func (c *carried) finish(err error) error {
	if err == nil {
		return c.push(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_End{End: true}})
	}
	a, aerr := errorAny(err)
	if aerr != nil {
		return aerr
	}
	return c.push(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_Error{Error: a}})
}

func errorAny(err error) (*anypb.Any, error) {
	st := apierr.StatusOf(err)
	return anyOf(&st)
}

// open answers an OpenStream.
func (se *session) open(ctx context.Context, o *wherryv1.OpenStream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := wherryv1.NewNodesClient(se.conn).Stream(ctx)
	if err == nil {
		err = stream.Send(&wherryv1.StreamRequest{Id: o.GetId()})
	}
	if err != nil {
		se.l.cfg.Log.Warn("stream not opened", "control", se.addr, "err", err)
		return
	}
	c := &carried{stream: stream, down: make(chan *wherryv1.StreamResponse)}
	se.l.group.Go(func() { c.pump(ctx) })
	err = se.run(ctx, cancel, c, o)
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		se.l.cfg.Log.Debug("stream ended", "control", se.addr, "err", err)
	}
	// Let the member read the last message before the stream is torn down: it
	// ends the stream when it has done with it.
	if stream.CloseSend() == nil {
		c.drain()
	}
}

// drain reads until the member ends the stream.
func (c *carried) drain() {
	for range c.down { //nolint:revive // what still comes is for nobody
	}
}

func (se *session) run(ctx context.Context, cancel context.CancelFunc, c *carried, o *wherryv1.OpenStream) error {
	h := se.l.cfg.Handler
	switch k := o.GetOpen().(type) {
	case *wherryv1.OpenStream_Logs:
		se.l.group.Go(func() { watchEnd(c, cancel) })
		return c.finish(h.Logs(ctx, k.Logs.GetPodUid(), k.Logs.GetRequest(), c))
	case *wherryv1.OpenStream_Exec:
		return se.exec(ctx, c, k.Exec)
	case *wherryv1.OpenStream_Dial:
		return se.dial(ctx, c, k.Dial)
	case *wherryv1.OpenStream_Images:
		if ref := k.Images.GetExportReference(); ref != "" {
			se.l.group.Go(func() { watchEnd(c, cancel) })
			return c.finish(h.ExportImage(ctx, ref, c))
		}
		list, err := h.ImportImages(ctx, c)
		if err != nil {
			return c.finish(err)
		}
		result, err := anypb.New(&wherryv1.ImportImagesResponse{Images: list})
		if err != nil {
			return c.finish(err)
		}
		return c.push(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_Result{Result: result}})
	}
	return c.finish(apierr.BadRequest("a stream of a kind that this node does not know: %T", o.GetOpen()))
}

// watchEnd cancels a one-way stream when the other side has gone. It ends with
// the stream.
func watchEnd(c *carried, cancel context.CancelFunc) {
	c.drain()
	cancel()
}

func (se *session) exec(ctx context.Context, c *carried, e *wherryv1.ExecOpen) error {
	next := func() (*wherryv1.ExecRequest, error) {
		m, ok := <-c.down
		if !ok {
			return nil, io.EOF
		}
		return m.GetExec(), nil
	}
	send := func(m *wherryv1.ExecResponse) error {
		return c.push(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_Exec{Exec: m}})
	}
	code, err := se.l.cfg.Handler.Exec(ctx, e.GetPodUid(), e.GetStart(), next, send)
	if err != nil {
		return c.finish(err)
	}
	return send(&wherryv1.ExecResponse{Response: &wherryv1.ExecResponse_Exit{Exit: &wherryv1.ExecExit{Code: code}}})
}

// dial connects and copies both ways until both are done.
func (se *session) dial(ctx context.Context, c *carried, d *wherryv1.DialOpen) error {
	var conn net.Conn
	var err error
	if d.GetNoded() {
		conn, err = se.l.cfg.Handler.DialNoded(ctx)
	} else {
		conn, err = se.l.cfg.Handler.Dial(ctx, d.GetPodUid(), d.GetAddress())
	}
	if err != nil {
		return c.finish(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks the copies; nothing is lost that anybody waits for
	defer stop()
	if err := c.push(&wherryv1.StreamRequest{Data: &wherryv1.StreamRequest_Bytes{}}); err != nil {
		return err
	}
	done := make(chan struct{})
	se.l.group.Go(func() { // ends when the member ends the stream, or conn is closed
		defer close(done)
		_, err := io.Copy(conn, c)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		} else {
			err = conn.Close()
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			se.l.cfg.Log.Debug("connection carried for a member", "err", err)
		}
	})
	_, err = io.Copy(c, conn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = c.finish(err)
	<-done
	return err
}

// answer answers an ImagesCall, about images or usage.
func (se *session) answer(ctx context.Context, call *wherryv1.ImagesCall) {
	reply := &wherryv1.ImagesReply{Id: call.GetId()}
	response, err := se.ask(ctx, call.GetRequest())
	if err == nil {
		reply.Response, err = anypb.New(response)
	}
	if err != nil {
		if reply.Error, err = errorAny(err); err != nil {
			se.l.cfg.Log.Warn("answer to a member not sent", "err", err)
			return
		}
	}
	if err := se.push(&wherryv1.SessionRequest{Message: &wherryv1.SessionRequest_ImagesReply{ImagesReply: reply}}); err != nil {
		se.l.cfg.Log.Debug("answer to a member not sent", "err", err)
	}
}

// ask gets the answer from the node.
func (se *session) ask(ctx context.Context, request *anypb.Any) (proto.Message, error) {
	m, err := request.UnmarshalNew()
	if err != nil {
		return nil, apierr.BadRequest("request of a member: %v", err)
	}
	h := se.l.cfg.Handler
	switch r := m.(type) {
	case *wherryv1.UsageRequest:
		return h.Usage(ctx)
	case *wherryv1.ListImagesRequest:
		list, err := h.ListImages(ctx)
		return &wherryv1.ListImagesResponse{Images: list}, err
	case *wherryv1.PullImageRequest:
		list, err := h.PullImage(ctx, r.GetReference())
		return &wherryv1.PullImageResponse{Images: list}, err
	case *wherryv1.RemoveImageRequest:
		was, err := h.RemoveImage(ctx, r.GetReference())
		out := &wherryv1.RemoveImageResponse{}
		if was {
			out.Nodes = 1
		}
		return out, err
	}
	return nil, apierr.BadRequest("a request of a kind that this node does not know: %T", m)
}
