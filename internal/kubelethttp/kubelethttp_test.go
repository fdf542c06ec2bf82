package kubelethttp

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/stats"
	"github.com/wherry-project/wherry/internal/testkit"
)

func pair(t *testing.T, ca *pki.Authority, r pki.Request) tls.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Sign(key.Public(), r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestWhoMayWhat(t *testing.T) {
	testkit.Leaks(t)
	now := time.Now()
	ca, err := pki.NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewAuthority("other", now)
	if err != nil {
		t.Fatal(err)
	}
	ill := false
	cfg := Config{
		TLS:  &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{pair(t, ca, pki.NodeRequest("n1", []string{"n1"}, nil))}},
		Peer: pki.NewVerifier(ca.Certificate(), func(pki.Peer) error { return nil }, time.Now).Peer,
		Healthy: func() error {
			if ill {
				return errors.New("the pod network is not set up")
			}
			return nil
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a_metric 1") }),
		Pods: func() []*corev1.Pod {
			return []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "b", Name: "x"}}, {ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "y"}}}
		},
		Summary: func(context.Context) (*Summary, error) { return &Summary{Node: NodeStats{NodeName: "n1"}}, nil },
		Log:     slog.New(slog.DiscardHandler),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, cfg, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	user := pki.Request{User: "jane", Life: time.Hour}
	clients := map[string][]tls.Certificate{
		"nobody": nil, "admin": {pair(t, ca, pki.AdminRequest())}, "member": {pair(t, ca, pki.MemberRequest("c1", nil, []netip.Addr{}))},
		"node": {pair(t, ca, pki.NodeRequest("n2", nil, nil))}, "user": {pair(t, ca, user)}, "stranger": {pair(t, other, pki.AdminRequest())},
	}
	get := func(who, path string) (int, string) {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: clients[who]}}
		defer tr.CloseIdleConnections()
		r, err := (&http.Client{Transport: tr}).Get("https://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	for who := range clients {
		if code, text := get(who, "/healthz"); code != 200 || text != "ok" {
			t.Errorf("%s, health: %d %s", who, code, text)
		}
		for path, want := range map[string]string{"/metrics": "a_metric 1", "/pods": `"kind":"PodList"`, "/stats/summary": `"nodeName":"n1"`, "/exec/x": `"code":404`} {
			code, text := get(who, path)
			switch who {
			case "admin", "member":
				if !strings.Contains(text, want) {
					t.Errorf("%s, %s: %d %s", who, path, code, text)
				}
			case "node", "user":
				if code != 403 || !strings.Contains(text, `"reason":"Forbidden"`) {
					t.Errorf("%s, %s: %d %s", who, path, code, text)
				}
			default:
				if code != 401 || !strings.Contains(text, `"reason":"Unauthorized"`) {
					t.Errorf("%s, %s: %d %s", who, path, code, text)
				}
			}
		}
	}
	_, text := get("admin", "/pods")
	var list corev1.PodList
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Items) != 2 || list.Items[0].Name != "y" {
		t.Errorf("pods %s, %v", text, err)
	}
	ill = true
	if code, text := get("nobody", "/healthz"); code != 500 || !strings.Contains(text, "pod network") {
		t.Errorf("ill: %d %s", code, text)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Run(t.Context(), Config{Address: l.Addr().String(), Log: slog.New(slog.DiscardHandler)}, func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("ended with %v", err)
	}
}

type sandboxes []runtime.Sandbox

func (s sandboxes) List(context.Context) ([]runtime.Sandbox, error) { return s, nil }

type cgroups map[string]uint64

func (c cgroups) Cgroup(path string) (stats.Usage, error) {
	n, ok := c[path]
	if !ok {
		return stats.Usage{}, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return stats.Usage{CPU: n, Memory: 2 * n, WorkingSet: n}, nil
}

func TestMeasure(t *testing.T) {
	machine := func() (stats.Usage, error) { return stats.Usage{CPU: 100, Memory: 50, Available: 7}, nil }
	pod := func(uid types.UID) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "p-" + string(uid), UID: uid}}
	}
	rt := sandboxes{
		{ID: "1", State: runtime.SandboxReady, Cgroup: "/1", Containers: []runtime.Container{
			{Name: "b", State: runtime.Running, Cgroup: "/1/b"}, {Name: "a", State: runtime.Running, Cgroup: "/1/a"},
			{Name: "c", State: runtime.Exited, Cgroup: "/1/c"}, {Name: "d", State: runtime.Running, Cgroup: "/1/gone"},
		}},
		{ID: "2", State: runtime.SandboxReady, Cgroup: "/gone"}, {ID: "3", State: runtime.SandboxReady, Cgroup: "/1"}, {ID: "1", State: runtime.SandboxGone, Cgroup: "/1"},
	}
	s, err := Measure(t.Context(), "n1", machine, cgroups{"/1": 5, "/1/a": 2, "/1/b": 3}, rt, []*corev1.Pod{pod("1"), pod("2")})
	if err != nil {
		t.Fatal(err)
	}
	if s.Node.CPU.UsageCoreNanoSeconds != 100 || *s.Node.Memory.AvailableBytes != 7 || len(s.Pods) != 1 {
		t.Fatalf("%+v", s)
	}
	p := s.Pods[0]
	if p.PodRef != (PodRef{"p-1", "demo", "1"}) || p.CPU.UsageCoreNanoSeconds != 5 || p.Memory.WorkingSetBytes != 5 || p.Memory.UsageBytes != 10 ||
		len(p.Containers) != 2 || p.Containers[0].Name != "a" || p.Containers[1].CPU.UsageCoreNanoSeconds != 3 {
		t.Errorf("%+v", p)
	}
}
