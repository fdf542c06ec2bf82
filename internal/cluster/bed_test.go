package cluster_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

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
