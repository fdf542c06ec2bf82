package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

// echo is a service of sessions that answers every message, and knows nothing
// of who may call: that is the interceptors'.
type echo struct {
	wherryv1.UnimplementedNodesServer
}

func (echo) Session(s grpc.BidiStreamingServer[wherryv1.SessionRequest, wherryv1.SessionResponse]) error {
	said := make(chan error, 1)
	go func() { // ends with the stream
		for {
			_, err := s.Recv()
			if err == nil {
				err = s.Send(&wherryv1.SessionResponse{})
			}
			if err != nil {
				said <- err
				return
			}
		}
	}()
	select {
	case err := <-said:
		return err
	case <-s.Context().Done():
		return s.Context().Err()
	}
}

type session = grpc.BidiStreamingClient[wherryv1.SessionRequest, wherryv1.SessionResponse]

// ask says something and waits for the answer.
func ask(s session) error {
	if err := s.Send(&wherryv1.SessionRequest{}); err != nil {
		return err
	}
	_, err := s.Recv()
	return err
}

// machine is a node that has joined.
type machine struct {
	joiner
	cluster wherryv1.ClusterClient
	session session
	self    pki.Peer
}

func (b *bed) machine(token pki.Token, name string) machine {
	b.t.Helper()
	j := newJoiner(token, node, name)
	r, err := b.join(token, j)
	if err != nil {
		b.t.Fatal(err)
	}
	keys := must(pki.SaveKeyPair(b.t.TempDir(), j.key, r.GetCertificate(), r.GetCa()))
	conn := b.dial(credentials.NewTLS(keys.ClientConfig(nil)))
	m := machine{joiner: j, cluster: wherryv1.NewClusterClient(conn), self: keys.Self()}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	b.t.Cleanup(cancel)
	if m.session, err = wherryv1.NewNodesClient(conn).Session(ctx); err != nil {
		b.t.Fatal(err)
	}
	if err := ask(m.session); err != nil {
		b.t.Fatal(err)
	}
	admin := b.api.As(api.User{Name: "root", Groups: []string{pki.MastersGroup}})
	if _, err := admin.Create(b.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// keepsPins ends what is no longer believed, as a controld does, until the test
// ends.
func (b *bed) keepsPins() {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.server.FollowIdentities(ctx, b.users.Recheck) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
}

// TestRemovedNode: its old certificate is worth nothing, and what it has open
// ends at once; others do not notice.
func TestRemovedNode(t *testing.T) {
	b := newBed(t)
	b.keepsPins()
	token := b.token(node, 0)
	lost, other := b.machine(token, "n1"), b.machine(token, "n2")
	if _, err := other.cluster.RemoveNode(t.Context(), &wherryv1.RemoveNodeRequest{Name: "n1"}); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("a node removes another: %v", err)
	}
	if _, err := b.admin().RemoveNode(t.Context(), &wherryv1.RemoveNodeRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := lost.session.Recv(); !errors.Is(err, apierr.ErrUnauthorized) {
		t.Errorf("the session of a removed node ends with %v", err)
	}
	if err := b.pins.Check(lost.self); !errors.Is(err, pki.ErrPinned) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a removed node passes: %v", err)
	}
	csr := must(pki.NewCSR(lost.key, "anything", nil, nil))
	if _, err := lost.cluster.Renew(t.Context(), &wherryv1.RenewRequest{Csr: csr}); !errors.Is(err, apierr.ErrUnauthorized) {
		t.Errorf("a removed node renews: %v", err)
	}
	if _, there := must(b.store.Snapshot(t.Context(), store.At{})).Get(api.Key{Resource: "nodes", Name: "n1"}); there {
		t.Error("the Node of a removed node stays")
	}
	if err := ask(other.session); err != nil {
		t.Errorf("another node's session: %v", err)
	}
	if _, err := b.admin().RemoveNode(t.Context(), &wherryv1.RemoveNodeRequest{Name: "n1"}); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
	if _, err := b.join(token, lost.joiner); err != nil { // with its key of before
		t.Errorf("joining again: %v", err)
	}
	if err := b.pins.Check(lost.self); err != nil {
		t.Errorf("a node that joined again: %v", err)
	}
}

// TestTokenKey: administrators alone change the key of tokens.
func TestTokenKey(t *testing.T) {
	b := newBed(t)
	if r, err := b.admin().RotateTokenKey(t.Context(), &wherryv1.RotateTokenKeyRequest{}); err != nil || r.GetKey() != "k2" || r.GetBelieved() != 2 {
		t.Errorf("%v, %v", r, err)
	}
	m := b.machine(b.token(node, 0), "n1")
	if _, err := m.cluster.RotateTokenKey(t.Context(), &wherryv1.RotateTokenKeyRequest{}); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("a node rotates the token key: %v", err)
	}
}

// TestHalfRemovedNode: a removal that broke off goes on when it is done again.
func TestHalfRemovedNode(t *testing.T) {
	b := newBed(t)
	lost := b.machine(b.token(node, 0), "n1")
	if _, err := b.admin().RemoveNode(t.Context(), &wherryv1.RemoveNodeRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	admin := b.api.As(api.User{Name: "root", Groups: []string{pki.MastersGroup}})
	if _, err := admin.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.admin().RemoveNode(t.Context(), &wherryv1.RemoveNodeRequest{Name: "n1"}); err != nil {
		t.Error(err)
	}
	if _, there := must(b.store.Snapshot(t.Context(), store.At{})).Get(api.Key{Resource: "nodes", Name: "n1"}); there {
		t.Error("the Node stays")
	}
	// Nobody follows the identities here: the session goes on, and a check
	// that is asked for ends it.
	b.users.Recheck()
	if _, err := lost.session.Recv(); !errors.Is(err, apierr.ErrUnauthorized) {
		t.Errorf("the session of a removed node ends with %v", err)
	}
}
