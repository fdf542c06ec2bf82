package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/wherry-project/wherry/internal/apierr"
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
