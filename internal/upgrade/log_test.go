package upgrade_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/wherry-project/wherry/internal/upgrade"
)

// logServer serves one log, and tells when a handler has returned.
func logServer(t *testing.T, from func() io.ReadCloser) (string, <-chan error) {
	t.Helper()
	done := make(chan error, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log := from()
		err := upgrade.Log(w, r, log)
		if err != nil && !upgrade.Answered(err) {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
		log.Close()
		done <- err
	}))
	t.Cleanup(srv.Close)
	return srv.URL, done
}

func TestLogOverWebSocket(t *testing.T) {
	text := strings.Repeat("a line of a log\n", 5000)
	url, done := logServer(t, func() io.ReadCloser { return io.NopCloser(strings.NewReader(text)) })
	for _, protocol := range []string{"", "binary.k8s.io", "base64.binary.k8s.io"} {
		o := &websocket.DialOptions{}
		if protocol != "" {
			o.Subprotocols = []string{protocol}
		}
		c, resp, err := websocket.Dial(t.Context(), url, o)
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(1 << 20)
		if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != protocol {
			t.Errorf("chose %q, want %q", got, protocol)
		}
		var got strings.Builder
		for n := 0; ; n++ {
			kind, b, err := c.Read(t.Context())
			if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 && len(b) > 0 {
				t.Errorf("%s: the first message is %q", protocol, b)
			}
			if protocol == "base64.binary.k8s.io" {
				if b, err = base64.StdEncoding.DecodeString(string(b)); err != nil || kind != websocket.MessageText {
					t.Fatalf("%v, %v", err, kind)
				}
			}
			got.Write(b)
		}
		c.CloseNow()
		if got.String() != text {
			t.Errorf("%s: %d bytes, want %d", protocol, got.Len(), len(text))
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
	}
	if _, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"v4.channel.k8s.io"}}); err == nil || resp.StatusCode != 400 {
		t.Errorf("another protocol: %v %v", resp, err)
	}
	<-done
}

// TestLogEndsWithItsClient: a followed log that says nothing ends when its
// client goes, and one that breaks does not end like one that is over.
func TestLogEndsWithItsClient(t *testing.T) {
	r, w := io.Pipe()
	url, done := logServer(t, func() io.ReadCloser { return r })
	c, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.CloseNow()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the log outlives its client")
	}
	w.Close()

	r, w = io.Pipe()
	go func() {
		io.WriteString(w, "half a line")
		w.CloseWithError(errors.New("the node went away"))
	}()
	if c, _, err = websocket.Dial(t.Context(), url, nil); err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	got := ""
	for {
		_, b, err := c.Read(t.Context())
		if err != nil {
			if websocket.CloseStatus(err) == websocket.StatusNormalClosure || got != "half a line" {
				t.Errorf("ended with %v after %q", err, got)
			}
			break
		}
		got += string(b)
	}
	<-done
}
