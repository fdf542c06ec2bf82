package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
	"github.com/wherry-project/wherry/internal/testkit"
)

// network is the loopback with cables that can be pulled. What is sent into a
// pulled cable vanishes; when it is plugged in again its connections are gone.
type network struct {
	mu    sync.Mutex
	cut   map[string]bool // by member
	conns map[*cable]bool
}

type cable struct {
	net.Conn
	n        *network
	from, to string
	closed   chan struct{}
	once     sync.Once
}

// quick elections keep tests of them short. Where nobody is to be elected anew,
// calm ones keep the first leader, however busy the machine is.
var (
	quick = Timeouts{Heartbeat: 200 * time.Millisecond, Election: 200 * time.Millisecond, Lease: 150 * time.Millisecond, Request: patience}
	calm  = Timeouts{Heartbeat: 3 * time.Second, Election: 3 * time.Second, Lease: 2900 * time.Millisecond, Request: patience}
	// first makes a cluster; only its one member has them.
	first = Timeouts{Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, Lease: 40 * time.Millisecond}
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func newNetwork() *network { return &network{cut: map[string]bool{}, conns: map[*cable]bool{}} }

func (n *network) isCut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[from] || n.cut[to]
}

func (n *network) set(member string, cut bool) {
	n.mu.Lock()
	var ended []*cable
	if !cut {
		for c := range n.conns {
			if n.cut[c.from] || n.cut[c.to] {
				ended = append(ended, c)
			}
		}
	}
	n.cut[member] = cut
	n.mu.Unlock()
	for _, c := range ended {
		_ = c.Close()
	}
}

func (n *network) dial(ctx context.Context, from, to, address string) (net.Conn, error) {
	if n.isCut(from, to) {
		<-ctx.Done() // as a SYN that nobody answers
		return nil, ctx.Err()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &cable{Conn: conn, n: n, from: from, to: to, closed: make(chan struct{})}
	n.mu.Lock()
	n.conns[c] = true
	n.mu.Unlock()
	return c, nil
}

func (c *cable) Write(b []byte) (int, error) {
	if c.n.isCut(c.from, c.to) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *cable) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.n.isCut(c.from, c.to) {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *cable) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.n.mu.Lock()
		delete(c.n.conns, c)
		c.n.mu.Unlock()
	})
	return c.Conn.Close()
}

// cluster is members in this process over loopback gRPC.
type cluster struct {
	t       testing.TB
	dir     string
	ip      string // an address of its own: members come back to their ports
	limits  Limits
	timeout Timeouts
	kind    string
	disk    func(id string) raftlog.FS
	net     *network
	log     *slog.Logger

	mu      sync.Mutex
	names   map[string]string // address to member
	members map[string]*member
}

type member struct {
	*Store
	id     string
	server *grpc.Server
	served chan struct{}
}

func newCluster(t testing.TB, size int, limits Limits) *cluster {
	t.Helper()
	return newClusterWith(t, size, limits, quick)
}

func newClusterWith(t testing.TB, size int, limits Limits, timeouts Timeouts) *cluster {
	t.Helper()
	return newClusterOn(t, size, limits, timeouts, "", nil)
}

// newClusterOn makes a cluster with a kind of log and, for each member, a disk.
func newClusterOn(t testing.TB, size int, limits Limits, timeouts Timeouts, kind string, disk func(id string) raftlog.FS) *cluster {
	t.Helper()
	if _, ok := t.(*testing.T); ok && !strings.Contains(t.Name(), "/") {
		testkit.Leaks(t) // not of tests that run beside others
	}
	c := &cluster{
		t: t, dir: t.TempDir(), ip: testkit.Loopback().String(), limits: limits, net: newNetwork(), timeout: first, kind: kind, disk: disk,
		names: map[string]string{}, members: map[string]*member{}, log: slog.New(slog.DiscardHandler),
	}
	if os.Getenv("RAFT_LOG") != "" {
		c.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	t.Cleanup(c.close)
	m1 := c.start("m1", "")
	if err := m1.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	c.leader()
	// A member that votes alone stands for election as soon as it starts.
	c.stop(m1, true)
	c.timeout = timeouts
	m1 = c.restart(m1)
	c.leader()
	for i := 2; i <= size; i++ {
		m := c.start(fmt.Sprint("m", i), "")
		if err := m1.AddMember(c.ctx(), m.id, m.cfg.Address); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), patience)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cluster) config(id, address string) Config {
	var fs raftlog.FS
	if c.disk != nil {
		fs = c.disk(id)
	}
	return Config{
		Log: c.kind, FS: fs,
		ID: id, Address: address, Dir: filepath.Join(c.dir, id), Codec: storetest.Codec(),
		Logger: c.log.With("member", id), Limits: c.limits, Timeouts: c.timeout,
		Dial: func(_ context.Context, to string) (grpc.ClientConnInterface, error) {
			return grpc.NewClient("passthrough:///"+to,
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
					c.mu.Lock()
					name := c.names[to]
					c.mu.Unlock()
					return c.net.dial(ctx, id, name, to)
				}))
		},
	}
}

// start starts a member, on its former address unless one is given.
func (c *cluster) start(id, address string) *member {
	c.t.Helper()
	m, err := c.tryStart(id, address)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *cluster) tryStart(id, address string) (*member, error) {
	if address == "" {
		address = net.JoinHostPort(c.ip, "0")
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	address = listener.Addr().String()
	s, err := Open(c.config(id, address))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	m := &member{Store: s, id: id, server: grpc.NewServer(), served: make(chan struct{})}
	s.Register(m.server)
	go func() {
		defer close(m.served)
		_ = m.server.Serve(listener)
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[address] = id
	c.members[id] = m
	return m, nil
}

// stop stops a member; killed does so without a word to the others.
func (c *cluster) stop(m *member, killed bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), 10*time.Second)
	defer cancel()
	if killed {
		c.net.set(m.id, true)
		cancel()
	}
	if err := m.Close(ctx); err != nil {
		c.t.Errorf("close %s: %v", m.id, err)
	}
	m.server.Stop()
	<-m.served
	c.net.set(m.id, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, m.id)
}

func (c *cluster) restart(m *member) *member { return c.start(m.id, m.cfg.Address) }

func (c *cluster) close() {
	for _, m := range c.all() {
		c.stop(m, true)
	}
}

func (c *cluster) all() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*member
	for i := 1; i < 20; i++ {
		if m := c.members[fmt.Sprint("m", i)]; m != nil {
			all = append(all, m)
		}
	}
	return all
}

func (c *cluster) stores() (all []store.Store) {
	for _, m := range c.all() {
		all = append(all, m.Store)
	}
	return all
}

// leader waits for a leader that is ready.
func (c *cluster) leader() *member {
	c.t.Helper()
	ctx := c.ctx()
	for {
		for _, m := range c.all() {
			if now, _ := m.Leadership(); now.Ready && !c.net.isCut(m.id, "") {
				return m
			}
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			c.t.Fatal("no leader")
		}
	}
}

func (c *cluster) followers() (rest []*member) { return c.but(c.leader()) }

// but gives all members but one. (Who leads may be another the next moment.)
func (c *cluster) but(leader *member) (rest []*member) {
	for _, m := range c.all() {
		if m != leader {
			rest = append(rest, m)
		}
	}
	return rest
}

func (c *cluster) set(m *member, name, value string) uint64 {
	c.t.Helper()
	revision, err := m.Commit(c.ctx(), storetest.Set(storetest.Key(name), value, store.Cond{}))
	if err != nil {
		c.t.Fatalf("write on %s: %v", m.id, err)
	}
	return revision
}

func (c *cluster) get(m *member, name string) string {
	c.t.Helper()
	snap, err := m.Snapshot(c.ctx(), store.At{})
	if err != nil {
		c.t.Fatalf("read on %s: %v", m.id, err)
	}
	value, _ := storetest.Value(snap, storetest.Key(name))
	return value
}

var _ io.Closer = (*cable)(nil)

func open(size int) storetest.Open {
	return func(t testing.TB, limits store.Limits) []store.Store {
		return newClusterWith(t, size, Limits{Mem: limits}, calm).stores()
	}
}

func TestOneMember(t *testing.T) { storetest.Run(t, open(1)) }

func TestThreeMembers(t *testing.T) { storetest.Run(t, open(3)) }
