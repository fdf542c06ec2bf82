package chaos

import (
	"context"
	"net"
	"sync"
)

// cables are the connections that a member has made. What goes through one that
// is cut vanishes; when it is whole again, the connection is gone. Both ends of
// a cut are told, so that nothing passes either way.
type cables struct {
	mu    sync.Mutex
	cut   map[string]bool // addresses
	conns map[*cable]bool
}

type cable struct {
	net.Conn
	of     *cables
	to     string
	closed chan struct{}
	once   sync.Once
}

func (c *cables) isCut(to string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut[to]
}

// set says which addresses are cut off from here.
func (c *cables) set(cut []string) {
	c.mu.Lock()
	before := c.cut
	c.cut = map[string]bool{}
	for _, to := range cut {
		c.cut[to] = true
	}
	var ended []*cable
	for conn := range c.conns {
		if before[conn.to] && !c.cut[conn.to] {
			ended = append(ended, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range ended {
		_ = conn.Close() // as the fault would
	}
}

func (c *cables) dial(ctx context.Context, to string) (net.Conn, error) {
	if c.isCut(to) {
		<-ctx.Done() // as a SYN that nobody answers
		return nil, ctx.Err()
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	one := &cable{Conn: conn, of: c, to: to, closed: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[one] = true
	return one, nil
}

// Write implements net.Conn.
func (c *cable) Write(b []byte) (int, error) {
	if c.of.isCut(c.to) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *cable) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.of.isCut(c.to) {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

// Close implements net.Conn.
func (c *cable) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.of.mu.Lock()
		delete(c.of.conns, c)
		c.of.mu.Unlock()
	})
	return c.Conn.Close()
}
