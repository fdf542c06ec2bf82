package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/wherry-project/wherry/internal/api"
)

// What the headers of SPDY streams say.
const (
	streamType = "streamType"
	asError    = "error"
	asStdin    = "stdin"
	asStdout   = "stdout"
	asStderr   = "stderr"
	asResize   = "resize"
	asData     = "data"
)

func spdyProtocols() []string {
	return []string{v4, "v3.channel.k8s.io", "v2.channel.k8s.io", v1}
}

// opened is a stream that the client has opened.
type opened struct {
	httpstream.Stream
	replied <-chan struct{}
}

// maxStreams bounds the streams that wait to be looked at.
const maxStreams = 64

// upgradeSPDY answers the request and gives the streams that the client opens.
func upgradeSPDY(w http.ResponseWriter, r *http.Request, protocols []string) (httpstream.Connection, <-chan opened, string, error) {
	protocol, err := httpstream.Handshake(r, w, protocols)
	if err != nil {
		return nil, nil, "", errAnswered{err}
	}
	streams := make(chan opened, maxStreams)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, collect(r.Context(), streams))
	if conn == nil {
		return nil, nil, "", errAnswered{fmt.Errorf("the connection could not be upgraded to SPDY")}
	}
	return conn, streams, protocol, nil
}

// collect hands over new streams; what nobody takes in time is turned away.
func collect(ctx context.Context, streams chan<- opened) httpstream.NewStreamHandler {
	return func(s httpstream.Stream, replied <-chan struct{}) error {
		t := time.NewTimer(openWait)
		defer t.Stop()
		select {
		case streams <- opened{s, replied}:
			return nil
		case <-t.C:
			return fmt.Errorf("too many streams")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func execSPDY(w http.ResponseWriter, r *http.Request, o Options, run Session) error {
	conn, incoming, protocol, err := upgradeSPDY(w, r, spdyProtocols())
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-conn.CloseChan():
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-gone }()

	resize := o.TTY && protocol != v1 && protocol != "v2.channel.k8s.io"
	by, err := await(ctx, incoming, wanted(o, resize))
	if err != nil {
		return errAnswered{err}
	}
	var s Streams
	if in := by[asStdin]; in != nil {
		s.Stdin = in
	}
	if out := by[asStdout]; out != nil {
		s.Stdout = out
	}
	if out := by[asStderr]; out != nil {
		s.Stderr = out
	}
	sized := make(chan struct{})
	if in := by[asResize]; in != nil {
		c := newSizes()
		s.Resize = c
		go func() { defer close(sized); readSizes(in, c) }()
	} else {
		close(sized)
	}
	exit, err := run(ctx, s)
	err = writeOutcome(by[asError], outcome(exit, err), protocol == v4)
	conn.Close()
	<-sized
	if err != nil {
		return errAnswered{err}
	}
	return nil
}

// wanted are the streams that the client will open.
func wanted(o Options, resize bool) map[string]bool {
	return map[string]bool{asError: true, asStdin: o.Stdin, asStdout: o.Stdout, asStderr: o.Stderr && !o.TTY, asResize: resize}
}

// await waits until the client has opened all streams wanted.
func await(ctx context.Context, incoming <-chan opened, want map[string]bool) (map[string]httpstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	by := map[string]httpstream.Stream{}
	missing := 0
	for _, w := range want {
		if w {
			missing++
		}
	}
	for missing > 0 {
		select {
		case s := <-incoming:
			kind := s.Headers().Get(streamType)
			if !want[kind] || by[kind] != nil {
				s.Reset()
				continue
			}
			select {
			case <-s.replied:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			by[kind] = s.Stream
			missing--
		case <-ctx.Done():
			return nil, fmt.Errorf("the client did not open its streams: %w", ctx.Err())
		}
	}
	return by, nil
}

// readSizes reads the sizes of a terminal until the stream ends.
func readSizes(r io.Reader, c sizes) {
	defer close(c)
	d := json.NewDecoder(r)
	for {
		var size api.TerminalSize
		if err := d.Decode(&size); err != nil {
			return
		}
		c.put(size)
	}
}
