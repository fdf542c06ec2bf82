package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/bootstrap"
	"github.com/wherry-project/wherry/internal/controllers"
	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

// patience is for a busy machine.
const patience = time.Minute

// cluster is a real API over a store in memory, with all loops running, and
// nodes that only pretend.
type cluster struct {
	t     testing.TB
	store *store.Local
	api   *apiserver.Server
	admin *apiserver.Direct
	ca    *pki.Authority
	// tokens has its keys from the start on.
	tokens *authn.Accounts

	mu   sync.Mutex
	seen map[string]time.Time
	// stuck holds nodes that do nothing any more.
	stuck map[string]bool
	// sick holds pods' images that never become ready.
	sick map[string]bool
	next int
}

// newCluster makes a cluster. more changes the configuration of its loops.
func newCluster(t testing.TB, more func(*controllers.Config)) *cluster {
	t.Helper()
	codec := api.NewCodec(kinds.Table(), 64<<20)
	st := store.NewLocal(codec)
	al := alloc.New(alloc.Config{
		Services: netip.MustParsePrefix("10.96.0.0/16"), Pods: netip.MustParsePrefix("10.244.0.0/16"), NodeBits: 24,
		FirstPort: 30000, LastPort: 32767, DNS: netip.MustParseAddr("10.96.0.10"),
	})
	c := &cluster{t: t, store: st, seen: map[string]time.Time{}, stuck: map[string]bool{}, sick: map[string]bool{}}
	c.tokens = authn.NewAccounts(authn.AccountsConfig{State: st, Issuer: "https://test"})
	c.api = apiserver.New(apiserver.Config{Store: st, Codec: codec, Alloc: al, Tokens: c.tokens})
	c.admin = c.api.As(api.User{Name: "kubernetes-admin", Groups: []string{authz.Masters}})
	var err error
	if c.ca, err = pki.NewAuthority("test", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap.Write(t.Context(), st, bootstrap.Config{Kinds: codec.Kinds(), Alloc: al, DNS: netip.MustParseAddr("10.96.0.10"), APIPort: 6443, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := c.tokens.KeepKeys(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	cfg := controllers.Config{
		Source: st, Tokens: c.tokens, API: c.api, LastSeen: c.lastSeen, CA: "the certificate", Authority: func(*store.Snapshot) (*pki.Authority, error) { return c.ca, nil }, Host: "test", Log: slog.New(slog.DiscardHandler),
		Controls: func(context.Context) []netip.AddrPort {
			return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6443")}
		},
	}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if more != nil {
		more(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- daemon.Run(ctx, cfg.Log, nil, controllers.All(cfg)...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cluster) lastSeen(node string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stuck[node] {
		return c.seen[node]
	}
	return time.Now()
}

func (c *cluster) stop(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck[node], c.seen[node] = true, time.Now()
}

func (c *cluster) start(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stuck, node)
}

// node adds a node that runs its pods as noded would: Running and Ready at
// once, and gone when deleted.
func (c *cluster) node(name string) {
	c.t.Helper()
	as := c.api.As(api.User{Name: authz.NodePrefix + name, Groups: []string{authz.Nodes}})
	want := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if _, err := as.RegisterNode(c.t.Context(), want); err != nil {
		c.t.Fatal(err)
	}
	c.report(name)
	testkit.Eventually(c.t, patience, func() error { // until then the scheduler passes it by
		n, err := get[*corev1.Node](c, "nodes", "", name)
		if err == nil && len(n.Spec.Taints) > 0 {
			err = fmt.Errorf("%s has the taints %v", name, n.Spec.Taints)
		}
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { c.run(ctx, as, name) })
	c.t.Cleanup(func() { cancel(); all.Wait() })
}

// report says that a node is ready.
func (c *cluster) report(name string) {
	c.t.Helper()
	as := c.api.As(api.User{Name: authz.NodePrefix + name, Groups: []string{authz.Nodes}})
	many := corev1.ResourceList{"cpu": qty("8"), "memory": qty("16Gi"), "pods": qty("110")}
	if err := as.ReportNode(c.t.Context(), name, &corev1.NodeStatus{Capacity: many, Allocatable: many, Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastTransitionTime: metav1.Now(), LastHeartbeatTime: metav1.Now()},
	}}); err != nil {
		c.t.Fatal(err)
	}
}

// run is the node's life: it looks at its pods after every change.
func (c *cluster) run(ctx context.Context, as *apiserver.Direct, name string) {
	var w *store.Watch
	for {
		snap := c.store.Mem().Snapshot()
		if w == nil {
			var err error
			if w, err = c.store.Watch(ctx, store.Filter{Resource: "pods"}, snap.Revision()); err != nil {
				c.t.Error(err)
				return
			}
			defer w.Stop()
		}
		for r := range snap.ByField("pods", "spec.nodeName", name) {
			p, err := store.Decode[*corev1.Pod](snap, r)
			if err == nil {
				err = c.work(ctx, as, p)
			}
			if err != nil && !errors.Is(err, apierr.ErrNotFound) && !errors.Is(err, apierr.ErrConflict) && ctx.Err() == nil {
				c.t.Error(err)
			}
		}
		switch _, _, err := w.Next(ctx); {
		case errors.Is(err, apierr.ErrExpired): // it was too slow for the store
			w = nil
		case err != nil:
			return
		}
	}
}

func (c *cluster) work(ctx context.Context, as *apiserver.Direct, p *corev1.Pod) error {
	c.mu.Lock()
	stuck, sick := c.stuck[p.Spec.NodeName], c.sick[p.Spec.Containers[0].Image]
	c.next++
	ip := fmt.Sprintf("10.244.%d.%d", c.next/250%250, c.next%250+1)
	c.mu.Unlock()
	switch {
	case stuck:
		return nil
	case p.DeletionTimestamp != nil:
		zero := int64(0)
		return as.Delete(ctx, api.Key{Resource: "pods", Namespace: p.Namespace, Name: p.Name}, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	case p.Status.Phase == corev1.PodPending:
		ready := corev1.ConditionTrue
		if sick {
			ready = corev1.ConditionFalse
		}
		now := metav1.Now()
		return as.ReportPod(ctx, p.Namespace, p.Name, string(p.UID), &corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip, HostIP: "192.0.2.9", StartTime: &now,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: now}},
		})
	}
	return nil
}

// apply makes objects of a text.
func (c *cluster) make(obj api.Object, text string) api.Object {
	c.t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		c.t.Fatal(err)
	}
	out, err := c.admin.Create(c.t.Context(), obj)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// list gives the objects there are now.
func list[T api.Object](c *cluster, resource, namespace string) []T {
	c.t.Helper()
	out, err := store.List[T](c.store.Mem().Snapshot(), resource, namespace)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func get[T api.Object](c *cluster, resource, namespace, name string) (T, error) {
	return store.Get[T](c.store.Mem().Snapshot(), api.Key{Resource: resource, Namespace: namespace, Name: name})
}

// change updates an object until nobody was faster.
func change[T api.Object](c *cluster, resource, namespace, name string, how func(T)) {
	c.t.Helper()
	for {
		old, err := get[T](c, resource, namespace, name)
		if err != nil {
			c.t.Fatal(err)
		}
		obj := old.DeepCopyObject().(T)
		how(obj)
		if _, err = c.admin.Update(c.t.Context(), obj); err == nil {
			return
		} else if !errors.Is(err, apierr.ErrConflict) {
			c.t.Fatal(err)
		}
	}
}
