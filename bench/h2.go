package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"k8s.io/client-go/rest"
)

// plainConn is a connection of a client that does no more than HTTP/2: most of
// what a request of client-go costs on this machine is client-go's.
type plainConn struct {
	conn      *tls.Conn
	authority string

	mu    sync.Mutex // of all that is sent
	out   *bufio.Writer
	fr    *http2.Framer
	head  bytes.Buffer
	enc   *hpack.Encoder
	next  uint32
	calls map[uint32]*plainCall
	err   error // why there is no more
}

// plainCall is a request whose answer is not whole.
type plainCall struct {
	status string
	body   []byte
	data   func([]byte) // takes the body as it comes, if there is one
	done   chan error
}

// dialPlain connects as a kubeconfig says.
func dialPlain(ctx context.Context, c *rest.Config) (*plainConn, error) {
	at, err := url.Parse(c.Host)
	if err != nil {
		return nil, err
	}
	conf, err := rest.TLSConfigFor(c)
	if err != nil {
		return nil, err
	}
	conf = conf.Clone()
	conf.NextProtos, conf.ServerName = []string{"h2"}, at.Hostname()
	raw, err := c.Dial(ctx, "tcp", net.JoinHostPort(at.Hostname(), at.Port()))
	if err != nil {
		return nil, err
	}
	p := &plainConn{conn: tls.Client(raw, conf), authority: at.Host, next: 1, calls: map[uint32]*plainCall{}}
	if err := p.begin(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	go p.receive()
	return p, nil
}

// plainWindow is what the server may send before it is read.
const plainWindow = 1 << 30

func (p *plainConn) begin(ctx context.Context) error {
	if err := p.conn.HandshakeContext(ctx); err != nil {
		return err
	}
	p.out = bufio.NewWriter(p.conn)
	p.enc = hpack.NewEncoder(&p.head)
	p.fr = http2.NewFramer(p.out, bufio.NewReaderSize(p.conn, 64<<10))
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.SetReuseFrames()
	_, err := io.WriteString(p.out, http2.ClientPreface)
	return errors.Join(err,
		p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: plainWindow}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
		p.fr.WriteWindowUpdate(0, plainWindow), p.out.Flush())
}

// receive takes frames until the connection ends.
func (p *plainConn) receive() {
	var unread uint32
	for {
		f, err := p.fr.ReadFrame()
		if err == nil {
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				err = p.answered(f.StreamID, func(c *plainCall) { c.status = f.PseudoValue("status") }, f.StreamEnded())
			case *http2.DataFrame:
				unread += f.Length
				err = p.answered(f.StreamID, func(c *plainCall) { c.take(f.Data()) }, f.StreamEnded())
			case *http2.RSTStreamFrame:
				p.end(f.StreamID, fmt.Errorf("stream reset: %s", f.ErrCode))
			case *http2.GoAwayFrame:
				err = fmt.Errorf("the server ends the connection: %s", f.ErrCode)
			case *http2.SettingsFrame:
				if !f.IsAck() {
					err = p.send(func() error { return p.fr.WriteSettingsAck() })
				}
			case *http2.PingFrame:
				if !f.IsAck() {
					err = p.send(func() error { return p.fr.WritePing(true, f.Data) })
				}
			}
		}
		if err == nil && unread > plainWindow/4 {
			n := unread
			unread = 0
			err = p.send(func() error { return p.fr.WriteWindowUpdate(0, n) })
		}
		if err != nil {
			p.fail(err)
			return
		}
	}
}

func (c *plainCall) take(data []byte) {
	if c.data != nil {
		c.data(data)
		return
	}
	c.body = append(c.body, data...)
}

func (p *plainConn) answered(stream uint32, f func(*plainCall), last bool) error {
	p.mu.Lock()
	c := p.calls[stream]
	p.mu.Unlock()
	if c == nil {
		return fmt.Errorf("an answer on stream %d, which is not open", stream)
	}
	f(c)
	if last {
		p.end(stream, nil)
	}
	return nil
}

func (p *plainConn) end(stream uint32, err error) {
	p.mu.Lock()
	c := p.calls[stream]
	delete(p.calls, stream)
	p.mu.Unlock()
	if c != nil {
		c.done <- err
	}
}

func (p *plainConn) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	for id, c := range p.calls {
		delete(p.calls, id)
		c.done <- err
	}
}

// send writes frames and sends them off.
func (p *plainConn) send(write func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(write(), p.out.Flush())
}

// open sends a request. Its body must be small: what the server takes without
// saying so is not counted.
func (p *plainConn) open(method, path string, body []byte, content string, data func([]byte)) (*plainCall, error) {
	c := &plainCall{data: data, done: make(chan error, 1)}
	return c, p.send(func() error {
		if p.err != nil {
			return p.err
		}
		p.head.Reset()
		fields := [][2]string{
			{":method", method}, {":scheme", "https"}, {":authority", p.authority}, {":path", path},
			{"accept", protobufMedia}, {"user-agent", "bench"},
		}
		if body != nil {
			fields = append(fields, [2]string{"content-type", content})
		}
		for _, f := range fields {
			if err := p.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return err
			}
		}
		id := p.next
		p.next += 2
		p.calls[id] = c
		err := p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.head.Bytes(), EndHeaders: true, EndStream: body == nil})
		if err == nil && body != nil {
			err = p.fr.WriteData(id, true, body)
		}
		return err
	})
}

const (
	protobufMedia = "application/vnd.kubernetes.protobuf"
	plainTime     = 20 * time.Second
)

// do makes a request and reads its answer.
func (p *plainConn) do(ctx context.Context, method, path string, body []byte, content string) ([]byte, error) {
	c, err := p.open(method, path, body, content, nil)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(plainTime)
	defer late.Stop()
	select {
	case err := <-c.done:
		if err == nil && c.status != "200" && c.status != "201" {
			err = fmt.Errorf("%s %s: %s %s", method, path, c.status, c.body)
		}
		return c.body, err
	case <-late.C:
		return nil, fmt.Errorf("%s %s: no answer in %v", method, path, plainTime)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *plainConn) close() error { return p.conn.Close() }
