package kubelethttp

import (
	"context"
	"net"
	"sync"
)

// Inside is the way to the port's handlers without the port: connections from
// the node's sessions, whose users the control plane has authorized. It speaks
// plain HTTP.
type Inside struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

// NewInside makes a way in; Run serves it.
func NewInside() *Inside { return &Inside{conns: make(chan net.Conn), ended: make(chan struct{})} }

// Dial makes a connection.
func (i *Inside) Dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case i.conns <- there:
		return here, nil
	case <-i.ended:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (i *Inside) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.ended:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (i *Inside) Close() error {
	i.once.Do(func() { close(i.ended) })
	return nil
}

// Addr implements net.Listener.
func (i *Inside) Addr() net.Addr { return insideAddr{} }

type insideAddr struct{}

// Network implements net.Addr.
func (insideAddr) Network() string { return "inside" }

// String implements net.Addr.
func (insideAddr) String() string { return "inside" }
