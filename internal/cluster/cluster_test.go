package cluster_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/bootstrap"
	"github.com/wherry-project/wherry/internal/cluster"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

// fakeRaft keeps a list of members.
type fakeRaft struct {
	mu      sync.Mutex
	members []raftstore.Member
	moved   int
	there   map[string]bool // addresses that answer
}

// ask asks whether somebody is at an address.
func (f *fakeRaft) ask(_ context.Context, address string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.there[address] {
		return errors.New("nobody there")
	}
	return nil
}

func (f *fakeRaft) answers(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.there == nil {
		f.there = map[string]bool{}
	}
	f.there[address] = true
}

func (f *fakeRaft) Members() []raftstore.Member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.members)
}

func (f *fakeRaft) AddMember(_ context.Context, id, address string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, raftstore.Member{ID: id, Address: address, Voter: true})
	return nil
}

func (f *fakeRaft) RemoveMember(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = slices.DeleteFunc(f.members, func(m raftstore.Member) bool { return m.ID == id })
	return nil
}

func (f *fakeRaft) TransferLeadership(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved++
	return nil
}

func (f *fakeRaft) Revision() uint64 { return 7 }

// bed is a cluster of one member that serves on loopback.
type bed struct {
	t       *testing.T
	ca      *pki.Authority
	store   store.Store
	raft    *fakeRaft
	api     *apiserver.Server
	pins    *cluster.Pins
	keyring *cluster.Keyring
	users   *authn.Authenticator
	server  *cluster.Server
	address string
	clock   *clock
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var settings = cluster.Settings{
	ClusterID: "test", Domain: "cluster.local",
	PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newBed(t *testing.T) *bed {
	table := kinds.Table()
	codec := api.NewCodec(table, 0)
	key := must(pki.NewKey()).(*ecdsa.PrivateKey)
	keyring := cluster.NewKeyring(must(key.ECDH()), must(pki.KeyHash(key.Public())))
	b := &bed{
		t: t, store: store.NewLocalSealed(codec, keyring), keyring: keyring, pins: &cluster.Pins{}, clock: &clock{now: time.Now()},
		ca:   must(pki.NewAuthority("test", time.Now())),
		raft: &fakeRaft{members: []raftstore.Member{{ID: "c1-0", Address: "127.0.0.1:1", Voter: true, Leader: true}}},
	}
	keyring.Use(b.store)
	names, addrs := pki.ServerNames([]string{"c1", "cluster.example"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, settings.FirstService(), settings.Domain)
	cert := must(b.ca.Sign(key.Public(), pki.MemberRequest("c1", names, addrs), time.Now()))
	keys := must(pki.SaveKeyPair(t.TempDir(), key, cert, b.ca.Certificate().Raw))
	records := must(cluster.Found(b.ca, settings, cluster.Founder{
		Name: "c1", Member: "c1-0", Key: keys.Self().Key, Names: names, Addresses: addrs, Public: keys.PublicDER(), Keyring: keyring,
	}))
	ranges := alloc.New(alloc.Config{Services: settings.ServiceCIDR, Pods: settings.PodCIDR, NodeBits: 24, FirstPort: 30000, LastPort: 32767, DNS: settings.DNS()})
	err := bootstrap.Write(t.Context(), b.store, bootstrap.Config{Kinds: table, Alloc: ranges, DNS: settings.DNS(), APIPort: 6443, Now: time.Now()}, records...)
	if err != nil {
		t.Fatal(err)
	}
	b.pins.Use(b.store)
	b.api = apiserver.New(apiserver.Config{Store: b.store, Codec: codec, Alloc: ranges})
	verifier := pki.NewVerifier(b.ca.Certificate(), b.pins.Check, b.clock.Now)
	users := authn.New(authn.Config{Verifier: verifier, Authorize: b.api.Authorize})
	b.users = users
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(keys.ServerConfig())),
		grpc.ChainUnaryInterceptor(apierr.ServerUnary, users.ServerUnary(wherryv1.Cluster_Join_FullMethodName)),
		grpc.ChainStreamInterceptor(apierr.ServerStream, users.ServerStream()))
	b.server = cluster.New(cluster.Config{
		Store: b.store, Keyring: keyring, Version: "v1", Members: b.raft, Self: "c1-0", Identify: users.Call, Peer: verifier.FromContext,
		As:           func(u api.User) cluster.Door { return b.api.As(u) },
		Ask:          b.raft.ask,
		RotateTokens: func(context.Context) (string, int, error) { return "k2", 2, nil },
		Now:          b.clock.Now, Log: slog.New(slog.DiscardHandler),
	})
	wherryv1.RegisterClusterServer(srv, b.server)
	wherryv1.RegisterNodesServer(srv, echo{})
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	b.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return b
}

// client connects with a TLS configuration.
func (b *bed) client(conf credentials.TransportCredentials) wherryv1.ClusterClient {
	return wherryv1.NewClusterClient(b.dial(conf))
}

func (b *bed) dial(conf credentials.TransportCredentials) *grpc.ClientConn {
	conn := must(grpc.NewClient(b.address, grpc.WithTransportCredentials(conf),
		grpc.WithChainUnaryInterceptor(apierr.ClientUnary), grpc.WithChainStreamInterceptor(apierr.ClientStream)))
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// as connects with a certificate for a request, made by the cluster's CA.
func (b *bed) as(r pki.Request) wherryv1.ClusterClient {
	key := must(pki.NewKey())
	return b.with(key, must(b.ca.Sign(key.Public(), r, time.Now())))
}

func (b *bed) with(key crypto.Signer, cert []byte) wherryv1.ClusterClient {
	keys := must(pki.SaveKeyPair(b.t.TempDir(), key, cert, b.ca.Certificate().Raw))
	return b.client(credentials.NewTLS(keys.ClientConfig(nil)))
}

func (b *bed) admin() wherryv1.ClusterClient { return b.as(pki.AdminRequest()) }

// token makes a token through the service.
func (b *bed) token(role wherryv1.Role, ttl int64) pki.Token {
	r, err := b.admin().CreateToken(b.t.Context(), &wherryv1.CreateTokenRequest{Role: role, TtlSeconds: ttl})
	if err != nil {
		b.t.Fatal(err)
	}
	return must(pki.ParseToken(r.GetToken()))
}

// joiner is a machine on its way in.
type joiner struct {
	key crypto.Signer
	req *wherryv1.JoinRequest
}

func newJoiner(token pki.Token, role wherryv1.Role, name string, addrs ...netip.Addr) joiner {
	key := must(pki.NewKey())
	return joiner{key, &wherryv1.JoinRequest{
		Token: token.Presented(), Role: role, Name: name, Address: "192.0.2.9:7443",
		Csr: must(pki.NewCSR(key, "anything", []string{"cluster.example", name}, addrs)),
	}}
}

func (b *bed) join(token pki.Token, j joiner) (*wherryv1.JoinResponse, error) {
	return b.client(credentials.NewTLS(pki.JoinConfig(token))).Join(b.t.Context(), j.req)
}

const (
	node    = wherryv1.Role_ROLE_NODE
	control = wherryv1.Role_ROLE_CONTROL
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

func TestControlJoinsEntersAndIsRemoved(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	j := newJoiner(token, control, "c2", netip.MustParseAddr("192.0.2.9"))
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	id := r.GetMemberId()
	if !strings.HasPrefix(id, "c2-") {
		t.Errorf("member id %q", id)
	}
	if again, err := b.join(token, j); err != nil || again.GetMemberId() != id {
		t.Errorf("again: %v, %v", again, err)
	}
	c := b.with(j.key, r.GetCertificate())
	if _, err := c.Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.admin().Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("a user enters: %v", err)
	}
	m, err := b.admin().Members(t.Context(), &wherryv1.MembersRequest{})
	if err != nil || len(m.GetMembers()) != 2 || m.GetRevision() != 7 {
		t.Fatalf("members: %v, %v", m, err)
	}
	if one, two := m.GetMembers()[0], m.GetMembers()[1]; one.GetName() != "c1" || !one.GetReachable() || two.GetName() != "c2" || two.GetReachable() || two.GetId() != id {
		t.Errorf("members: %v", m)
	}
	for range 2 { // twice is as good as once
		if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: id}); err != nil && !errors.Is(err, apierr.ErrNotFound) {
			t.Fatal(err)
		}
	}
	own := must(pki.SaveKeyPair(t.TempDir(), j.key, r.GetCertificate(), r.GetCa())).Self()
	if err := b.pins.Check(own); !errors.Is(err, pki.ErrPinned) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a removed member passes: %v", err)
	}
	if len(b.raft.Members()) != 1 {
		t.Errorf("members: %v", b.raft.Members())
	}
	if _, err := c.Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a removed member enters: %v", err)
	}
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"}); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("the last member goes: %v", err)
	}
	if _, err := b.join(token, j); err != nil { // with its key of before
		t.Errorf("joining again: %v", err)
	}
	if _, err := c.Enter(t.Context(), &wherryv1.EnterRequest{Address: "192.0.2.9:7443"}); err != nil {
		t.Errorf("entering again: %v", err)
	}
	for r := range must(b.store.Snapshot(t.Context(), store.At{})).Scan("identities.internal.wherry", "", api.Key{}) {
		if strings.HasPrefix(r.Name, "removed:") {
			t.Errorf("%s: the mark stays after the member is back", r.Name)
		}
	}
}

// TestNodeCannotPassForAMember: a node that calls itself as a member, or as the
// one name of all members, must not be able to serve as that.
func TestNodeCannotPassForAMember(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 0)
	for _, name := range []string{"c1", "cluster.example", "kubernetes"} {
		j := newJoiner(token, node, name)
		r, err := b.join(token, j)
		if err != nil {
			t.Fatal(err)
		}
		leaf := must(pki.SaveKeyPair(t.TempDir(), j.key, r.GetCertificate(), r.GetCa())).Leaf()
		if leaf.VerifyHostname(name) == nil {
			t.Errorf("a node serves as %s", name)
		}
		if leaf.VerifyHostname(name+".node.internal.wherry") != nil {
			t.Errorf("node %s serves as nothing", name)
		}
	}
}

// TestReplace has a machine whose disk was wiped join under its name, and later
// lose its data alone: each time its former id is taken out, and its former key
// is no good any more.
func TestReplace(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	const address = "192.0.2.9:7443"
	enter := func(j joiner, r *wherryv1.JoinResponse, id string) {
		t.Helper()
		if _, err := b.with(j.key, r.GetCertificate()).Enter(t.Context(), &wherryv1.EnterRequest{Address: address, MemberId: id}); err != nil {
			t.Fatal(err)
		}
	}
	ids := func() (out []string) {
		for _, m := range b.raft.Members() {
			out = append(out, m.ID)
		}
		return out
	}
	first := newJoiner(token, control, "c2")
	one, err := b.join(token, first)
	if err != nil {
		t.Fatal(err)
	}
	enter(first, one, "")
	b.raft.answers(address)
	wiped := newJoiner(token, control, "c2")
	if _, err := b.join(token, wiped); !errors.Is(err, apierr.ErrConflict) || !strings.Contains(err.Error(), "answers at "+address) {
		t.Errorf("a second one joins under the name of one that runs: %v", err)
	}
	b.raft.there = nil
	two, err := b.join(token, wiped)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.join(token, wiped); err != nil || again.GetMemberId() != two.GetMemberId() {
		t.Errorf("joining again: %v, %v", again, err)
	}
	own := must(pki.SaveKeyPair(t.TempDir(), first.key, one.GetCertificate(), one.GetCa())).Self()
	if err := b.pins.Check(own); !errors.Is(err, pki.ErrPinned) {
		t.Errorf("the former key passes: %v", err)
	}
	enter(wiped, two, "")
	if got := ids(); len(got) != 2 || got[1] != two.GetMemberId() || got[1] == one.GetMemberId() {
		t.Errorf("members %v, want the new one of %s", got, two.GetMemberId())
	}
	const anew = "c2-anew"
	for range 2 {
		enter(wiped, two, anew)
		b.raft.members = slices.Compact(b.raft.members) // the fake adds what is there
	}
	if got := ids(); len(got) != 2 || got[1] != anew {
		t.Errorf("members %v, want %s", got, anew)
	}
	if _, err := b.with(wiped.key, two.GetCertificate()).Enter(t.Context(), &wherryv1.EnterRequest{Address: address, MemberId: "c1-0"}); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("it enters under another's id: %v", err)
	}
}

// TestStrays has members without an identity be taken out, and no others.
func TestStrays(t *testing.T) {
	b := newBed(t)
	token := b.token(control, 0)
	j := newJoiner(token, control, "c2")
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	wiped := newJoiner(token, control, "c2") // its former id waits for the new one
	two, err := b.join(token, wiped)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"c2-stray", r.GetMemberId(), two.GetMemberId()} {
		if err := b.raft.AddMember(t.Context(), id, id); err != nil {
			t.Fatal(err)
		}
	}
	s := cluster.New(cluster.Config{Store: b.store, Members: b.raft, Self: "c1-0", Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.KeepMembers(ctx) }()
	gone := func(id string) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() error {
			for _, m := range b.raft.Members() {
				if m.ID == id {
					return fmt.Errorf("%s is still a member", id)
				}
			}
			return nil
		})
	}
	gone("c2-stray")
	if got := b.raft.Members(); len(got) != 3 {
		t.Errorf("members %v", got)
	}
	b.raft.answers(two.GetMemberId())
	b.raft.answers(r.GetMemberId())
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: two.GetMemberId()}); err != nil {
		t.Fatal(err)
	}
	gone(two.GetMemberId())
	gone(r.GetMemberId())
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOnlyMastersSeeMembers(t *testing.T) {
	b := newBed(t)
	joe := b.as(pki.Request{User: "joe"})
	_, members := joe.Members(t.Context(), &wherryv1.MembersRequest{})
	_, remove := joe.RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"})
	_, transfer := joe.TransferLeadership(t.Context(), &wherryv1.TransferLeadershipRequest{})
	for _, err := range []error{members, remove, transfer} {
		if !errors.Is(err, apierr.ErrForbidden) || !strings.Contains(err.Error(), `user "joe" may not`) {
			t.Errorf("got %v", err)
		}
	}
}

func TestLeaderThatIsRemovedHandsOver(t *testing.T) {
	b := newBed(t)
	b.raft.members = append(b.raft.members, raftstore.Member{ID: "c2-0", Address: "192.0.2.2:7443", Voter: true})
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"}); !errors.Is(err, apierr.ErrConflict) || !strings.Contains(err.Error(), "no majority") {
		t.Errorf("a removal that leaves no majority: %v", err)
	}
	b.raft.answers("192.0.2.2:7443")
	if _, err := b.admin().RemoveMember(t.Context(), &wherryv1.RemoveMemberRequest{Id: "c1-0"}); err != nil {
		t.Fatal(err)
	}
	if b.raft.moved != 1 {
		t.Error("leadership was not handed over")
	}
}

func TestPins(t *testing.T) {
	b := newBed(t)
	token := b.token(node, 0)
	j := newJoiner(token, node, "n1")
	r, err := b.join(token, j)
	if err != nil {
		t.Fatal(err)
	}
	keys := must(pki.SaveKeyPair(t.TempDir(), j.key, r.GetCertificate(), r.GetCa()))
	own := keys.Self()
	other := own
	other.Key = "another"
	stranger := pki.Peer{Role: pki.Node, Name: "n9", Key: "x"}
	behind := pki.Peer{Role: pki.Member, Name: "c9", Key: "x"}
	wrong := pki.Peer{Role: pki.Member, Name: "c1", Key: "x"}
	for name, tt := range map[string]struct {
		peer pki.Peer
		ok   bool
	}{"own key": {own, true}, "another key": {other, false}, "unknown node": {stranger, false}, "unknown member": {behind, true}, "member with another key": {wrong, false}} {
		err := b.pins.Check(tt.peer)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, pki.ErrPinned) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var empty cluster.Pins
	if empty.Check(own) == nil || empty.Check(wrong) != nil {
		t.Error("before there is a state, members pass and nodes do not")
	}
}
