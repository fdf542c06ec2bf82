package upgrade

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// The channels of a WebSocket: the first byte of each message.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	resizeChannel
	closeSignal = 255
)

// The subprotocols, the best first. A client may also ask for none.
const (
	v5          = "v5.channel.k8s.io"
	v4          = "v4.channel.k8s.io"
	v4Base64    = "v4.base64.channel.k8s.io"
	v1          = "channel.k8s.io"
	v1Base64    = "base64.channel.k8s.io"
	maxResize   = 1 << 10
	maxInBase64 = 1 << 20
)

func execProtocols() []string { return []string{v5, v4, v4Base64, v1, v1Base64} }

// accept upgrades to WebSocket. The request's Origin is not compared, as in
// Kubernetes, whose clients send what they like; the user is known by a
// certificate or token.
func accept(w http.ResponseWriter, r *http.Request, protocols []string) (*websocket.Conn, error) {
	if asked := offered(r); len(asked) > 0 && !overlap(asked, protocols) {
		return nil, apierr.BadRequest("unable to upgrade: requested protocol(s) are not supported: %v; supports %v", asked, protocols)
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: protocols, InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, errAnswered{err}
	}
	c.SetReadLimit(-1) // messages are read piece by piece
	return c, nil
}

// errAnswered wraps an error that the client has been told.
type errAnswered struct{ error }

// Unwrap gives the error.
func (e errAnswered) Unwrap() error { return e.error }

// Answered reports whether an error of Exec or PortForward came after the
// answer had begun, so that nothing more can be said.
func Answered(err error) bool {
	var e errAnswered
	return errors.As(err, &e)
}

func offered(r *http.Request) (out []string) {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if strings.EqualFold(x, y) {
				return true
			}
		}
	}
	return false
}

func execWebSocket(w http.ResponseWriter, r *http.Request, o Options, run Session) error {
	c, err := accept(w, r, execProtocols())
	if err != nil {
		return err
	}
	defer c.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()

	protocol := c.Subprotocol()
	ch := &channels{conn: c, ctx: ctx, halfClose: protocol == v5, base64: protocol == v4Base64 || protocol == v1Base64}
	s := ch.streams(o)
	// An empty message tells the client that the connection stands.
	if err := ch.ready(o); err != nil {
		return errAnswered{err}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		ch.read()
	}()

	exit, err := run(ctx, s)
	status := outcome(exit, err)
	asJSON := protocol == v5 || protocol == v4 || protocol == v4Base64
	if err := writeOutcome(ch.writer(errorChannel), status, asJSON); err == nil {
		c.Close(websocket.StatusNormalClosure, "")
	}
	c.CloseNow()
	ch.closeStdin()
	<-done
	return nil
}

// channels are the streams of one WebSocket.
type channels struct {
	conn              *websocket.Conn
	ctx               context.Context // of the connection, for writes
	halfClose, base64 bool

	stdin  *io.PipeWriter
	unread *io.PipeReader
	resize sizes
}

func (c *channels) streams(o Options) (s Streams) {
	if o.Stdin {
		c.unread, c.stdin = io.Pipe()
		s.Stdin = c.unread
	}
	if o.Stdout {
		s.Stdout = c.writer(stdoutChannel)
	}
	if o.Stderr && !o.TTY {
		s.Stderr = c.writer(stderrChannel)
	}
	if o.TTY {
		c.resize = newSizes()
		s.Resize = c.resize
	}
	return s
}

func (c *channels) ready(o Options) error {
	first := byte(errorChannel)
	switch {
	case o.Stdout:
		first = stdoutChannel
	case o.Stderr:
		first = stderrChannel
	}
	_, err := c.writer(first).Write(nil)
	return err
}

// closeStdin lets the reader go that waits for somebody to take input.
func (c *channels) closeStdin() {
	if c.unread != nil {
		c.unread.Close()
	}
}

// read hands out what the client sends until it is gone.
func (c *channels) read() {
	defer func() {
		if c.stdin != nil {
			c.stdin.Close()
		}
		if c.resize != nil {
			close(c.resize)
		}
	}()
	for {
		_, msg, err := c.conn.Reader(c.ctx)
		if err != nil {
			return
		}
		if err := c.message(msg); err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, msg); err != nil {
			return
		}
	}
}

// message takes one message; an error ends the connection.
func (c *channels) message(msg io.Reader) error {
	var head [1]byte
	if _, err := io.ReadFull(msg, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // an empty message says nothing
		}
		return err
	}
	channel := head[0]
	if c.halfClose && channel == closeSignal {
		return c.close(msg)
	}
	if c.base64 {
		channel -= '0'
		b, err := io.ReadAll(io.LimitReader(msg, maxInBase64))
		if err != nil {
			return err
		}
		msg = base64.NewDecoder(base64.StdEncoding, strings.NewReader(string(b)))
	}
	switch {
	case channel == stdinChannel && c.stdin != nil:
		// A program that has closed its input does not end the connection.
		if _, err := io.Copy(c.stdin, msg); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return err
		}
	case channel == resizeChannel && c.resize != nil:
		var size api.TerminalSize
		if err := json.NewDecoder(io.LimitReader(msg, maxResize)).Decode(&size); err == nil {
			c.resize.put(size)
		}
	}
	return nil
}

// close takes the signal that ends one of the client's streams.
func (c *channels) close(msg io.Reader) error {
	var which [1]byte
	if _, err := io.ReadFull(msg, which[:]); err != nil {
		return err
	}
	if which[0] == stdinChannel && c.stdin != nil {
		return c.stdin.Close()
	}
	return nil
}

func (c *channels) writer(channel byte) *channelWriter { return &channelWriter{c, channel} }

// channelWriter writes messages of one channel.
type channelWriter struct {
	c       *channels
	channel byte
}

// Write implements io.Writer; each call is one message.
func (w *channelWriter) Write(p []byte) (int, error) {
	ctx, cancel := context.WithTimeout(w.c.ctx, writeWait)
	defer cancel()
	kind, msg := websocket.MessageBinary, make([]byte, 0, len(p)+1)
	if w.c.base64 {
		kind = websocket.MessageText
		msg = base64.StdEncoding.AppendEncode(append(msg, '0'+w.channel), p)
	} else {
		msg = append(append(msg, w.channel), p...)
	}
	if err := w.c.conn.Write(ctx, kind, msg); err != nil {
		return 0, err
	}
	return len(p), nil
}
