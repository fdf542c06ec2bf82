package upgrade

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"

	"github.com/coder/websocket"
)

// The subprotocols of a log; a client may also ask for none, which is the first.
const (
	plainLog  = "binary.k8s.io"
	base64Log = "base64.binary.k8s.io"
	logChunk  = 32 << 10
)

// Log upgrades the connection to WebSocket and sends what it reads, in messages
// as it comes, until the end or until the client is gone. Reading ends when the
// request does, which the caller sees to. An error means that nothing was
// answered yet.
func Log(w http.ResponseWriter, r *http.Request, from io.Reader) error {
	if !isWebSocket(r) {
		return errNoUpgrade(r)
	}
	c, err := accept(w, r, []string{plainLog, base64Log})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	ctx := c.CloseRead(r.Context()) // answers pings, and ends when the client is gone
	send := func(b []byte) error {
		kind := websocket.MessageBinary
		if c.Subprotocol() == base64Log {
			kind, b = websocket.MessageText, base64.StdEncoding.AppendEncode(nil, b)
		}
		one, cancel := context.WithTimeout(ctx, writeWait)
		defer cancel()
		return c.Write(one, kind, b)
	}
	// An empty message tells the client that the connection stands.
	if err := send(nil); err != nil {
		return errAnswered{err}
	}
	pieces := make(chan []byte)
	failed := make(chan error, 1)
	go func() { // ends with from, which the caller closes
		defer close(pieces)
		for {
			b := make([]byte, logChunk)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case pieces <- b[:n]:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					failed <- err
				}
				return
			}
		}
	}()
	for {
		select {
		case b, ok := <-pieces:
			if !ok {
				select {
				case err := <-failed: // the client must not take it for the end
					_ = c.Close(websocket.StatusInternalError, "the log could not be read to its end")
					return errAnswered{err}
				default:
				}
				// What the client says to that is of no use to anybody.
				_ = c.Close(websocket.StatusNormalClosure, "")
				return nil
			}
			if err := send(b); err != nil {
				return errAnswered{err}
			}
		case <-ctx.Done():
			return errAnswered{ctx.Err()}
		}
	}
}
