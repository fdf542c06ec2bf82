package dispatch

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// dialledWithin bounds how long a node may take to open a stream it was asked
// for.
const dialledWithin = 10 * time.Second

// carrier is a stream that a node opened because it was asked to.
type carrier struct {
	stream grpc.BidiStreamingServer[wherryv1.StreamRequest, wherryv1.StreamResponse]
	once   sync.Once
	closed chan struct{}
	send   sync.Mutex
}

// Stream implements wherryv1.NodesServer: it hands the stream to whoever asked
// for it and stays until that one has done with it.
func (s *Server) Stream(stream grpc.BidiStreamingServer[wherryv1.StreamRequest, wherryv1.StreamResponse]) error {
	u, err := s.cfg.Identify(stream.Context())
	if err != nil {
		return err
	}
	node, ok := authz.NodeName(u)
	if !ok {
		return apierr.Forbidden("nodes", "", fmt.Errorf("streams are for nodes; %q is none", u.Name))
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c := &carrier{stream: stream, closed: make(chan struct{})}
	if !s.hand(node+"/"+first.GetId(), c) {
		return apierr.New(apierr.ErrNotFound, "nobody waits for stream %q any more", first.GetId())
	}
	select {
	case <-c.closed:
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// hand gives a stream to whoever waits for it, if anybody still does: open
// stops waiting under the same lock, so that no stream is left between.
func (s *Server) hand(key string, c *carrier) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, ok := s.waiting[key]
	if ok {
		delete(s.waiting, key)
		asked <- c // has room for it
	}
	return ok
}

// open asks a node for a stream and waits for it.
func (s *Server) open(ctx context.Context, node string, m *wherryv1.OpenStream) (*carrier, error) {
	se, err := s.await(ctx, node)
	if err != nil {
		return nil, err
	}
	m.Id = string(uuid.NewUUID())
	key := node + "/" + m.GetId()
	asked := make(chan *carrier, 1)
	s.mu.Lock()
	s.waiting[key] = asked
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, key)
		s.mu.Unlock()
		select {
		case late := <-asked:
			late.close()
		default:
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, dialledWithin)
	defer cancel()
	if err := se.push(ctx, &wherryv1.SessionResponse{Message: &wherryv1.SessionResponse_OpenStream{OpenStream: m}}); err != nil {
		return nil, err
	}
	select {
	case c := <-asked:
		return c, nil
	case <-ctx.Done():
		return nil, apierr.Unavailable("node %q did not open a stream within %s", node, dialledWithin)
	}
}

func (c *carrier) close() { c.once.Do(func() { close(c.closed) }) }

func (c *carrier) write(m *wherryv1.StreamResponse) error {
	c.send.Lock()
	defer c.send.Unlock()
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
	}
	return c.stream.Send(m)
}

// read gives the next message; the node's error as ours.
func (c *carrier) read() (*wherryv1.StreamRequest, error) {
	m, err := c.stream.Recv()
	if err != nil {
		return nil, err
	}
	if e := m.GetError(); e != nil {
		return nil, remoteError(e)
	}
	return m, nil
}

// remoteError is the Status that a node sent.
func remoteError(a *anypb.Any) error {
	st := metav1.Status{}
	if err := api.FromAny(a, &st); err != nil {
		return apierr.Internal(fmt.Errorf("a node's error cannot be read: %w", err))
	}
	return apierr.FromStatus(st)
}

// bytesReader reads the bytes of a carrier until its end.
type bytesReader struct {
	c    *carrier
	rest []byte
	err  error
}

// Read implements io.Reader.
func (r *bytesReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		m, err := r.c.read()
		switch {
		case err != nil:
			r.err = err
		case m.GetEnd():
			r.err = io.EOF
		default:
			r.rest = m.GetBytes()
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *bytesReader) Close() error {
	r.c.close()
	return nil
}

// conn is a connection carried by a node. It has no deadlines of its own: the
// context of the request ends it.
type conn struct {
	bytesReader
	name string
}

const maxChunk = 32 << 10

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		k := min(len(p), maxChunk)
		if err := c.c.write(&wherryv1.StreamResponse{Data: &wherryv1.StreamResponse_Bytes{Bytes: append([]byte(nil), p[:k]...)}}); err != nil {
			return n, err
		}
		n += k
		p = p[k:]
	}
	return n, nil
}

// CloseWrite tells the other side that nothing more is written.
func (c *conn) CloseWrite() error {
	return c.c.write(&wherryv1.StreamResponse{Data: &wherryv1.StreamResponse_End{End: true}})
}

type carriedAddr string

// Network implements net.Addr.
func (carriedAddr) Network() string { return "wherry" }

// String implements net.Addr.
func (a carriedAddr) String() string { return string(a) }

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return carriedAddr("control") }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return carriedAddr(c.name) }

// SetDeadline implements net.Conn; there are none.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn; there are none.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn; there are none.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
