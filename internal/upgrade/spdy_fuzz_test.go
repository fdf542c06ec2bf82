package upgrade_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moby/spdystream/spdy"

	"github.com/wherry-project/wherry/internal/upgrade"
)

// frames are SPDY frames as a client writes them.
func frames(f *testing.F, write func(w *spdy.Framer) error) []byte {
	var b bytes.Buffer
	w, err := spdy.NewFramer(&b, &b)
	if err == nil {
		err = write(w)
	}
	if err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

// FuzzSPDY sends what the fuzzer likes where SPDY frames should be: after the
// upgrade of exec and of port-forward, whose streams are told apart by headers.
func FuzzSPDY(f *testing.F) {
	mux := http.NewServeMux()
	mux.HandleFunc("/exec", func(w http.ResponseWriter, r *http.Request) {
		err := upgrade.Exec(w, r, upgrade.Options{Stdin: true, Stdout: true, Stderr: true}, func(ctx context.Context, s upgrade.Streams) (int, error) {
			_, err := io.Copy(s.Stdout, s.Stdin)
			return 0, err
		})
		if err != nil && !upgrade.Answered(err) {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/forward", func(w http.ResponseWriter, r *http.Request) {
		err := upgrade.PortForward(w, r, func(context.Context, uint16) (net.Conn, error) { return nil, errors.New("nobody listens") })
		if err != nil && !upgrade.Answered(err) {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	srv := httptest.NewServer(mux)
	f.Cleanup(srv.Close)
	open := func(headers http.Header) []byte {
		return frames(f, func(w *spdy.Framer) error {
			return w.WriteFrame(&spdy.SynStreamFrame{StreamId: 1, Headers: headers})
		})
	}
	f.Add(false, open(http.Header{"Streamtype": {"stdin"}}))
	f.Add(false, open(http.Header{"Streamtype": {"error"}}))
	f.Add(false, open(http.Header{"Streamtype": {"nothing"}}))
	f.Add(true, open(http.Header{"Streamtype": {"data"}, "Port": {"99999"}, "Requestid": {"x"}}))
	f.Add(true, open(http.Header{"Streamtype": {"error"}, "Port": {"80"}, "Requestid": {"0"}}))
	f.Add(true, frames(f, func(w *spdy.Framer) error { return w.WriteFrame(&spdy.PingFrame{Id: 1}) }))
	f.Add(true, binary.BigEndian.AppendUint32([]byte{0x80, 3, 0, 1}, 0x00ffffff))
	f.Fuzz(func(t *testing.T, forward bool, msg []byte) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		path, protocol := "/exec", "v4.channel.k8s.io"
		if forward {
			path, protocol = "/forward", "portforward.k8s.io"
		}
		head := "POST " + path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: " + protocol + "\r\nContent-Length: 0\r\n\r\n"
		if _, err := conn.Write(append([]byte(head), msg...)); err != nil {
			return
		}
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 101" {
			t.Errorf("upgrade: %q, %v", answer, err)
		}
		if err := conn.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite() // the server may have gone
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<20)) // until the server or the time ends it
	})
}
