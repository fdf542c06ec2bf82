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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/testkit"
)

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
