package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/bootstrap"
	"github.com/wherry-project/wherry/internal/checkpoint"
	"github.com/wherry-project/wherry/internal/dispatch"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/node"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
	"github.com/wherry-project/wherry/internal/volumes"
)

const within = time.Minute // for a busy machine

var masters = api.User{Name: "kubernetes-admin", Groups: []string{authz.Masters}}

// cluster is a control plane of several members over one store, and a node with
// a runtime in memory. Sessions and streams are real gRPC on loopback.
type cluster struct {
	t        *testing.T
	store    store.Store
	api      *apiserver.Server
	codec    *api.Codec
	controls []*control
	dir      string
	m        *runtime.Machine
	net      *fakeNetwork
	proxy    *fakeProxy
	dns      netip.Addr
	port     uint16 // of the node's DNS
	stop     func() // the node, if it runs

	mu      sync.Mutex
	refuse  error // what status writes answer
	refused int
}

// control is one member: its own dispatch and gRPC server.
type control struct {
	c      *cluster
	addr   string
	leader atomic.Bool
	nodes  *dispatch.Server
	grpc   *grpc.Server
	done   chan struct{}
}

func newCluster(t *testing.T, members int) *cluster {
	t.Helper()
	testkit.Leaks(t)
	codec := api.NewCodec(kinds.Table(), 16<<20)
	c := &cluster{t: t, codec: codec, store: store.NewLocal(codec), dir: t.TempDir(), net: &fakeNetwork{}, proxy: &fakeProxy{}, dns: testkit.Loopback()}
	c.port = testkit.FreePort(t, c.dns)
	ranges := alloc.New(alloc.Config{
		Services: netip.MustParsePrefix("10.96.0.0/16"), Pods: netip.MustParsePrefix("10.244.0.0/16"), NodeBits: 24,
		FirstPort: 30000, LastPort: 32767, DNS: netip.MustParseAddr("10.96.0.10"),
	})
	tokens := authn.NewAccounts(authn.AccountsConfig{State: c.store, Issuer: "https://test"})
	c.api = apiserver.New(apiserver.Config{Store: c.store, Codec: codec, Alloc: ranges, Tokens: tokens})
	if err := bootstrap.Write(t.Context(), c.store, bootstrap.Config{Kinds: codec.Kinds(), Alloc: ranges, DNS: netip.MustParseAddr("10.96.0.10"), APIPort: 6443, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := tokens.KeepKeys(t.Context(), c.store); err != nil {
		t.Fatal(err)
	}
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "demo"}})
	for _, ns := range []string{"default", "demo"} { // as the controllers do
		c.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}})
		c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": "a certificate"}})
	}
	c.m = runtime.NewMachine(map[string]runtime.Program{
		"serve": func(p *runtime.Proc) int {
			fmt.Fprintln(p.Stdout, "up")
			for {
				select {
				case s := <-p.Signals:
					if s == syscall.SIGTERM {
						fmt.Fprintln(p.Stdout, "down")
						return 0
					}
				case <-p.Killed:
					return 0
				}
			}
		},
		"fail": func(*runtime.Proc) int { return 7 },
		"echo": func(p *runtime.Proc) int {
			b, err := io.ReadAll(p.Stdin)
			if err != nil {
				return 1
			}
			fmt.Fprintf(p.Stdout, "out %s", b)
			fmt.Fprint(p.Stderr, "err")
			return 3
		},
		"hang": func(p *runtime.Proc) int { <-p.Killed; return 0 },
	})
	for range members {
		a := testkit.Loopback()
		m := &control{c: c, addr: netip.AddrPortFrom(a, testkit.FreePort(t, a)).String()}
		c.controls = append(c.controls, m)
	}
	c.controls[0].leader.Store(true)
	for _, m := range c.controls {
		m.start()
		t.Cleanup(m.kill)
	}
	t.Cleanup(func() {
		if c.stop != nil {
			c.stop()
		}
		c.clear()
		c.unmount()
	})
	return c
}

// unmount takes away the volumes of pods that still ran: tokens are in RAM.
func (c *cluster) unmount() {
	vols, err := volumes.Open(filepath.Join(c.dir, "volumes"))
	if err != nil {
		c.t.Fatal(err)
	}
	left, err := vols.List()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, pod := range left {
		if err := vols.Remove(context.Background(), pod); err != nil {
			c.t.Error(err)
		}
	}
}

// door is the API server's, with faults.
type door struct {
	*apiserver.Direct
	c *cluster
}

func (d door) ReportPod(ctx context.Context, ns, name, uid string, st *corev1.PodStatus) error {
	d.c.mu.Lock()
	err := d.c.refuse
	if err != nil {
		d.c.refused++
	}
	d.c.mu.Unlock()
	if err != nil {
		return err
	}
	return d.Direct.ReportPod(ctx, ns, name, uid, st)
}

func (m *control) start() {
	c := m.c
	m.nodes = dispatch.New(dispatch.Config{
		Store: c.store, Codec: c.codec, As: func(u api.User) dispatch.Door { return door{c.api.As(u), c} },
		Identify: func(ctx context.Context) (api.User, error) {
			return api.User{Name: authz.NodePrefix + "n1", Groups: []string{authz.Nodes}}, nil
		},
		Authorize: func(api.User, api.Target, string) error { return nil }, Leader: m.leader.Load,
		Controls: func() []string {
			var all []string
			for _, o := range c.controls {
				all = append(all, o.addr)
			}
			return all
		},
		Cluster: dispatch.Cluster{Domain: "cluster.local", DNS: c.dns.String(), PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16"},
		Wait:    5 * time.Second, Heartbeat: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	var l net.Listener
	testkit.Eventually(c.t, within, func() (err error) {
		l, err = net.Listen("tcp", m.addr)
		return err
	})
	m.grpc = grpc.NewServer(grpc.StreamInterceptor(apierr.ServerStream), grpc.UnaryInterceptor(apierr.ServerUnary))
	wherryv1.RegisterNodesServer(m.grpc, m.nodes)
	wherryv1.RegisterResourcesServer(m.grpc, apiserver.NewService(c.api, func(context.Context) (api.User, error) {
		return api.User{Name: authz.NodePrefix + "n1", Groups: []string{authz.Nodes}}, nil
	}))
	wherryv1.RegisterPodsServer(m.grpc, m.nodes.Pods())
	wherryv1.RegisterImagesServer(m.grpc, m.nodes.Images())
	m.done = make(chan struct{})
	go func() {
		defer close(m.done)
		_ = m.grpc.Serve(l)
	}()
}

// kill ends a member at once.
func (m *control) kill() {
	m.grpc.Stop()
	<-m.done
}

func (c *cluster) lead(n int) {
	for i, m := range c.controls {
		m.leader.Store(i == n)
	}
	c.controls[n].nodes.Lead()
}

// start starts the node; end stops it as SIGKILL would: the machine goes on.
func (c *cluster) start() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	imgs, err := images.Open(images.Config{Dir: filepath.Join(c.dir, "images")})
	if err != nil {
		c.t.Fatal(err)
	}
	vols, err := volumes.Open(filepath.Join(c.dir, "volumes"))
	if err != nil {
		c.t.Fatal(err)
	}
	check, err := checkpoint.Open(filepath.Join(c.dir, "checkpoint"), []byte("secret"))
	if err != nil {
		c.t.Fatal(err)
	}
	kept, err := checkpoint.Open(filepath.Join(c.dir, "tokens"), []byte("secret"))
	if err != nil {
		c.t.Fatal(err)
	}
	rt := c.m.Open()
	var addrs []string
	for _, m := range c.controls {
		addrs = append(addrs, m.addr)
	}
	n := node.New(node.Config{
		Name: "n1", Version: "v1.34.0", Address: netip.MustParseAddr("192.0.2.1"), Controls: addrs[:1], DataDir: c.dir, LogDir: filepath.Join(c.dir, "logs"),
		ResolvConf: "/dev/null", Hosts: "/dev/null", MaxPods: 110, Parallel: 4, DNSPort: c.port,
	}, node.Parts{
		Runtime: rt, Network: c.net, Proxy: c.proxy, Images: imgs, Volumes: vols, Checkpoint: check, Tokens: kept, Kinds: kinds.Table(),
		Dial: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(apierr.ClientUnary), grpc.WithStreamInterceptor(apierr.ClientStream))
		},
		Log: slog.New(slog.NewTextHandler(testLog{c.t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, func() {}) }()
	c.stop = func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				c.t.Errorf("the node ended with %v", err)
			}
		case <-time.After(within):
			c.t.Error("the node does not end")
		}
		if err := errors.Join(rt.Close(), imgs.Close()); err != nil {
			c.t.Error(err)
		}
		c.stop = nil
	}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s", b)
	}
	return len(b), nil
}

// ready waits until the node is registered with a range and Ready.
func (c *cluster) ready() {
	c.t.Helper()
	c.eventually(func() error {
		snap, err := c.store.Snapshot(c.t.Context(), store.At{Level: store.Any})
		if err != nil {
			return err
		}
		n, err := store.Get[*corev1.Node](snap, api.Key{Resource: "nodes", Name: "n1"})
		if err != nil {
			return err
		}
		for _, one := range n.Status.Conditions {
			if one.Type == corev1.NodeReady && one.Status == corev1.ConditionTrue && n.Spec.PodCIDR != "" {
				return nil
			}
		}
		return fmt.Errorf("node is %+v", n.Status.Conditions)
	})
}

// up is a cluster whose node is Ready and has the image.
func up(t *testing.T, members int) *cluster {
	t.Helper()
	c := newCluster(t, members)
	c.start()
	c.ready()
	c.load()
	return c
}
