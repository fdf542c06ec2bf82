package dispatch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"

	"github.com/wherry-project/wherry/internal/apierr"
)

// maxHead bounds a request's line and header, and an answer's.
const maxHead = 1 << 20

// requests passes the HTTP/1 requests of one connection on to a backend, each
// only if its own method is allowed. A request that is refused, or that asks for
// what cannot be understood, is the last one.
type requests struct {
	in  io.Reader
	out io.Writer
	// conn is a connection that stands already, dial makes others.
	conn net.Conn
	dial func(context.Context) (net.Conn, error)
	may  func(method string) error
}

// serve passes requests on until the client has no more.
func (r *requests) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			conn := r.conn
			if r.conn = nil; conn != nil {
				return conn, nil
			}
			conn, err := r.dial(ctx)
			if err == nil {
				context.AfterFunc(ctx, func() { _ = conn.Close() }) // whoever uses it finds out
			}
			return conn, err
		},
		DisableCompression: true, MaxConnsPerHost: 1, MaxResponseHeaderBytes: maxHead,
	}
	defer transport.CloseIdleConnections()
	head := &io.LimitedReader{R: r.in}
	in := bufio.NewReader(head)
	for {
		head.N = maxHead
		req, err := http.ReadRequest(in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case head.N <= 0:
			return r.refuse(apierr.BadRequest("the header of a request must not be longer than %d bytes", maxHead))
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return r.refuse(apierr.BadRequest("only HTTP requests may be sent here: %w", err))
		}
		head.N = math.MaxInt64
		if err := r.may(req.Method); err != nil {
			return r.refuse(err)
		}
		more, err := r.pass(ctx, transport, req, in)
		if err != nil || !more {
			return err
		}
	}
}

// pass makes one request, and reports whether another may follow.
func (r *requests) pass(ctx context.Context, transport *http.Transport, req *http.Request, in io.Reader) (more bool, err error) {
	if req.Header.Get("Expect") != "" { // the backend is not asked first
		req.Header.Del("Expect")
		if _, err := io.WriteString(r.out, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return false, err
		}
	}
	to := req.WithContext(ctx)
	to.URL.Scheme, to.URL.Host = "http", "backend" // whatever it is, it is dialled above
	to.RequestURI = ""
	if _, ok := to.Header["User-Agent"]; !ok {
		to.Header.Set("User-Agent", "") // not ours
	}
	resp, err := transport.RoundTrip(to)
	if err != nil {
		return false, r.refuse(unreached(err))
	}
	defer resp.Body.Close()
	resp.Request = req
	out := bufio.NewWriterSize(r.out, streamChunk)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return false, r.upgraded(resp, out, in)
	}
	resp.Body = flushing{resp.Body, out}
	resp.Close = resp.Close || req.Close
	// Hidden is that the buffer can read: it must not while it is being flushed.
	if err := errors.Join(resp.Write(struct{ io.Writer }{out}), out.Flush()); err != nil {
		return false, err // the client must not take it for the end
	}
	// What the backend did not want to read of the request is passed over.
	return !resp.Close, req.Body.Close()
}

// upgraded carries bytes both ways from when the backend speaks another protocol.
func (r *requests) upgraded(resp *http.Response, out *bufio.Writer, in io.Reader) error {
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return errors.New("a connection that was upgraded cannot be written to")
	}
	resp.Body, resp.ContentLength = http.NoBody, 0
	if err := errors.Join(resp.Write(out), out.Flush()); err != nil {
		return err
	}
	go func() { // ends with the stream, which ends when the handler returns
		_, _ = io.Copy(conn, in) // its error is the client's, who knows
		_ = conn.Close()
	}()
	err := carry(conn, func(b []byte) error { _, err := r.out.Write(b); return err })
	if errors.Is(err, net.ErrClosed) {
		return nil // the client had nothing more to say
	}
	return err
}

// refuse answers with a Status, as HTTP does; nothing follows it.
func (r *requests) refuse(why error) error {
	st := apierr.StatusOf(why)
	st.Kind, st.APIVersion = "Status", "v1"
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	code := int(st.Code)
	head := "HTTP/1.1 " + strconv.Itoa(code) + " " + http.StatusText(code) + "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(b)) + "\r\n\r\n"
	_, err = r.out.Write(append([]byte(head), b...))
	return err
}

// unreached is what a client hears when a backend could not be reached.
func unreached(err error) error {
	if apierr.KindOf(err) != apierr.ErrInternal {
		return err
	}
	return apierr.Unavailable("error trying to reach service: %w", err)
}

// flushing writes out what there is before it waits for more.
type flushing struct {
	io.ReadCloser
	out *bufio.Writer
}

// Read implements io.Reader.
func (f flushing) Read(p []byte) (int, error) {
	if err := f.out.Flush(); err != nil {
		return 0, err
	}
	return f.ReadCloser.Read(p)
}

// received reads the bytes of messages.
type received struct {
	next func() ([]byte, error)
	rest []byte
}

// Read implements io.Reader.
func (r *received) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		var err error
		if r.rest, err = r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
