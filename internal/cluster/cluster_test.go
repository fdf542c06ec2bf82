package cluster_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
)

func TestJoinIsRefused(t *testing.T) {
	b := newBed(t)
	nodes, controls := b.token(node, 0), b.token(control, 0)
	if _, err := b.join(nodes, newJoiner(nodes, node, "n1")); err != nil {
		t.Fatal(err)
	}
	_, err := b.api.As(api.User{Name: "admin", Groups: []string{pki.MastersGroup}}).Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	other := must(pki.NewAuthority("other", time.Now()))
	foreign := must(pki.NewToken(other.Hash()))
	unknown := must(pki.NewToken(b.ca.Hash()))
	wrong := nodes
	wrong.Secret = unknown.Secret
	for _, tt := range []struct {
		name   string
		token  pki.Token
		change func(*wherryv1.JoinRequest)
		role   wherryv1.Role
		host   string
		want   string
		kind   apierr.Kind
	}{
		{"another cluster's token", foreign, nil, node, "n2", "join token is for another cluster", apierr.ErrUnavailable},
		{"malformed token", nodes, func(r *wherryv1.JoinRequest) { r.Token = "abc" }, node, "n2", "malformed join token", apierr.ErrBadRequest},
		{"unknown token", unknown, nil, node, "n2", "no token", apierr.ErrUnauthorized},
		{"wrong secret", wrong, nil, node, "n2", "wrong secret", apierr.ErrUnauthorized},
		{"a node's token for a control", nodes, nil, control, "c2", "for joining as node, not as control", apierr.ErrUnauthorized},
		{"a control's token for a node", controls, nil, node, "n2", "for joining as control, not as node", apierr.ErrUnauthorized},
		{"no role", nodes, nil, 0, "n2", "role: must be", apierr.ErrBadRequest},
		{"a name that cannot be", nodes, nil, node, "N_2", `name "N_2"`, apierr.ErrBadRequest},
		{"a node's name is taken", nodes, nil, node, "n1", "kubectl delete node n1", apierr.ErrConflict},
		{"a control's name is taken", controls, nil, control, "c1", "taken by member c1-0, which answers", apierr.ErrConflict},
		{"no request for a certificate", nodes, func(r *wherryv1.JoinRequest) { r.Csr = []byte("x") }, node, "n2", "certificate request", apierr.ErrBadRequest},
		{"a control without address", controls, func(r *wherryv1.JoinRequest) { r.Address = "x" }, control, "c2", "must be HOST:PORT", apierr.ErrBadRequest},
		{"a control that is nowhere", controls, func(r *wherryv1.JoinRequest) { r.Address = "0.0.0.0:7443" }, control, "c2", "advertise-address", apierr.ErrBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJoiner(tt.token, tt.role, tt.host)
			if tt.change != nil {
				tt.change(j.req)
			}
			_, err := b.join(tt.token, j)
			if err == nil || !strings.Contains(err.Error(), tt.want) || apierr.KindOf(err) != tt.kind {
				t.Errorf("got %v (%s), want %q (%s)", err, apierr.KindOf(err), tt.want, tt.kind)
			}
		})
	}
}

func TestExpiredToken(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 60)
	b.clock.Add(time.Minute)
	_, err := b.join(token, newJoiner(token, node, "n1"))
	if err == nil || !strings.Contains(err.Error(), "expired join token") {
		t.Errorf("got %v", err)
	}
	b.token(node, 0) // and this takes the old one away
	snap := must(b.store.Snapshot(t.Context(), store.At{}))
	if _, there := snap.Get(api.Key{Resource: "secrets", Namespace: "kube-system", Name: "bootstrap-token-" + token.ID}); there {
		t.Error("the expired token is still there")
	}
}

func TestTokenIsNotKept(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 0)
	snap := must(b.store.Snapshot(t.Context(), store.At{}))
	r, ok := snap.Get(api.Key{Resource: "secrets", Namespace: "kube-system", Name: "bootstrap-token-" + token.ID})
	if !ok {
		t.Fatal("the token is not there")
	}
	if strings.Contains(string(r.Bytes), token.Secret) {
		t.Error("the secret is in the store")
	}
	for _, tt := range []struct {
		who  pki.Request
		r    *wherryv1.CreateTokenRequest
		want apierr.Kind
	}{
		{pki.Request{User: "joe", Groups: []string{"staff"}}, &wherryv1.CreateTokenRequest{Role: node}, apierr.ErrForbidden},
		{pki.AdminRequest(), &wherryv1.CreateTokenRequest{}, apierr.ErrBadRequest},
		{pki.AdminRequest(), &wherryv1.CreateTokenRequest{Role: node, TtlSeconds: 59}, apierr.ErrBadRequest},
		{pki.AdminRequest(), &wherryv1.CreateTokenRequest{Role: node, TtlSeconds: 366 * 24 * 3600}, apierr.ErrBadRequest},
	} {
		if _, err := b.as(tt.who).CreateToken(t.Context(), tt.r); apierr.KindOf(err) != tt.want {
			t.Errorf("%s, %v: got %v, want %s", tt.who.User, tt.r, err, tt.want)
		}
	}
}

func TestNodeJoins(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 0)
	own, theirs := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1")
	j := newJoiner(token, node, "n1", own, theirs, settings.FirstService())
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	if r.GetMemberId() != "" || r.GetPodCidr() != "10.244.0.0/16" || r.GetClusterDomain() != "cluster.local" || !slices.Equal(r.GetControls(), []string{"127.0.0.1:1"}) {
		t.Errorf("answer: %v", r)
	}
	keys := must(pki.SaveKeyPair(t.TempDir(), j.key, r.GetCertificate(), r.GetCa()))
	if got := keys.Self(); got.User != "system:node:n1" || !slices.Equal(got.Groups, []string{"system:nodes"}) {
		t.Errorf("certificate of %+v", got)
	}
	leaf := keys.Leaf()
	for name, want := range map[string]bool{
		"n1": true, "192.0.2.7": true, "cluster.example": false, "192.0.2.1": false, "kubernetes": false, "10.96.0.1": false, "localhost": false,
	} {
		if got := leaf.VerifyHostname(name) == nil; got != want {
			t.Errorf("serves as %s: %v, want %v", name, got, want)
		}
	}
	again, err := b.join(token, j) // the answer was lost
	if err != nil || len(again.GetCertificate()) == 0 {
		t.Errorf("the same key again: %v", err)
	}
	reinstalled := newJoiner(token, node, "n1") // and its Node was deleted
	if _, err := b.join(token, reinstalled); err != nil {
		t.Errorf("another key after the node was deleted: %v", err)
	}
	c := b.with(j.key, r.GetCertificate())
	if _, err := c.Renew(t.Context(), &wherryv1.RenewRequest{}); !errors.Is(err, apierr.ErrUnauthorized) {
		t.Errorf("the key of before still passes: %v", err)
	}
}

func TestRenew(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 0)
	j := newJoiner(token, node, "n1")
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	c := b.with(j.key, r.GetCertificate())
	renewed, err := c.Renew(t.Context(), &wherryv1.RenewRequest{Csr: j.req.GetCsr()})
	if err != nil || slices.Equal(renewed.GetCertificate(), r.GetCertificate()) {
		t.Errorf("renewed: %v", err)
	}
	b.clock.Add(400 * 24 * time.Hour) // an expired node renews all the same
	if _, err := c.Renew(t.Context(), &wherryv1.RenewRequest{Csr: j.req.GetCsr()}); err != nil {
		t.Errorf("after a year: %v", err)
	}
	b.clock.Add(-400 * 24 * time.Hour)
	foreign := must(pki.NewCSR(must(pki.NewKey()), "n1", nil, nil))
	for name, tt := range map[string]struct {
		c    wherryv1.ClusterClient
		csr  []byte
		want apierr.Kind
	}{
		"another key":              {c, foreign, apierr.ErrForbidden},
		"a user":                   {b.admin(), foreign, apierr.ErrForbidden},
		"nobody":                   {b.client(credentials.NewTLS(pki.JoinConfig(token))), foreign, apierr.ErrUnauthorized},
		"a node that never joined": {b.as(pki.NodeRequest("n9", []string{"n9"}, nil)), foreign, apierr.ErrUnauthorized},
	} {
		if _, err := tt.c.Renew(t.Context(), &wherryv1.RenewRequest{Csr: tt.csr}); apierr.KindOf(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}
