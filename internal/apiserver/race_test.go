package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

// TestManyIncrement lets a hundred count at once, each in its own way: nothing
// that was acknowledged may be lost.
func TestManyIncrement(t *testing.T) {
	const times = 2
	both(t, func(t *testing.T, c *cluster) {
		ways := []struct {
			name string
			many int
			one  func(ctx context.Context, who int) error
		}{
			{"with a revision", 100, func(ctx context.Context, _ int) error { return c.increment(ctx) }},
			{"each a field of its own", 100, func(ctx context.Context, who int) error {
				patch := fmt.Sprintf(`{"metadata":{"annotations":{"w%d":"x"}}}`, who)
				_, err := c.api.Patch(ctx, admin, c.at("configmaps", "demo", "counter", ""), types.MergePatchType, []byte(patch), api.WriteOptions{})
				return err
			}},
			{"server-side apply", 30, func(ctx context.Context, who int) error {
				patch := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\ndata: {k%d: x}", who)
				_, err := c.api.Patch(ctx, admin, c.at("configmaps", "demo", "counter", ""), types.ApplyPatchType, []byte(patch), api.WriteOptions{FieldManager: fmt.Sprint("m", who)})
				return err
			}},
			{"status without a revision", 100, func(ctx context.Context, who int) error {
				pod := c.read("pods", aPod)
				pod.SetNamespace("demo")
				pod.(*corev1.Pod).Status.Message = fmt.Sprint(who, time.Now())
				_, err := c.api.Update(ctx, admin, c.at("pods", "demo", "p", "status"), pod, api.WriteOptions{})
				return err
			}},
		}
		c.must(c.create("pods", "demo", aPod))
		for _, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				c.must(c.create("configmaps", "demo", `metadata: {name: counter, annotations: {"n": "0"}}`))
				defer c.delete("configmaps", "demo", "counter", metav1.DeleteOptions{})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				var all sync.WaitGroup
				for who := range way.many {
					all.Go(func() {
						for range times {
							if err := way.one(ctx, who); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				obj, err := c.get("configmaps", "demo", "counter")
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]int{
					"with a revision":           number(obj.GetAnnotations()["n"]) / times,
					"each a field of its own":   len(obj.GetAnnotations()) - 1,
					"server-side apply":         len(obj.(*corev1.ConfigMap).Data),
					"status without a revision": way.many,
				}[way.name]
				if got != way.many {
					t.Errorf("%d of %d are there: %v", got, way.many, obj.GetAnnotations())
				}
			})
		}
	})
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

// increment adds one to the counter's annotation as clients do: read, change,
// write, and start over when somebody was faster.
func (c *cluster) increment(ctx context.Context) error {
	at := c.at("configmaps", "demo", "counter", "")
	for {
		v, err := c.api.Get(ctx, admin, at, api.GetOptions{})
		if err != nil {
			return err
		}
		shared, err := c.codec.Decode(v.Record)
		if err != nil {
			return err
		}
		m := shared.DeepCopyObject().(*corev1.ConfigMap)
		m.Annotations["n"] = strconv.Itoa(number(m.Annotations["n"]) + 1)
		_, err = c.api.Update(ctx, admin, at, m, api.WriteOptions{})
		if !errors.Is(err, apierr.ErrConflict) {
			return err
		}
	}
}

// TestApplyRacesToCreate lets many apply what is not there yet: one makes it,
// the others change that.
func TestApplyRacesToCreate(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		var all sync.WaitGroup
		var created atomic.Int32
		for who := range 30 {
			all.Go(func() {
				patch := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\ndata: {k%d: x}", who)
				v, err := c.api.Patch(t.Context(), admin, c.at("configmaps", "demo", "shared", ""), types.ApplyPatchType, []byte(patch), api.WriteOptions{FieldManager: fmt.Sprint("m", who)})
				if err != nil {
					t.Error(err)
				}
				if v.Created {
					created.Add(1)
				}
			})
		}
		all.Wait()
		obj, err := c.get("configmaps", "demo", "shared")
		if err != nil || len(obj.(*corev1.ConfigMap).Data) != 30 || len(obj.GetManagedFields()) != 30 || created.Load() != 1 {
			t.Errorf("%d made it: %+v, %v", created.Load(), obj, err)
		}
	})
}

// TestNothingIsGivenTwice lets many ask for addresses, ports, ranges and names
// at once.
func TestNothingIsGivenTwice(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		const many = 60
		var mu sync.Mutex
		given := map[string]string{}
		give := func(what, whom string) {
			mu.Lock()
			defer mu.Unlock()
			if other, twice := given[what]; twice {
				t.Errorf("%s was given to %s and %s", what, other, whom)
			}
			given[what] = whom
		}
		var fixed, names atomic.Int32
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				name := fmt.Sprint("s", i)
				v, err := c.create("services", "demo", `{metadata: {name: `+name+`}, spec: {type: NodePort, ports: [{name: a, port: 80}, {name: b, port: 53, protocol: UDP}]}}`)
				if err != nil {
					t.Error(err)
					return
				}
				svc := c.object(v).(*corev1.Service)
				give(svc.Spec.ClusterIP, name)
				for _, p := range svc.Spec.Ports {
					give(fmt.Sprint(p.Protocol, p.NodePort), name)
				}
				if i%3 == 0 {
					mu.Lock() // it may be given again
					delete(given, svc.Spec.ClusterIP)
					for _, p := range svc.Spec.Ports {
						delete(given, fmt.Sprint(p.Protocol, p.NodePort))
					}
					mu.Unlock()
					if _, err := c.delete("services", "demo", name, metav1.DeleteOptions{}); err != nil {
						t.Error(err)
					}
				}
			})
			all.Go(func() {
				name := fmt.Sprint("n", i)
				v, err := c.create("nodes", "", `metadata: {name: `+name+`}`)
				if err != nil {
					t.Error(err)
					return
				}
				give(c.object(v).(*corev1.Node).Spec.PodCIDR, name)
			})
			all.Go(func() { // one of them gets it
				_, err := c.create("services", "demo", fmt.Sprintf(`{metadata: {name: f%d}, spec: {clusterIP: 10.96.0.77, ports: [{port: 80}]}}`, i))
				if err == nil {
					fixed.Add(1)
				} else if !errors.Is(err, apierr.ErrInvalid) {
					t.Error(err)
				}
			})
			all.Go(func() {
				v, err := c.create("configmaps", "demo", `metadata: {generateName: g-}`)
				if err != nil {
					t.Error(err)
					return
				}
				give(c.object(v).GetName(), "a config map")
				names.Add(1)
			})
		}
		all.Wait()
		if fixed.Load() != 1 || names.Load() != many {
			t.Errorf("the fixed address was given %d times, %d names", fixed.Load(), names.Load())
		}
	})
}

// taken is a store in which every generated name is there already.
type taken struct {
	store.Store
	commits atomic.Int32
}

func (s *taken) Commit(ctx context.Context, c store.Command) (uint64, error) {
	for _, change := range c.Changes {
		if change.Key.Resource == "configmaps" {
			s.commits.Add(1)
			return 0, &store.CompareError{Key: change.Key, Current: 1}
		}
	}
	return s.Store.Commit(ctx, c)
}

func TestNamesRunOut(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 1<<20)
	s := store.NewLocal(codec)
	c := open(t, codec, s, apiserver.Config{})
	full := &full{Store: s}
	c.api = apiserver.New(apiserver.Config{Store: full, Codec: codec, Alloc: ranges()})
	_, err := c.create("configmaps", "demo", `metadata: {generateName: g-}`)
	wants(t, err, apierr.ErrAlreadyExists, `configmaps "g-`)
	if st := apierr.StatusOf(err); st.Details.RetryAfterSeconds != 1 {
		t.Errorf("status %+v", st)
	}
	if n := full.tries.Load(); n != 8 {
		t.Errorf("tried %d names", n)
	}
	// Whoever loses every race is told to come again, and does not try for ever.
	lost := &taken{Store: s}
	c.api = apiserver.New(apiserver.Config{Store: lost, Codec: codec, Alloc: ranges()})
	_, err = c.create("configmaps", "demo", `metadata: {name: a}`)
	wants(t, err, apierr.ErrServerTimeout, "")
	if n := lost.commits.Load(); n < 100 || n > 500 {
		t.Errorf("tried %d times", n)
	}
}

// full puts an object of any name in the way of whoever commits one.
type full struct {
	store.Store
	tries atomic.Int32
}

func (s *full) Commit(ctx context.Context, c store.Command) (uint64, error) {
	for _, change := range c.Changes {
		if change.Key.Resource != "configmaps" {
			continue
		}
		s.tries.Add(1)
		if _, err := s.Store.Commit(ctx, store.Command{Changes: []store.Change{change}}); err != nil {
			return 0, err
		}
		return 0, &store.CompareError{Key: change.Key}
	}
	return s.Store.Commit(ctx, c)
}

// unsure does what it is asked and says that it does not know.
type unsure struct{ store.Store }

func (s unsure) Commit(ctx context.Context, c store.Command) (uint64, error) {
	if _, err := s.Store.Commit(ctx, c); err != nil {
		return 0, err
	}
	return 0, apierr.New(apierr.ErrTimeout, "the outcome is unknown")
}

// TestAnUnknownOutcomeIsTold does not try again what may have been done: it
// would meet its own result, and call it another's.
func TestAnUnknownOutcomeIsTold(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 1<<20)
	s := store.NewLocal(codec)
	c := open(t, codec, s, apiserver.Config{})
	m := c.must(c.create("configmaps", "demo", `metadata: {name: there}`))
	c.api = apiserver.New(apiserver.Config{Store: unsure{s}, Codec: codec, Alloc: ranges()})
	_, err := c.create("configmaps", "demo", `metadata: {name: a}`)
	wants(t, err, apierr.ErrTimeout, "the outcome is unknown")
	next := m.DeepCopyObject().(*corev1.ConfigMap)
	next.Data = map[string]string{"k": "v"}
	_, err = c.update("configmaps", next, "")
	wants(t, err, apierr.ErrTimeout, "the outcome is unknown")
	_, err = c.delete("configmaps", "demo", "there", metav1.DeleteOptions{})
	wants(t, err, apierr.ErrTimeout, "the outcome is unknown")
}
