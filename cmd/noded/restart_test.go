package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/checkpoint"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/node"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/svcproxy"
)

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
