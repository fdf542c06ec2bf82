package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/gateway"
)

// TestHeldWatch: a watch ends when whoever has it is believed no more, and a
// request that is short is not held.
func TestHeldWatch(t *testing.T) {
	held := make(chan context.CancelCauseFunc, 10)
	c := start(t, options{config: func(g *gateway.Config) {
		g.Hold = func(ctx context.Context, s *tls.ConnectionState) (context.Context, func()) {
			if s == nil || len(s.PeerCertificates) == 0 {
				t.Error("held without a certificate")
			}
			ctx, end := context.WithCancelCause(ctx)
			held <- end
			return ctx, func() { end(nil) }
		}
	}})
	client := c.client(t, nil)
	if _, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(held) != 0 {
		t.Error("a list is held")
	}
	w, err := client.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	late := time.After(30 * time.Second)
	select {
	case end := <-held:
		end(errors.New("out"))
	case <-late:
		t.Fatal("the watch is not held")
	}
	for {
		select {
		case _, open := <-w.ResultChan():
			if !open {
				return
			}
		case <-late:
			t.Fatal("the watch goes on")
		}
	}
}
