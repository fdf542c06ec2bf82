package upgrade

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/wherry-project/wherry/internal/apierr"
)

const (
	forwardProtocol = "portforward.k8s.io"
	tunnelProtocol  = "SPDY/3.1+" + forwardProtocol

	// maxForwards bounds the connections that one client forwards at once.
	maxForwards = 1024
)

// Dial connects to a port of the pod. A connection with CloseWrite carries the
// end of the client's data on.
type Dial func(ctx context.Context, port uint16) (net.Conn, error)

// PortForward upgrades the connection and forwards until the client is gone.
// An error means that nothing was answered yet.
func PortForward(w http.ResponseWriter, r *http.Request, dial Dial) error {
	streams := make(chan opened, maxStreams)
	var conn httpstream.Connection
	switch {
	case isWebSocket(r):
		if asked := offered(r); !overlap(asked, []string{tunnelProtocol}) {
			return apierr.BadRequest("unable to upgrade: requested protocol(s) are not supported: %v; supports %s", asked, tunnelProtocol)
		}
		c, err := accept(w, r, []string{tunnelProtocol})
		if err != nil {
			return err
		}
		defer c.CloseNow()
		conn, err = spdy.NewServerConnection(websocket.NetConn(r.Context(), c, websocket.MessageBinary), collect(r.Context(), streams))
		if err != nil {
			return errAnswered{err}
		}
	case isSPDY(r):
		c, incoming, _, err := upgradeSPDY(w, r, []string{forwardProtocol})
		if err != nil {
			return err
		}
		forward(r.Context(), c, incoming, dial)
		return nil
	default:
		return errNoUpgrade(r)
	}
	forward(r.Context(), conn, streams, dial)
	return nil
}

// pair is the two streams of one forwarded connection.
type pair struct {
	data, err httpstream.Stream
	since     time.Time
}

// forward serves the connections that the client opens, until it is gone.
func forward(ctx context.Context, conn httpstream.Connection, incoming <-chan opened, dial Dial) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	defer cancel()
	half := map[string]*pair{}
	running := make(chan struct{}, maxForwards)
	late := time.NewTicker(openWait)
	defer late.Stop()
	for {
		select {
		case s := <-incoming:
			p := match(half, s)
			if p == nil {
				continue
			}
			select {
			case running <- struct{}{}:
			default:
				fail(p, fmt.Errorf("too many connections are forwarded at once"))
				continue
			}
			wg.Go(func() {
				defer func() { <-running }()
				carry(ctx, p, dial)
				conn.RemoveStreams(p.data, p.err)
			})
		case now := <-late.C:
			for id, p := range half {
				if now.Sub(p.since) > openWait {
					delete(half, id)
					fail(p, fmt.Errorf("the other stream of this connection did not come"))
				}
			}
		case <-conn.CloseChan():
			return
		case <-ctx.Done():
			return
		}
	}
}

// match puts a stream to its other half, and gives the pair when it is whole.
func match(half map[string]*pair, s opened) *pair {
	id := s.Headers().Get("requestID")
	p := half[id]
	if p == nil {
		if len(half) >= maxForwards {
			s.Reset()
			return nil
		}
		p = &pair{since: time.Now()}
		half[id] = p
	}
	switch kind := s.Headers().Get(streamType); {
	case kind == asData && p.data == nil:
		p.data = s.Stream
	case kind == asError && p.err == nil:
		p.err = s.Stream
	default:
		s.Reset()
		return nil
	}
	if p.data == nil || p.err == nil {
		return nil
	}
	delete(half, id)
	return p
}

// fail tells the client why a connection is not forwarded.
func fail(p *pair, why error) {
	if p.err != nil {
		// The client may be gone; then nobody needs to know.
		_, _ = io.WriteString(p.err, why.Error())
		p.err.Close()
	}
	if p.data != nil {
		p.data.Reset()
	}
}

// carry connects to the pod and copies both ways until both have ended.
func carry(ctx context.Context, p *pair, dial Dial) {
	port, err := strconv.ParseUint(strings.TrimSpace(p.data.Headers().Get("port")), 10, 16)
	if err != nil || port == 0 {
		fail(p, fmt.Errorf("invalid port %q: want 1 to 65535", p.data.Headers().Get("port")))
		return
	}
	conn, err := dial(ctx, uint16(port))
	if err != nil {
		fail(p, fmt.Errorf("error forwarding port %d to pod: %w", port, err))
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		p.data.Reset()
	})
	defer stop()
	defer p.err.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// What breaks a copy is the end of one side, which the other sees.
		_, _ = io.Copy(conn, p.data)
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
			return
		}
		_ = conn.Close() // what cannot be half closed ends with the client
	}()
	_, _ = io.Copy(p.data, conn)
	p.data.Close()
	<-sent
}
