package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/gateway"
)

// TestWatchOverWebSocket watches as browsers do: a message for each event.
func TestWatchOverWebSocket(t *testing.T) {
	c := start(t, options{})
	client := c.http(t, c.admin)
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = false // WebSockets are of HTTP/1.1
	dial := func(query, accept string, protocols ...string) *websocket.Conn {
		t.Helper()
		conn, _, err := websocket.Dial(t.Context(), "wss"+strings.TrimPrefix(c.url, "https")+maps+"?watch=1"+query, &websocket.DialOptions{
			HTTPClient: client, HTTPHeader: http.Header{"Accept": {accept}}, Subprotocols: protocols,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() }) // the test may have closed it
		return conn
	}
	inJSON := dial("", "application/json", "binary.k8s.io")
	if inJSON.Subprotocol() != "binary.k8s.io" {
		t.Errorf("subprotocol %q", inJSON.Subprotocol())
	}
	inProto := dial("", api.MediaProtobuf)
	brief := dial("&timeoutSeconds=1", "application/json")
	if a := c.do(t, "POST", maps, `{"metadata":{"name":"ws"}}`); a.StatusCode != 201 {
		t.Fatal(a.text)
	}
	typ, b, err := inJSON.Read(t.Context())
	var e struct {
		Type   string
		Object corev1.ConfigMap
	}
	if err != nil || typ != websocket.MessageText || json.Unmarshal(b, &e) != nil || e.Type != "ADDED" || e.Object.Name != "ws" {
		t.Errorf("%v %s, %v", typ, b, err)
	}
	typ, b, err = inProto.Read(t.Context())
	var w metav1.WatchEvent
	if err != nil || typ != websocket.MessageBinary || w.Unmarshal(b) != nil || w.Type != "ADDED" {
		t.Errorf("%v %q, %v", typ, b, err)
	}
	if err := inJSON.Write(t.Context(), websocket.MessageText, []byte("something")); err != nil { // thrown away
		t.Error(err)
	}
	if a := c.do(t, "DELETE", maps+"/ws", ""); a.StatusCode != 200 {
		t.Fatal(a.text)
	}
	if _, b, err = inJSON.Read(t.Context()); err != nil || !strings.Contains(string(b), `"type":"DELETED"`) {
		t.Errorf("%s, %v", b, err)
	}
	if err := inJSON.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	for err = nil; err == nil; {
		_, _, err = brief.Read(t.Context())
	}
	if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("a watch whose time is over ended with %v", err)
	}
}

// TestUnreadWebSocket ends a watch whose client does not read.
func TestUnreadWebSocket(t *testing.T) {
	c := start(t, options{config: func(cfg *gateway.Config) { cfg.Limits.Unread = 300 * time.Millisecond }})
	client := c.http(t, c.admin)
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	conn, _, err := websocket.Dial(t.Context(), "wss"+strings.TrimPrefix(c.url, "https")+maps+"?watch=1", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(-1)
	big := strings.Repeat("x", 900<<10)
	for i := range 12 {
		if a := c.do(t, "PUT", maps+"/big", `{"metadata":{"name":"big"},"data":{"k":"`+string(rune('a'+i))+big+`"}}`); a.StatusCode >= 300 && i > 0 {
			t.Fatal(a.text)
		} else if i == 0 {
			c.do(t, "POST", maps, `{"metadata":{"name":"big"}}`)
		}
	}
	c.watched(t, 0) // before anything is read
	for err = nil; err == nil; {
		_, _, err = conn.Read(t.Context())
	}
	if t.Context().Err() != nil {
		t.Error("the watch was not ended")
	}
}
