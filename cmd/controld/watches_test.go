package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/testkit"
)

// resident is what a process has in memory, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestIdleWatches opens 10,000 watches of one controld over ten connections and
// prints what each takes; the daemon goes on, and a write reaches them all.
func TestIdleWatches(t *testing.T) {
	const connections, each, most = 12, 834, watchMemory
	h := newHost(t, "c1")
	if out, err := h.do("init", "--admin-kubeconfig", h.kubeconfig()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.start()
	config, core := admin(t, h, h)
	config.Timeout = 0
	if _, err := core.ConfigMaps("default").Create(t.Context(), configMap("one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	before := resident(t, h.daemon.Process.Pid)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var watches []watch.Interface
	var opening sync.WaitGroup
	var failed error
	for range connections {
		own := rest.CopyConfig(config)
		own.QPS = -1
		// A transport of its own, and so a connection.
		own.Proxy = func(r *http.Request) (*url.URL, error) { return nil, nil }
		client, err := typedcorev1.NewForConfig(own)
		if err != nil {
			t.Fatal(err)
		}
		opening.Go(func() {
			for range each {
				w, err := client.ConfigMaps("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=one"})
				mu.Lock()
				if err != nil {
					failed = err
					mu.Unlock()
					return
				}
				watches = append(watches, w)
				mu.Unlock()
			}
		})
	}
	opening.Wait()
	if failed != nil {
		t.Fatalf("after %d watches: %v", len(watches), failed)
	}
	told := func(want watch.EventType) {
		t.Helper()
		end := time.After(5 * time.Minute)
		for i, w := range watches {
			select {
			case e := <-w.ResultChan():
				if e.Type != want {
					t.Fatalf("watch %d tells %s, want %s", i, e.Type, want)
				}
			case <-end:
				t.Fatalf("watch %d tells nothing", i)
			}
		}
	}
	told(watch.Added)
	testkit.Eventually(t, patience, func() error {
		per := (resident(t, h.daemon.Process.Pid) - before) / len(watches)
		if per > most {
			return fmt.Errorf("a watch takes %d bytes, over %d", per, most)
		}
		t.Logf("%d idle watches take %d bytes of resident memory each", len(watches), per)
		return nil
	})
	next := configMap("one")
	next.Data = map[string]string{"a": "c"}
	if _, err := core.ConfigMaps("default").Update(t.Context(), next, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	told(watch.Modified)
	for _, w := range watches {
		w.Stop()
	}
	if _, err := core.ConfigMaps("default").Get(t.Context(), "one", metav1.GetOptions{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
