package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
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
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/node"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/svcproxy"
	"github.com/wherry-project/wherry/internal/testimage"
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

// clear ends what still runs on the machine.
func (c *cluster) clear() {
	rt := c.m.Open()
	defer rt.Close()
	list, err := rt.List(context.Background())
	if err != nil {
		c.t.Error(err)
	}
	for _, sb := range list {
		if err := rt.RemoveSandbox(context.Background(), sb.ID); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *cluster) create(o api.Object) api.Object {
	c.t.Helper()
	out, err := c.api.As(masters).Create(c.t.Context(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// pod makes a pod that is bound to the node.
func (c *cluster) pod(name string, args ...string) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name}}
	p.Spec.Containers = []corev1.Container{{Name: "a", Image: "example.test/tool:1", Command: args}}
	return c.bound(p)
}

func (c *cluster) bound(p *corev1.Pod) *corev1.Pod {
	c.t.Helper()
	made := c.create(p).(*corev1.Pod)
	if err := c.api.As(masters).Bind(c.t.Context(), made, "n1"); err != nil {
		c.t.Fatal(err)
	}
	return made
}

func (c *cluster) get(name string) (*corev1.Pod, error) {
	snap, err := c.store.Snapshot(c.t.Context(), store.At{Level: store.Any})
	if err != nil {
		return nil, err
	}
	return store.Get[*corev1.Pod](snap, api.Key{Resource: "pods", Namespace: "demo", Name: name})
}

func (c *cluster) eventually(what func() error) {
	c.t.Helper()
	testkit.Eventually(c.t, within, what)
}

// is waits for a pod's phase and readiness.
func (c *cluster) is(name string, phase corev1.PodPhase, ready bool) *corev1.Pod {
	c.t.Helper()
	var p *corev1.Pod
	c.eventually(func() (err error) {
		if p, err = c.get(name); err != nil {
			return err
		}
		is := false
		for _, one := range p.Status.Conditions {
			is = is || one.Type == corev1.PodReady && one.Status == corev1.ConditionTrue
		}
		if p.Status.Phase != phase || is != ready {
			return fmt.Errorf("pod %s is %s, ready %v: %+v", name, p.Status.Phase, is, p.Status.ContainerStatuses)
		}
		return nil
	})
	return p
}

func (c *cluster) remove(name string) {
	c.t.Helper()
	if err := c.api.As(masters).Delete(c.t.Context(), api.Key{Resource: "pods", Namespace: "demo", Name: name}, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) gone(name string) {
	c.t.Helper()
	c.eventually(func() error {
		if p, err := c.get(name); !errors.Is(err, apierr.ErrNotFound) {
			return fmt.Errorf("pod %s: %v, %w", name, p, err)
		}
		return nil
	})
}

// load imports the test's image through a member.
func (c *cluster) load() {
	c.t.Helper()
	img, err := testimage.Build(testimage.Spec{Layers: []testimage.Layer{{{Name: "etc/motd", Body: []byte("hello")}}}})
	if err != nil {
		c.t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := testimage.WriteDocker(&tar, map[string]*testimage.Image{"example.test/tool:1": img}); err != nil {
		c.t.Fatal(err)
	}
	stream, err := wherryv1.NewImagesClient(c.client(0)).ImportImages(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for b := tar.Bytes(); len(b) > 0; {
		n := min(len(b), 1000)
		if err := stream.Send(&wherryv1.ImportImagesRequest{Data: b[:n]}); err != nil {
			break // the answer says why
		}
		b = b[n:]
	}
	got, err := stream.CloseAndRecv()
	if err != nil {
		c.t.Fatal(err)
	}
	if len(got.GetImages()) != 1 || got.GetImages()[0].GetNode() != "n1" || got.GetImages()[0].GetTags()[0] != "example.test/tool:1" {
		c.t.Errorf("imported %v", got)
	}
}

func (c *cluster) client(n int) *grpc.ClientConn {
	c.t.Helper()
	conn, err := grpc.NewClient(c.controls[n].addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(apierr.ClientUnary), grpc.WithStreamInterceptor(apierr.ClientStream))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return conn
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

type fakeNetwork struct {
	mu      sync.Mutex
	applied int
	cfg     network.Config
	pods    map[string]network.Pod
}

func (f *fakeNetwork) Apply(_ context.Context, cfg network.Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied++
	f.cfg = cfg
	return cfg.Validate()
}

func (f *fakeNetwork) Attach(_ context.Context, cfg network.PodConfig) (network.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.applied == 0 {
		return network.Pod{}, apierr.Unavailable("not configured yet")
	}
	if f.pods == nil {
		f.pods = map[string]network.Pod{}
	}
	if p, ok := f.pods[cfg.ID]; ok {
		return p, nil
	}
	// The network of a pod here is loopback, so that streams reach it.
	f.pods[cfg.ID] = network.Pod{ID: cfg.ID, NetNS: "/proc/self/ns/net", Address: netip.AddrFrom4([4]byte{127, 0, 1, byte(len(f.pods) + 1)})}
	return f.pods[cfg.ID], nil
}

func (f *fakeNetwork) Detach(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, id)
	return nil
}

func (f *fakeNetwork) List(context.Context) ([]network.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []network.Pod
	for _, p := range f.pods {
		out = append(out, p)
	}
	return out, nil
}

type fakeProxy struct {
	mu       sync.Mutex
	cfg      svcproxy.Config
	problems []svcproxy.Problem
}

func (f *fakeProxy) Apply(_ context.Context, cfg svcproxy.Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg = cfg
	return nil
}

func (f *fakeProxy) Problems() []svcproxy.Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problems
}

func TestNodeRegistersAndRunsPods(t *testing.T) {
	c := up(t, 1)
	p := c.pod("web", "serve")
	got := c.is("web", corev1.PodRunning, true)
	if got.Status.PodIP == "" || got.Status.HostIP != "192.0.2.1" || got.Status.ContainerStatuses[0].ContainerID != "wherry://"+string(p.UID)+"/a-0" {
		t.Errorf("status %+v", got.Status)
	}
	c.eventually(func() error { // its events came up too
		snap, err := c.store.Snapshot(t.Context(), store.At{Level: store.Any})
		if err != nil {
			return err
		}
		var reasons []string
		for r := range snap.Scan("events", "demo", api.Key{}) {
			e, err := store.Decode[*corev1.Event](snap, r)
			if err != nil {
				return err
			}
			reasons = append(reasons, e.Reason)
		}
		if slices.Sort(reasons); !slices.Equal(reasons, []string{"Created", "Pulled", "Started"}) {
			return fmt.Errorf("events: %s", reasons)
		}
		return nil
	})
	c.remove("web")
	c.gone("web")
	c.pod("job", "fail")
	c.eventually(func() error {
		p, err := c.get("job")
		if err == nil && (len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount == 0) {
			err = errors.New("not restarted yet")
		}
		return err
	})
	// Nothing of a deleted pod is left, once the object is gone.
	c.remove("job")
	c.gone("job")
	c.eventually(func() error {
		for _, dir := range []string{"pods", "logs", "volumes"} {
			if list, err := os.ReadDir(filepath.Join(c.dir, dir)); err != nil || len(list) > 0 {
				return fmt.Errorf("left in %s: %v, %w", dir, list, err)
			}
		}
		return nil
	})
}

func TestShareFollowsWhatPodsName(t *testing.T) {
	c := up(t, 1)
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "unrelated"}})
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "p"}}
	p.Spec.Containers = []corev1.Container{{Name: "a", Image: "example.test/tool:1", Command: []string{"serve"}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}}
	made := c.bound(p)
	c.is("p", corev1.PodPending, false)
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "cm"}, Data: map[string]string{"k": "1"}})
	c.is("p", corev1.PodRunning, true)
	file := filepath.Join(c.dir, "volumes", string(made.UID), "v", "k")
	shows := func(want string) {
		t.Helper()
		c.eventually(func() error {
			b, err := os.ReadFile(file)
			if err == nil && string(b) != want {
				err = fmt.Errorf("shows %q, want %q", b, want)
			}
			return err
		})
	}
	shows("1")
	update := func(value string) {
		t.Helper()
		if _, err := c.api.As(masters).Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "cm"}, Data: map[string]string{"k": value}}); err != nil {
			t.Fatal(err)
		}
	}
	update("2")
	shows("2")
	// A ConfigMap that went while nobody named it is not there for the next pod.
	c.remove("p")
	c.gone("p")
	if err := c.api.As(masters).Delete(t.Context(), api.Key{Resource: "configmaps", Namespace: "demo", Name: "cm"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.ResourceVersion, p.UID = "", ""
	c.bound(p)
	c.eventually(func() error {
		snap, err := c.store.Snapshot(t.Context(), store.At{Level: store.Any})
		if err != nil {
			return err
		}
		for r := range snap.Scan("events", "demo", api.Key{}) {
			if e, err := store.Decode[*corev1.Event](snap, r); err == nil && e.Reason == "FailedMount" && e.Count >= 2 {
				return nil
			}
		}
		return errors.New("no event of a second failed mount")
	})
	c.is("p", corev1.PodPending, false)
}

func TestStatusIsRepeatedUntilStored(t *testing.T) {
	c := up(t, 1)
	for _, refusal := range []error{apierr.Unavailable("no leader"), apierr.Conflict("pods", "x", errors.New("changed")), apierr.Forbidden("pods", "x", errors.New("not yet"))} {
		c.mu.Lock()
		c.refuse, c.refused = refusal, 0
		c.mu.Unlock()
		c.pod("p", "serve")
		c.eventually(func() error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.refused < 2 {
				return fmt.Errorf("refused %d times", c.refused)
			}
			c.refuse = nil
			return nil
		})
		c.is("p", corev1.PodRunning, true)
		c.remove("p")
		c.gone("p")
	}
}

func TestStreams(t *testing.T) {
	c := up(t, 2)
	c.pod("p", "serve")
	c.is("p", corev1.PodRunning, true)
	for n, m := range c.controls { // through each member, also one that does not lead
		c.eventually(func() error { // running is not yet having said something
			log, err := m.nodes.Logs(t.Context(), masters, "demo", "p", &corev1.PodLogOptions{})
			if err != nil {
				return err
			}
			defer log.Close()
			if b, err := io.ReadAll(log); err != nil || string(b) != "up\n" {
				return fmt.Errorf("member %d: log %q, %w", n, b, err)
			}
			return nil
		})
		var out, errs bytes.Buffer
		code, err := m.nodes.Exec(t.Context(), masters, api.ExecRequest{
			Namespace: "demo", Pod: "p", Command: []string{"echo"}, Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errs,
		})
		if err != nil || code != 3 || out.String() != "out hello" || errs.String() != "err" {
			t.Errorf("member %d: exec %d %q %q, %v", n, code, out.String(), errs.String(), err)
		}
		if _, err := m.nodes.Exec(t.Context(), masters, api.ExecRequest{Namespace: "demo", Pod: "p", Command: []string{"absent"}, Stdout: &out}); err == nil || !strings.Contains(err.Error(), "executable file not found") {
			t.Errorf("member %d: exec of nothing: %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := m.nodes.Exec(ctx, masters, api.ExecRequest{Namespace: "demo", Pod: "p", Command: []string{"hang"}, Stdout: &out}); err == nil {
			t.Errorf("member %d: a command that hangs ended well", n)
		}
		cancel()
		dials(t, c, m)
	}
	// Following ends with the container.
	log, err := c.controls[0].nodes.Logs(t.Context(), masters, "demo", "p", &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	first := make([]byte, 3)
	if _, err := io.ReadFull(log, first); err != nil || string(first) != "up\n" {
		t.Errorf("log %q, %v", first, err)
	}
	c.remove("p")
	if b, err := io.ReadAll(log); err != nil || string(b) != "down\n" {
		t.Errorf("log went on with %q, %v", b, err)
	}
	if _, err := c.controls[0].nodes.Logs(t.Context(), masters, "demo", "none", &corev1.PodLogOptions{}); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("log of no pod: %v", err)
	}
}

// dials connects to a port of the pod, which here is loopback, and closes each
// side first.
func dials(t *testing.T, c *cluster, m *control) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			var b []byte
			if b, err = io.ReadAll(conn); err == nil { // until the client has said all
				_, err = fmt.Fprintf(conn, "you said %d bytes", len(b))
			}
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	conn, err := m.nodes.Dial(t.Context(), masters, "demo", "p", port)
	if testkitNeedsRoot(err) {
		t.Log("not root: no connection into a namespace")
		l.Close()
		if err := <-served; err == nil {
			t.Error("somebody was served")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 100_000)); err != nil {
		t.Error(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "you said 100000 bytes" {
		t.Errorf("answered %q, %v", b, err)
	}
	if err := errors.Join(conn.Close(), <-served); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := m.nodes.Dial(t.Context(), masters, "demo", "p", port); !errors.Is(err, apierr.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func testkitNeedsRoot(err error) bool { return err != nil && os.Geteuid() != 0 }

func TestImages(t *testing.T) {
	c := up(t, 1)
	cl := wherryv1.NewImagesClient(c.client(0))
	list, err := cl.ListImages(t.Context(), &wherryv1.ListImagesRequest{})
	if err != nil || len(list.GetImages()) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	out, err := cl.ExportImage(t.Context(), &wherryv1.ExportImageRequest{Node: "n1", Reference: "example.test/tool:1"})
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for {
		m, err := out.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		size += len(m.GetData())
	}
	if size < 1000 {
		t.Errorf("exported %d bytes", size)
	}
	c.pod("p", "serve")
	c.is("p", corev1.PodRunning, true)
	if _, err := cl.RemoveImage(t.Context(), &wherryv1.RemoveImageRequest{Reference: "example.test/tool:1"}); !errors.Is(err, apierr.ErrConflict) {
		t.Errorf("removed an image in use: %v", err)
	}
	c.remove("p")
	c.gone("p")
	c.eventually(func() error {
		_, err := cl.RemoveImage(t.Context(), &wherryv1.RemoveImageRequest{Reference: "example.test/tool:1"})
		return err
	})
	if _, err := cl.RemoveImage(t.Context(), &wherryv1.RemoveImageRequest{Reference: "example.test/tool:1"}); !errors.Is(err, apierr.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	stream, err := cl.ImportImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // no archive: the node refuses it while it still comes
		if err := stream.Send(&wherryv1.ImportImagesRequest{Data: bytes.Repeat([]byte("x"), 10_000)}); err != nil {
			break
		}
	}
	if _, err := stream.CloseAndRecv(); !errors.Is(err, apierr.ErrBadRequest) {
		t.Errorf("imported nonsense: %v", err)
	}
}

func TestLeaderChangesAndLosses(t *testing.T) {
	c := up(t, 3)
	c.pod("one", "serve")
	c.is("one", corev1.PodRunning, true)
	c.eventually(func() error { // it learned of all members
		for i, m := range c.controls {
			if len(m.nodes.Nodes()) != 1 {
				return fmt.Errorf("member %d has no session", i)
			}
		}
		return nil
	})
	c.lead(1)
	c.controls[0].kill()
	c.pod("two", "serve")
	c.is("two", corev1.PodRunning, true)
	led := time.Now()
	c.eventually(func() error {
		if seen := c.controls[1].nodes.LastSeen("n1"); seen.Before(led) {
			return fmt.Errorf("no heartbeat at the new leader since %v", seen)
		}
		return nil
	})
	// The control plane goes and comes back; the node works on, and says then
	// what happened meanwhile.
	for _, m := range c.controls[1:] {
		m.kill()
	}
	rt := c.m.Open()
	p, err := c.get("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.StopContainer(t.Context(), string(p.UID), "a-0", syscall.SIGTERM, time.Second); err != nil {
		t.Error(err)
	}
	rt.Close()
	for _, m := range c.controls {
		m.start()
	}
	c.eventually(func() error {
		p, err := c.get("one")
		if err == nil && (len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount != 1 || !p.Status.ContainerStatuses[0].Ready) {
			err = fmt.Errorf("status %+v", p.Status.ContainerStatuses)
		}
		return err
	})
	c.remove("one")
	c.gone("one")
}

// A restart in the middle of everything: what ran goes on, what ended is told,
// what was deleted meanwhile goes, with all that is left of it.
func TestNodeRestart(t *testing.T) {
	c := up(t, 1)
	c.pod("stays", "serve")
	c.pod("goes", "serve")
	before := c.is("stays", corev1.PodRunning, true)
	c.is("goes", corev1.PodRunning, true)
	c.stop()
	zero := int64(0)
	if err := c.api.As(masters).Delete(t.Context(), api.Key{Resource: "pods", Namespace: "demo", Name: "goes"}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	// What is left of a pod that the runtime does not know.
	for _, dir := range []string{"pods/odd/etc", "volumes/odd/v", "logs/demo_odd_odd/a"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.net.Attach(t.Context(), network.PodConfig{ID: "odd"}); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.eventually(func() error {
		for _, dir := range []string{"pods", "logs"} {
			if list, err := os.ReadDir(filepath.Join(c.dir, dir)); err != nil || len(list) != 1 {
				return fmt.Errorf("in %s: %v, %w", dir, list, err)
			}
		}
		if list, err := c.net.List(t.Context()); err != nil || len(list) != 1 {
			return fmt.Errorf("attached: %v, %v", list, err)
		}
		return nil
	})
	after := c.is("stays", corev1.PodRunning, true)
	if a, b := after.Status.ContainerStatuses[0], before.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || a.RestartCount != 0 || after.Status.PodIP != before.Status.PodIP {
		t.Errorf("was %+v, is %+v", b, a)
	}
}

// A node without its checkpoint and without a control plane leaves alone what
// runs. When it hears again what it should run, it tells also what ended
// meanwhile, and ends what nobody wants.
func TestRestartWithoutCheckpoint(t *testing.T) {
	c := up(t, 1)
	ends, stays := c.pod("ends", "serve"), c.pod("stays", "serve")
	c.pod("goes", "serve")
	for _, name := range []string{"ends", "stays", "goes"} {
		c.is(name, corev1.PodRunning, true)
	}
	c.stop()
	c.controls[0].kill()
	zero := int64(0)
	if err := c.api.As(masters).Delete(t.Context(), api.Key{Resource: "pods", Namespace: "demo", Name: "goes"}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*corev1.Pod{ends, stays} { // nor the statuses that noded kept itself
		if err := os.Remove(filepath.Join(c.dir, "pods", string(p.UID), "status")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(c.dir, "checkpoint")); err != nil {
		t.Fatal(err)
	}
	c.start()
	rt := c.m.Open()
	defer rt.Close()
	running := func(want int) error {
		list, err := rt.List(t.Context())
		n := 0
		for _, sb := range list {
			for _, one := range sb.Containers {
				if one.State == runtime.Running {
					n++
				}
			}
		}
		if err != nil || n != want {
			return fmt.Errorf("%d containers run, want %d: %w", n, want, err)
		}
		return nil
	}
	if err := rt.Signal(t.Context(), string(ends.UID), "a-0", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.eventually(func() error { return running(2) })
	c.controls[0].start()
	c.eventually(func() error {
		p, err := c.get("ends")
		if err == nil && (p.Status.ContainerStatuses[0].RestartCount != 1 || p.Status.ContainerStatuses[0].LastTerminationState.Terminated.Reason != "Completed") {
			err = fmt.Errorf("status %+v", p.Status.ContainerStatuses)
		}
		return err
	})
	c.eventually(func() error {
		list, err := rt.List(t.Context())
		if err != nil || len(list) != 2 {
			return fmt.Errorf("there are %d sandboxes, want 2: %w", len(list), err)
		}
		return running(2)
	})
	if p := c.is("stays", corev1.PodRunning, true); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("status %+v", p.Status.ContainerStatuses)
	}
}

// Without any control plane the checkpoint's pods run, names are answered and
// rules stand.
func TestColdStartAlone(t *testing.T) {
	c := up(t, 1)
	svc := c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}).(*corev1.Service)
	port, name := int32(8080), ""
	c.create(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web-x", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.7"}}},
	})
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "p"}}
	p.Spec.Containers = []corev1.Container{{Name: "a", Image: "example.test/tool:1", Command: []string{"serve"}, Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 8080}}}}
	c.bound(p)
	c.is("p", corev1.PodRunning, true)
	c.serves(svc, true)
	c.stop()
	c.controls[0].kill()
	c.clear() // a power cut
	c.net.mu.Lock()
	c.net.pods, c.net.applied = nil, 0
	c.net.mu.Unlock()
	c.proxy.mu.Lock()
	c.proxy.cfg = svcproxy.Config{}
	c.proxy.mu.Unlock()
	c.start()
	c.eventually(func() error {
		rt := c.m.Open()
		defer rt.Close()
		list, err := rt.List(t.Context())
		if err != nil || len(list) != 1 || len(list[0].Containers) != 1 || list[0].Containers[0].State != runtime.Running {
			return fmt.Errorf("runs %v, %v", list, err)
		}
		return nil
	})
	c.serves(svc, true)
	c.controls[0].start()
	c.eventually(func() error {
		p, err := c.get("p")
		if err == nil && (len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount != 1 || !p.Status.ContainerStatuses[0].Ready) {
			err = fmt.Errorf("status %+v", p.Status.ContainerStatuses)
		}
		return err
	})
}

// serves waits for the rules of a service and the host port, and asks the
// node's DNS for its name.
func (c *cluster) serves(svc *corev1.Service, hostPort bool) {
	c.t.Helper()
	c.eventually(func() error {
		c.proxy.mu.Lock()
		defer c.proxy.mu.Unlock()
		if hostPort && len(c.proxy.cfg.HostPorts) != 1 {
			return fmt.Errorf("host ports %v", c.proxy.cfg.HostPorts)
		}
		for _, s := range c.proxy.cfg.Services {
			if s.Name == "demo/web" && fmt.Sprint(s.Ports[0].Endpoints) == "[10.244.0.7:8080]" {
				return nil
			}
		}
		return fmt.Errorf("services %v", c.proxy.cfg.Services)
	})
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, netip.AddrPortFrom(c.dns, c.port).String())
	}}
	c.eventually(func() error {
		got, err := r.LookupHost(c.t.Context(), "web.demo.svc.cluster.local.")
		if err == nil && (len(got) != 1 || got[0] != svc.Spec.ClusterIP) {
			err = fmt.Errorf("web is at %v, want %s", got, svc.Spec.ClusterIP)
		}
		return err
	})
}

func TestProblemsOfRulesBecomeEvents(t *testing.T) {
	c := up(t, 1)
	c.proxy.mu.Lock()
	c.proxy.problems = []svcproxy.Problem{{Service: "demo/web", What: "too many endpoints"}}
	c.proxy.mu.Unlock()
	c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
	c.eventually(func() error {
		snap, err := c.store.Snapshot(t.Context(), store.At{Level: store.Any})
		if err != nil {
			return err
		}
		for r := range snap.Scan("events", "demo", api.Key{}) {
			if e, err := store.Decode[*corev1.Event](snap, r); err == nil && e.InvolvedObject.Kind == "Service" && e.Message == "too many endpoints" && e.Count == 1 {
				return nil
			}
		}
		return errors.New("no event")
	})
}

func TestNewerCheckpointIsNotOverwritten(t *testing.T) {
	c := up(t, 1)
	c.stop()
	path := filepath.Join(c.dir, "checkpoint")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[4]++
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	check, err := checkpoint.Open(path, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	rt := c.m.Open()
	defer rt.Close()
	n := node.New(node.Config{Name: "n1", Address: netip.MustParseAddr("192.0.2.1"), DataDir: c.dir}, node.Parts{Runtime: rt, Checkpoint: check, Kinds: kinds.Table(), Log: slog.New(slog.DiscardHandler)})
	if err := n.Run(t.Context(), func() { t.Error("it runs") }); !errors.Is(err, checkpoint.ErrFormat) {
		t.Errorf("ended with %v", err)
	}
}
