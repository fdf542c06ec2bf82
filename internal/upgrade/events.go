package upgrade

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// IsWebSocket reports whether a request wants to become a WebSocket.
func IsWebSocket(r *http.Request) bool { return isWebSocket(r) }

// Events upgrades to a WebSocket on which only the server speaks: each send is
// one message, which the client must take within unread. What the client sends
// is thrown away; its close ends run's context, as does the end of ctx. An
// error of run ends the connection without a word of the reason.
func Events(ctx context.Context, w http.ResponseWriter, r *http.Request, unread time.Duration, run func(ctx context.Context, send func(msg []byte, binary bool) error) error) error {
	var protocols []string
	if asked := offered(r); len(asked) > 0 {
		protocols = asked[:1] // a browser wants to hear one of those that it named
	}
	conn, err := accept(w, r, protocols)
	if err != nil {
		return err
	}
	// The end of a reader's context would cut the connection.
	whole, release := context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer cancel()
		for {
			_, msg, err := conn.Reader(whole)
			if err == nil {
				_, err = io.Copy(io.Discard, msg)
			}
			if err != nil {
				return
			}
		}
	})
	err = run(ctx, func(msg []byte, binary bool) error {
		typ := websocket.MessageText
		if binary {
			typ = websocket.MessageBinary
		}
		ctx, cancel := context.WithTimeout(ctx, unread)
		defer cancel()
		return conn.Write(ctx, typ, msg)
	})
	if err == nil {
		err = conn.Close(websocket.StatusNormalClosure, "")
	}
	cancel()
	release()
	_ = conn.CloseNow() // what could go wrong has been told
	reading.Wait()
	if err != nil {
		return errAnswered{err}
	}
	return nil
}
