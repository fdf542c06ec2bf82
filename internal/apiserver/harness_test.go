package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/bootstrap"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/testkit"
)

// cluster is an API server over a store with a cluster's first objects and the
// namespace demo.
type cluster struct {
	t     testing.TB
	api   *apiserver.Server
	store store.Store
	codec *api.Codec
	from  uint64 // the revision after which tests write
}

var (
	admin = api.User{Name: "kubernetes-admin", Groups: []string{authz.Masters}}
	jane  = api.User{Name: "jane"}
)

func node(name string) api.User {
	return api.User{Name: authz.NodePrefix + name, Groups: []string{authz.Nodes}}
}

func ranges() *alloc.Allocator {
	return alloc.New(alloc.Config{
		Services: netip.MustParsePrefix("10.96.0.0/16"), Pods: netip.MustParsePrefix("10.244.0.0/16"), NodeBits: 24,
		FirstPort: 30000, LastPort: 32767, DNS: netip.MustParseAddr("10.96.0.10"),
	})
}

// both runs a test over a store in memory and over Raft with one member.
func both(t *testing.T, f func(t *testing.T, c *cluster)) {
	t.Run("memory", func(t *testing.T) { f(t, local(t)) })
	t.Run("raft", func(t *testing.T) { f(t, replicated(t)) })
}

func local(t testing.TB) *cluster {
	t.Helper()
	codec := api.NewCodec(kinds.Table(), 16<<20)
	return open(t, codec, store.NewLocal(codec), apiserver.Config{})
}

func replicated(t testing.TB) *cluster {
	t.Helper()
	testkit.Leaks(t)
	codec := api.NewCodec(kinds.Table(), 16<<20)
	s, err := raftstore.Open(raftstore.Config{
		ID: "m1", Address: "127.0.0.1:1", Dir: t.TempDir(), Codec: codec, Logger: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string) (grpc.ClientConnInterface, error) {
			return nil, errors.New("nobody to dial")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := s.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	return open(t, codec, s, apiserver.Config{})
}

func open(t testing.TB, codec *api.Codec, s store.Store, cfg apiserver.Config) *cluster {
	t.Helper()
	c := &cluster{t: t, store: s, codec: codec}
	cfg.Store, cfg.Codec, cfg.Alloc = s, codec, ranges()
	c.api = apiserver.New(cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := bootstrap.Write(ctx, s, bootstrap.Config{Kinds: codec.Kinds(), Alloc: cfg.Alloc, DNS: netip.MustParseAddr("10.96.0.10"), APIPort: 6443, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	c.must(c.create("namespaces", "", `metadata: {name: demo}`))
	c.from = c.snapshot().Revision()
	t.Cleanup(c.untouched)
	return c
}

// untouched checks that nobody wrote into the decoded objects that all share:
// each must still be what its bytes say.
func (c *cluster) untouched() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w, err := c.store.Watch(ctx, store.Filter{}, 0)
	if errors.Is(err, apierr.ErrExpired) {
		return // a test that wrote more than is kept
	}
	if err != nil {
		c.t.Error(err)
		return
	}
	defer w.Stop()
	fresh := api.NewCodec(c.codec.Kinds(), 0)
	for snap, reached := c.snapshot(), uint64(0); reached < snap.Revision(); {
		events, upTo, err := w.Next(ctx)
		if err != nil {
			c.t.Error(err)
			return
		}
		reached = upTo
		for _, e := range events {
			if e.New == nil {
				continue
			}
			if _, ok := c.codec.Kinds().ByKey(e.New.Resource); !ok {
				continue
			}
			shared, err := c.codec.Decode(e.New)
			if err != nil {
				c.t.Error(err)
				continue
			}
			want, err := fresh.Decode(e.New)
			if err != nil {
				c.t.Error(err)
				continue
			}
			if !reflect.DeepEqual(shared, want) {
				c.t.Errorf("somebody wrote into the shared %s:\n got %+v\nwant %+v", e.New.Key, shared, want)
			}
		}
	}
}

func (c *cluster) must(v api.Value, err error) api.Object {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	return c.object(v)
}

func (c *cluster) object(v api.Value) api.Object {
	c.t.Helper()
	if v.Record == nil {
		return v.Object.(api.Object)
	}
	obj, err := c.codec.Decode(v.Record)
	if err != nil {
		c.t.Fatal(err)
	}
	return obj
}

// at makes a target of resource[.group]/namespace/name[/subresource].
func (c *cluster) at(resource, namespace, name, sub string) api.Target {
	c.t.Helper()
	k, ok := c.codec.Kinds().ByKey(resource)
	if !ok {
		return api.Target{Version: "v1", Resource: resource, Namespace: namespace, Name: name, Subresource: sub}
	}
	if !k.Namespaced {
		namespace = ""
	}
	return api.Target{Group: k.Group, Version: k.Version, Resource: k.Resource, Namespace: namespace, Name: name, Subresource: sub}
}

// read makes an object of a manifest.
func (c *cluster) read(resource, text string) api.Object {
	c.t.Helper()
	k, ok := c.codec.Kinds().ByKey(resource)
	if !ok {
		c.t.Fatalf("no kind %s", resource)
	}
	obj := k.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		c.t.Fatal(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GVK())
	return obj
}

func (c *cluster) create(resource, namespace, text string) (api.Value, error) {
	c.t.Helper()
	return c.api.Create(c.t.Context(), admin, c.at(resource, namespace, "", ""), c.read(resource, text), api.WriteOptions{})
}

func (c *cluster) get(resource, namespace, name string) (api.Object, error) {
	c.t.Helper()
	v, err := c.api.Get(c.t.Context(), admin, c.at(resource, namespace, name, ""), api.GetOptions{})
	if err != nil {
		return nil, err
	}
	return c.object(v), nil
}

func (c *cluster) update(resource string, obj api.Object, sub string) (api.Value, error) {
	c.t.Helper()
	return c.api.Update(c.t.Context(), admin, c.at(resource, obj.GetNamespace(), obj.GetName(), sub), obj, api.WriteOptions{})
}

func (c *cluster) delete(resource, namespace, name string, o metav1.DeleteOptions) (api.Deletion, error) {
	c.t.Helper()
	return c.api.Delete(c.t.Context(), admin, c.at(resource, namespace, name, ""), o)
}

func (c *cluster) snapshot() *store.Snapshot {
	c.t.Helper()
	snap, err := c.store.Snapshot(context.Background(), store.At{})
	if err != nil {
		c.t.Fatal(err)
	}
	return snap
}

// wants checks an error's kind, and how its text begins; a nil kind wants none.
func wants(t testing.TB, err error, kind error, text string) {
	t.Helper()
	switch {
	case kind == nil && err != nil:
		t.Errorf("refused: %v", err)
	case kind != nil && (!errors.Is(err, kind) || !strings.HasPrefix(err.Error(), text)):
		t.Errorf("answered %q (%v), want %v, %q", fmt.Sprint(err), apierr.KindOf(err), kind, text)
	}
}

const (
	aPod = `{metadata: {name: p}, spec: {terminationGracePeriodSeconds: 30, containers: [{name: a, image: a:1, resources: {limits: {memory: 64Mi}}}]}}`

	aDeployment = `{metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: a:1}]}}}}`
)

// boundPod makes a pod that is on a node.
func (c *cluster) boundPod(text, nodeName string) *corev1.Pod {
	c.t.Helper()
	pod := c.must(c.create("pods", "demo", text)).(*corev1.Pod)
	if err := c.api.As(admin).Bind(c.t.Context(), pod, nodeName); err != nil {
		c.t.Fatal(err)
	}
	obj, err := c.get("pods", "demo", pod.Name)
	if err != nil {
		c.t.Fatal(err)
	}
	return obj.(*corev1.Pod)
}

func grace(seconds int64) metav1.DeleteOptions {
	return metav1.DeleteOptions{GracePeriodSeconds: &seconds}
}

func policy(p metav1.DeletionPropagation) metav1.DeleteOptions {
	return metav1.DeleteOptions{PropagationPolicy: &p}
}
