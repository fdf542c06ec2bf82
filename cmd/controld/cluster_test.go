package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

// asControld makes the test's program controld itself, for processes that can
// be killed.
const asControld = "WHERRY_TEST_AS_CONTROLD"

func TestMain(m *testing.M) {
	if os.Getenv(asControld) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// patience is for a busy machine.
const patience = time.Minute

// host is a machine of the test, all on loopback, told apart by addresses.
type host struct {
	t           *testing.T
	name, dir   string
	addr        netip.Addr
	https, grpc uint16
	daemon      *exec.Cmd
	log         *logBuffer
}

func newHost(t *testing.T, name string) *host {
	h := &host{t: t, name: name, dir: t.TempDir(), addr: testkit.Loopback(), https: 6443, grpc: 7443}
	text := fmt.Sprintf("name: %s\nadvertise-address: %s\nlisten-address: %s\nhttps-port: %d\ngrpc-port: %d\ndata-dir: %s\ndebug-socket: %s\n",
		name, h.addr, h.addr, h.https, h.grpc, filepath.Join(h.dir, "data"), filepath.Join(h.dir, "debug.sock"))
	if err := os.WriteFile(filepath.Join(h.dir, "controld.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// at is where a host's gRPC is.
func (h *host) at() string { return netip.AddrPortFrom(h.addr, h.grpc).String() }

func (h *host) command(args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(exe, append(args, "--config", filepath.Join(h.dir, "controld.yaml"))...)
	cmd.Env = append(os.Environ(), asControld+"=1")
	return cmd
}

// do runs a command that prepares the host.
func (h *host) do(args ...string) (string, error) {
	out, err := h.command(args...).CombinedOutput()
	return string(out), err
}

func (h *host) kubeconfig() string { return filepath.Join(h.dir, "admin.kubeconfig") }

// start starts the daemon and waits until it tells the service manager so.
func (h *host) start() {
	h.t.Helper()
	socket := filepath.Join(h.dir, "notify")
	_ = os.Remove(socket)
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		h.t.Fatal(err)
	}
	defer l.Close()
	h.daemon, h.log = h.command(), &logBuffer{}
	h.daemon.Env = append(h.daemon.Env, "NOTIFY_SOCKET="+socket)
	h.daemon.Stdout, h.daemon.Stderr = h.log, h.log
	began := time.Now()
	if err := h.daemon.Start(); err != nil {
		h.t.Fatal(err)
	}
	cmd := h.daemon
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if h.t.Failed() {
			h.t.Logf("log of %s:\n%s", h.name, h.log)
		}
	})
	b := make([]byte, 1024)
	for {
		if err := l.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
			h.t.Fatal(err)
		}
		n, err := l.Read(b)
		if err != nil {
			h.t.Fatalf("%s is not ready: %v\n%s", h.name, err, h.log)
		}
		if strings.Contains(string(b[:n]), "READY=1") {
			h.t.Logf("%s ready after %v", h.name, time.Since(began))
			return
		}
	}
}

func (h *host) stop(s syscall.Signal) error {
	if err := h.daemon.Process.Signal(s); err != nil {
		h.t.Fatal(err)
	}
	return h.daemon.Wait()
}

// admin is the administrator's client of a host.
func admin(t *testing.T, first, at *host) (*rest.Config, *typedcorev1.CoreV1Client) {
	t.Helper()
	c, err := clientcmd.BuildConfigFromFlags("", first.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c.Host = fmt.Sprintf("https://%s", netip.AddrPortFrom(at.addr, at.https))
	c.Timeout = patience
	core, err := typedcorev1.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return c, core
}

func dial(t *testing.T, c *tls.Config, at *host) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(at.at(), grpc.WithTransportCredentials(credentials.NewTLS(c)),
		grpc.WithChainUnaryInterceptor(apierr.ClientUnary), grpc.WithChainStreamInterceptor(apierr.ClientStream))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// create makes an object, or finds it made: how a write ended that was on its
// way when the leader was lost nobody can say, and a busy machine may lose one.
func create(t *testing.T, f func() error) {
	t.Helper()
	testkit.Eventually(t, patience, func() error {
		err := f()
		switch {
		case err == nil, apierrors.IsAlreadyExists(err):
			return nil
		case apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), apierrors.IsServiceUnavailable(err):
			return err
		}
		t.Fatal(err)
		return nil
	})
}

func createMap(ctx context.Context, t *testing.T, core *typedcorev1.CoreV1Client, name string) {
	t.Helper()
	create(t, func() error {
		_, err := core.ConfigMaps("default").Create(ctx, configMap(name), metav1.CreateOptions{})
		return err
	})
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"a": "b"}}
}

// TestCluster is a cluster's life: made, used by both syntaxes, grown to three,
// its leader killed, all of it killed and started again.
func TestCluster(t *testing.T) {
	c1 := newHost(t, "c1")
	if out, err := c1.do("init", "--admin-kubeconfig", c1.kubeconfig()); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	if out, err := c1.do("init", "--admin-kubeconfig", c1.kubeconfig()+"2"); err == nil || !strings.Contains(out, "already") {
		t.Errorf("init where data is: %v\n%s", err, out)
	}
	if st, err := os.Stat(c1.kubeconfig()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig: %v, %v", st, err)
	}
	c1.start()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	config, core := admin(t, c1, c1)
	useHTTPS(ctx, t, config, core)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	useGRPC(ctx, t, tlsConfig, c1)

	c2, c3 := newHost(t, "c2"), newHost(t, "c3")
	grow(ctx, t, tlsConfig, c1, c2, c3)
	loseLeader(ctx, t, tlsConfig, []*host{c1, c2, c3})
	coldStart(ctx, t, []*host{c1, c2, c3})
}

func useHTTPS(ctx context.Context, t *testing.T, config *rest.Config, core *typedcorev1.CoreV1Client) {
	t.Helper()
	all, err := core.Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil || len(all.Items) != 4 {
		t.Fatalf("namespaces: %v, %v", all, err)
	}
	maps := core.ConfigMaps("default")
	w, err := maps.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=one"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	made, err := maps.Create(ctx, configMap("one"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-w.ResultChan():
		if got, ok := e.Object.(*corev1.ConfigMap); !ok || got.Name != "one" || got.ResourceVersion != made.ResourceVersion {
			t.Errorf("watched %v", e)
		}
	case <-ctx.Done():
		t.Fatal("the watch tells nothing")
	}
	if _, err := maps.Create(ctx, configMap("one"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("created twice: %v", err)
	}
	svc, err := core.Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || svc.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("service of the API: %v, %v", svc, err)
	}
	nobody := rest.AnonymousClientConfig(config)
	stranger, err := typedcorev1.NewForConfig(nobody)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Namespaces().List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
		t.Errorf("nobody lists namespaces: %v", err)
	}
	for _, path := range []string{"/livez", "/readyz", "/version"} {
		if b, err := stranger.RESTClient().Get().AbsPath(path).DoRaw(ctx); err != nil {
			t.Errorf("%s: %s, %v", path, b, err)
		}
	}
}

func useGRPC(ctx context.Context, t *testing.T, c *tls.Config, at *host) {
	t.Helper()
	r := wherryv1.NewResourcesClient(dial(t, c, at))
	got, err := r.Get(ctx, &wherryv1.GetRequest{Target: &wherryv1.Target{Version: "v1", Resource: "configmaps", Namespace: "default", Name: "one"}})
	if err != nil {
		t.Fatal(err)
	}
	var m corev1.ConfigMap
	if err := api.FromAny(got.GetObject(), &m); err != nil || m.Data["a"] != "b" {
		t.Errorf("config map by gRPC: %v, %v", &m, err)
	}
	none := c.Clone()
	none.Certificates, none.GetClientCertificate = nil, nil
	conn := dial(t, none, at)
	if h, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}); err != nil || h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health without a certificate: %v, %v", h, err)
	}
	for name, call := range map[string]func() error{
		"kinds": func() error {
			_, err := wherryv1.NewResourcesClient(conn).Kinds(ctx, &wherryv1.KindsRequest{})
			return err
		},
		"vote":    func() error { _, err := wherryv1.NewRaftClient(conn).Vote(ctx, &wherryv1.VoteRequest{}); return err },
		"session": func() error { return recv(wherryv1.NewNodesClient(conn).Session(ctx)) },
	} {
		if err := call(); !errors.Is(err, apierr.ErrUnauthorized) {
			t.Errorf("%s without a certificate: %v", name, err)
		}
	}
	if _, err := wherryv1.NewRaftClient(dial(t, c, at)).Vote(ctx, &wherryv1.VoteRequest{}); !errors.Is(err, apierr.ErrForbidden) {
		t.Errorf("a user votes: %v", err)
	}
}

func recv(s grpc.BidiStreamingClient[wherryv1.SessionRequest, wherryv1.SessionResponse], err error) error {
	if err == nil {
		_, err = s.Recv()
	}
	return err
}

// grow joins more hosts.
func grow(ctx context.Context, t *testing.T, c *tls.Config, first *host, more ...*host) {
	t.Helper()
	client := wherryv1.NewClusterClient(dial(t, c, first))
	file := func(role wherryv1.Role) string {
		token, err := client.CreateToken(ctx, &wherryv1.CreateTokenRequest{Role: role})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(token.GetToken()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	at := first.at()
	if out, err := more[0].do("join", at, "--token-file", file(wherryv1.Role_ROLE_NODE)); err == nil || !strings.Contains(out, "is for joining as node") {
		t.Errorf("join with a node's token: %v\n%s", err, out)
	}
	if out, err := more[0].do("join", at); err == nil || !strings.Contains(out, "--token-file") {
		t.Errorf("join without token: %v\n%s", err, out)
	}
	token := file(wherryv1.Role_ROLE_CONTROL)
	for _, h := range more {
		if out, err := h.do("join", at, "--token-file", token); err != nil {
			t.Fatalf("join: %v\n%s", err, out)
		}
		if out, err := h.do("join", at, "--token-file", token); err == nil || !strings.Contains(out, "already") {
			t.Errorf("join where data is: %v\n%s", err, out)
		}
		h.start()
		_, core := admin(t, first, h)
		if _, err := core.ConfigMaps("default").Get(ctx, "one", metav1.GetOptions{}); err != nil {
			t.Errorf("%s does not have the state when it is ready: %v", h.name, err)
		}
		createMap(ctx, t, core, "by-"+h.name)
	}
	testkit.Eventually(t, patience, func() error {
		m, err := client.Members(ctx, &wherryv1.MembersRequest{})
		if err != nil || len(m.GetMembers()) != 1+len(more) {
			return fmt.Errorf("members: %v, %w", m, err)
		}
		for _, one := range m.GetMembers() {
			if !one.GetVoter() || !one.GetReachable() || one.GetName() == "" {
				return fmt.Errorf("member %v", one)
			}
		}
		return nil
	})
}

// loseLeader kills the leader; the others go on, and it comes back.
func loseLeader(ctx context.Context, t *testing.T, c *tls.Config, hosts []*host) {
	t.Helper()
	client := wherryv1.NewClusterClient(dial(t, c, hosts[0]))
	var leader *host
	testkit.Eventually(t, patience, func() error {
		m, err := client.Members(ctx, &wherryv1.MembersRequest{})
		for _, one := range m.GetMembers() {
			if i := slices.IndexFunc(hosts, func(h *host) bool { return h.name == one.GetName() }); i >= 0 && one.GetLeader() {
				leader = hosts[i]
				return nil
			}
		}
		return fmt.Errorf("nobody leads: %v, %w", m, err)
	})
	others := slices.DeleteFunc(slices.Clone(hosts), func(h *host) bool { return h == leader })
	_ = leader.stop(syscall.SIGKILL) // says that it was killed
	began := time.Now()
	for i, h := range others {
		_, core := admin(t, hosts[0], h)
		createMap(ctx, t, core, fmt.Sprintf("later-%d", i))
		t.Logf("%s writes %v after the leader was killed", h.name, time.Since(began))
	}
	leader.start()
	_, core := admin(t, hosts[0], leader)
	if _, err := core.ConfigMaps("default").Get(ctx, "later-1", metav1.GetOptions{}); err != nil {
		t.Errorf("the one that was killed has not caught up: %v", err)
	}
}

// coldStart kills all and starts them again, one at a time.
func coldStart(ctx context.Context, t *testing.T, hosts []*host) {
	t.Helper()
	for _, h := range hosts {
		_ = h.stop(syscall.SIGKILL) // says that it was killed
	}
	ready := make(chan struct{})
	for _, h := range hosts {
		go func() {
			defer func() { ready <- struct{}{} }()
			h.start()
		}()
	}
	for range hosts {
		<-ready
	}
	for _, h := range hosts {
		_, core := admin(t, hosts[0], h)
		l, err := core.ConfigMaps("default").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name!=kube-root-ca.crt"})
		if err != nil || len(l.Items) != 5 {
			t.Errorf("%s after the cold start: %v, %v", h.name, l, err)
		}
	}
	for _, h := range hosts {
		began := time.Now()
		if err := h.stop(syscall.SIGTERM); err != nil {
			t.Errorf("%s does not stop well: %v", h.name, err)
		}
		t.Logf("%s stopped in %v", h.name, time.Since(began))
	}
}

// TestPortInUse names the key whose port is taken.
func TestPortInUse(t *testing.T) {
	h := newHost(t, "c1")
	if out, err := h.do("init", "--admin-kubeconfig", h.kubeconfig()); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", h.at())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if out, err := h.do(); err == nil || !strings.Contains(out, "grpc-port") {
		t.Errorf("got %v\n%s", err, out)
	}
}

// TestNoData says what to do first.
func TestNoData(t *testing.T) {
	h := newHost(t, "c1")
	if out, err := h.do(); err == nil || !strings.Contains(out, "controld init") {
		t.Errorf("got %v\n%s", err, out)
	}
}

// TestDebugSocket serves profiles to its owner.
func TestDebugSocket(t *testing.T) {
	h := newHost(t, "c1")
	if out, err := h.do("init", "--admin-kubeconfig", h.kubeconfig()); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	h.start()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(h.dir, "debug.sock"))
	}}}
	resp, err := c.Get("http://controld/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(b, []byte("goroutine profile")) {
		t.Errorf("%s, %v", b, err)
	}
}

// logBuffer holds what a daemon writes, and can be read meanwhile.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
