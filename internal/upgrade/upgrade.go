// Package upgrade serves the streams of kubectl exec, attach and port-forward:
// HTTP connections that are upgraded to WebSocket channels, to SPDY streams, or
// to SPDY inside WebSocket messages. It knows the protocols only; who may, and
// which pod is meant, is the caller's business.
package upgrade

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

const (
	// writeWait is how long a client may take to read a message.
	writeWait = 60 * time.Second
	// openWait is how long a client may take to open its streams.
	openWait = 30 * time.Second
)

// Requested reports whether a request asks for an upgrade.
func Requested(r *http.Request) bool {
	return httpstream.IsUpgradeRequest(r) && r.Header.Get(httpstream.HeaderUpgrade) != ""
}

func isWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get(httpstream.HeaderUpgrade), "websocket")
}

func isSPDY(r *http.Request) bool {
	return strings.Contains(strings.ToLower(r.Header.Get(httpstream.HeaderUpgrade)), "spdy/3.1")
}

// errNoUpgrade answers a request that is not one of ours; kubectl then tries
// the other protocol.
func errNoUpgrade(r *http.Request) error {
	if !Requested(r) {
		return apierr.BadRequest("Upgrade request required")
	}
	return apierr.BadRequest("unable to upgrade: %q is not supported; use websocket or SPDY/3.1", r.Header.Get(httpstream.HeaderUpgrade))
}

// outcome is the Status that ends an exec: success, the exit code, or why the
// command did not run.
func outcome(exit int, err error) metav1.Status {
	switch {
	case err != nil:
		s := apierr.StatusOf(err)
		return s
	case exit == 0:
		return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}
	}
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Reason:   "NonZeroExitCode",
		Message:  fmt.Sprintf("command terminated with non-zero exit code: exit status %d", exit),
		Details:  &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: strconv.Itoa(exit)}}},
	}
}

// writeOutcome writes the Status to the error stream: as JSON since version 4
// of the protocol, as the text of a failure before.
func writeOutcome(w io.Writer, s metav1.Status, asJSON bool) error {
	if !asJSON {
		if s.Status == metav1.StatusSuccess {
			return nil
		}
		_, err := io.WriteString(w, s.Message)
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// sizes carries the newest size of a terminal; older ones that nobody has
// taken are dropped.
type sizes chan api.TerminalSize

func newSizes() sizes { return make(sizes, 1) }

// put is called by one goroutine only.
func (c sizes) put(s api.TerminalSize) {
	for {
		select {
		case c <- s:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}
