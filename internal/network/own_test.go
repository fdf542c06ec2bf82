package network

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/wherry-project/wherry/internal/link"
	"github.com/wherry-project/wherry/internal/testkit"
)

const childEnv = "WHERRY_NETWORK_TEST_CHILD"

// TestOwnNamespace runs as noded does on a test host: the process itself lives
// in a network namespace and names none.
func TestOwnNamespace(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		inOwnNamespace(t)
		return
	}
	testkit.NeedsRoot(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestOwnNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func inOwnNamespace(t *testing.T) {
	l := &lab{t: t}
	l.in("", func(h *link.Handle) error {
		links, err := h.Links()
		if len(links) != 1 {
			t.Fatalf("not in a namespace of its own: links %v", links)
		}
		if err == nil {
			err = h.SetUp("lo")
		}
		if err == nil {
			err = h.AddAddress(link.Address{Link: lo, Prefix: prefix("10.0.0.1/32")})
		}
		return err
	})
	n := l.node("")
	l.apply(n, config(1))
	a, b := l.attach(n, "a"), l.attach(n, "b")
	l.serve(b.NetNS, ":80")
	l.wantSeen(a.NetNS, b.Address.String()+":80", a.Address.String())
	l.wantSeen("", b.Address.String()+":80", "10.0.0.1")
	if err := n.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestManyAtOnce attaches and detaches pods while Apply runs again and again.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t)
	ns := l.host("h1", "10.0.0.1/24")
	n := l.node(ns)
	l.apply(n, config(1))
	var pods, applies sync.WaitGroup
	stop := make(chan struct{})
	applies.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := n.Apply(t.Context(), config(1, 2)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var mu sync.Mutex
	seen := make(map[netip.Addr]string)
	for w := range 4 {
		pods.Go(func() {
			for i := range 15 {
				id := fmt.Sprintf("pod-%d-%d", w, i)
				p, err := n.Attach(t.Context(), PodConfig{ID: id})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, taken := seen[p.Address]; taken {
					t.Errorf("%s and %s both have %v", id, other, p.Address)
				}
				seen[p.Address] = id
				mu.Unlock()
				if i%3 == 0 {
					if err := n.Detach(t.Context(), id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	pods.Wait()
	close(stop)
	applies.Wait()
	list, err := n.List(t.Context())
	if err != nil || len(list) != 40 {
		t.Errorf("%d pods, want 40 (%v)", len(list), err)
	}
	for _, p := range list {
		if ok, err := n.stillThere(p); !ok || err != nil {
			t.Errorf("pod %s is not whole (%v)", p.ID, err)
		}
	}
}

// BenchmarkAttach attaches pods one after the other, and four at once.
func BenchmarkAttach(b *testing.B) {
	n := benchNetwork(b)
	i := 0
	for b.Loop() {
		i++
		if _, err := n.Attach(b.Context(), PodConfig{ID: fmt.Sprint("pod", i)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAttachParallel(b *testing.B) {
	n := benchNetwork(b)
	var mu sync.Mutex
	i := 0
	b.SetParallelism(2)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			i++
			id := fmt.Sprint("pod", i)
			mu.Unlock()
			if _, err := n.Attach(b.Context(), PodConfig{ID: id}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkDetach(b *testing.B) {
	n := benchNetwork(b)
	for i := range b.N {
		if _, err := n.Attach(b.Context(), PodConfig{ID: fmt.Sprint("pod", i)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for i := range b.N {
		if err := n.Detach(b.Context(), fmt.Sprint("pod", i)); err != nil {
			b.Fatal(err)
		}
	}
}

func benchNetwork(b *testing.B) *Network {
	ns := testkit.ScratchNetNS(b)
	h, err := link.Open(ns.Path)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	if err := h.AddAddress(link.Address{Link: lo, Prefix: prefix("10.0.0.1/32")}); err != nil {
		b.Fatal(err)
	}
	n, err := Open(b.Context(), Options{NetNS: ns.Path, RunDir: filepath.Join(b.TempDir(), "netns")})
	if err != nil {
		b.Fatal(err)
	}
	cfg := config(1)
	cfg.PodCIDRs[0] = prefix("10.244.0.0/16")
	if err := n.Apply(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := n.Remove(b.Context()); err != nil && b.Context().Err() == nil {
			b.Error(err)
		}
		pods, err := os.ReadDir(n.opts.RunDir)
		for _, p := range pods {
			err = n.tearDown(p.Name(), linkName(p.Name()))
		}
		if err != nil {
			b.Error(err)
		}
		n.Close()
	})
	return n
}
