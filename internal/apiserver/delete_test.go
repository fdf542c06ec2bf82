package apiserver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	orphan     = metav1.FinalizerOrphanDependents
	foreground = metav1.FinalizerDeleteDependents
)

func TestDelete(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		uid, rv, other := types.UID(""), "", types.UID("x")
		tests := []struct {
			name   string
			object string // a config map
			o      func(o *metav1.DeleteOptions)
			user   *api.User
			to     string
			kind   error
			text   string
			stays  bool
			left   []string // the finalizers afterwards, if it stays
		}{
			{name: "plain", object: `metadata: {name: a}`},
			{name: "uid", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) { o.Preconditions = &metav1.Preconditions{UID: &uid} }},
			{name: "another uid", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) { o.Preconditions = &metav1.Preconditions{UID: &other} }, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "a": the UID in the precondition (x) does not match the UID in record (`},
			{name: "revision", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) { o.Preconditions = &metav1.Preconditions{ResourceVersion: &rv} }},
			{name: "another revision", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) {
				one := "1"
				o.Preconditions = &metav1.Preconditions{ResourceVersion: &one}
			}, kind: apierr.ErrConflict, text: `Operation cannot be fulfilled on configmaps "a": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (`},
			{name: "finalizer", object: `metadata: {name: a, finalizers: [example.com/f]}`, stays: true, left: []string{"example.com/f"}},
			{name: "foreground", object: `metadata: {name: a}`, o: set(metav1.DeletePropagationForeground), stays: true, left: []string{foreground}},
			{name: "orphan", object: `metadata: {name: a}`, o: set(metav1.DeletePropagationOrphan), stays: true, left: []string{orphan}},
			{name: "orphan by the old option", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) { yes := true; o.OrphanDependents = &yes }, stays: true, left: []string{orphan}},
			{name: "background", object: `metadata: {name: a}`, o: set(metav1.DeletePropagationBackground)},
			{name: "background beats a finalizer", object: `metadata: {name: a, finalizers: [orphan, example.com/f]}`, o: set(metav1.DeletePropagationBackground), stays: true, left: []string{"example.com/f"}},
			{name: "a finalizer stands for a policy", object: `metadata: {name: a, finalizers: [orphan]}`, stays: true, left: []string{orphan}},
			{name: "foreground beats orphan", object: `metadata: {name: a, finalizers: [orphan]}`, o: set(metav1.DeletePropagationForeground), stays: true, left: []string{foreground}},
			{name: "dry", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) { o.DryRun = []string{"All"} }, stays: true},
			{name: "dry otherwise", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) { o.DryRun = []string{"Some"} }, kind: apierr.ErrInvalid, text: `DeleteOptions.meta.k8s.io "" is invalid: dryRun`},
			{name: "two policies", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) {
				yes, p := true, metav1.DeletePropagationOrphan
				o.OrphanDependents, o.PropagationPolicy = &yes, &p
			}, kind: apierr.ErrInvalid, text: `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set`},
			{name: "odd policy", object: `metadata: {name: a}`, o: set("Sideways"), kind: apierr.ErrInvalid, text: `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways"`},
			{name: "not there", object: `metadata: {name: a}`, to: "none", kind: apierr.ErrNotFound, text: `configmaps "none" not found`},
			{name: "not allowed", object: `metadata: {name: a}`, user: &jane, kind: apierr.ErrForbidden, text: `configmaps "a" is forbidden: User "jane" cannot delete`},
			{name: "grace means nothing to it", object: `metadata: {name: a}`, o: func(o *metav1.DeleteOptions) { *o = grace(100) }},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				m := c.must(c.create("configmaps", "demo", tt.object))
				uid, rv = m.GetUID(), m.GetResourceVersion()
				defer func() {
					if left, err := c.get("configmaps", "demo", "a"); err == nil {
						free := left.DeepCopyObject().(*corev1.ConfigMap)
						free.Finalizers = nil
						c.update("configmaps", free, "")
						c.delete("configmaps", "demo", "a", metav1.DeleteOptions{})
					}
				}()
				user, name := admin, "a"
				if tt.user != nil {
					user = *tt.user
				}
				if tt.to != "" {
					name = tt.to
				}
				var o metav1.DeleteOptions
				if tt.o != nil {
					tt.o(&o)
				}
				d, err := c.api.Delete(t.Context(), user, c.at("configmaps", "demo", name, ""), o)
				wants(t, err, tt.kind, tt.text)
				left, gerr := c.get("configmaps", "demo", "a")
				if there := gerr == nil; there != (tt.stays || tt.kind != nil) {
					t.Fatalf("still there: %v (%v)", there, gerr)
				}
				if err != nil {
					return
				}
				if dry := len(o.DryRun) > 0; d.Gone != (!tt.stays || dry) || d.UID != uid || d.Kind.Kind != "ConfigMap" {
					t.Errorf("answered %+v", d)
				}
				obj := c.object(d.Value)
				if obj.GetDeletionTimestamp() == nil || obj.GetDeletionGracePeriodSeconds() == nil || *obj.GetDeletionGracePeriodSeconds() != 0 {
					t.Errorf("answered %+v", obj)
				}
				if tt.left != nil && !slices.Equal(left.GetFinalizers(), tt.left) {
					t.Errorf("finalizers %q, want %q", left.GetFinalizers(), tt.left)
				}
				if left != nil && len(o.DryRun) > 0 && left.GetDeletionTimestamp() != nil {
					t.Errorf("a dry run left %+v", left)
				}
			})
		}
	})
}

func set(p metav1.DeletionPropagation) func(o *metav1.DeleteOptions) {
	return func(o *metav1.DeleteOptions) { o.PropagationPolicy = &p }
}

// TestFinalizers lets an object go when its last finalizer does, and takes no
// new ones before.
func TestFinalizers(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		c.must(c.create("configmaps", "demo", `metadata: {name: a, finalizers: [example.com/f, example.com/g]}`))
		if _, err := c.delete("configmaps", "demo", "a", policy(metav1.DeletePropagationForeground)); err != nil {
			t.Fatal(err)
		}
		step := func(finalizers []string, kind error, text string) api.Object {
			t.Helper()
			obj, err := c.get("configmaps", "demo", "a")
			if err != nil {
				t.Fatal(err)
			}
			next := obj.DeepCopyObject().(*corev1.ConfigMap)
			next.Finalizers, next.DeletionTimestamp = finalizers, nil
			v, err := c.update("configmaps", next, "")
			wants(t, err, kind, text)
			if err != nil {
				return nil
			}
			return c.object(v)
		}
		began, err := c.get("configmaps", "demo", "a")
		if err != nil {
			t.Fatal(err)
		}
		step([]string{"example.com/f", "example.com/g", foreground, "example.com/new"}, apierr.ErrInvalid,
			`ConfigMap "a" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted`)
		if got := step([]string{"example.com/g", foreground}, nil, ""); !got.GetDeletionTimestamp().Equal(began.GetDeletionTimestamp()) {
			t.Errorf("deletion moved to %v", got.GetDeletionTimestamp())
		}
		// Deleting again without a policy keeps the one that was chosen.
		if d, err := c.delete("configmaps", "demo", "a", metav1.DeleteOptions{}); err != nil || d.Gone || !slices.Contains(c.object(d.Value).GetFinalizers(), foreground) {
			t.Errorf("the second delete: %+v, %v", d, err)
		}
		step([]string{foreground}, nil, "")
		last := step(nil, nil, "")
		if last.GetDeletionTimestamp() == nil {
			t.Errorf("last seen as %+v", last)
		}
		_, err = c.get("configmaps", "demo", "a")
		wants(t, err, apierr.ErrNotFound, "")
	})
}

// later is a clock that a test moves.
type later struct {
	mu  sync.Mutex
	now time.Time
}

func (l *later) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *later) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = l.now.Add(d)
}

func timed(t *testing.T) (*cluster, *later) {
	clock := &later{now: time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)}
	codec := api.NewCodec(kinds.Table(), 16<<20)
	return open(t, codec, store.NewLocal(codec), apiserver.Config{Now: clock.Now}), clock
}

func TestGrace(t *testing.T) {
	type step struct {
		after time.Duration
		o     metav1.DeleteOptions
		gone  bool
		grace int64
		due   time.Duration // since the first delete
	}
	tests := []struct {
		name  string
		pod   string
		phase corev1.PodPhase
		free  bool // not on a node
		steps []step
	}{
		{name: "the pod's own", pod: aPod, steps: []step{{grace: 30, due: 30 * time.Second}}},
		{name: "asked for", pod: aPod, steps: []step{{o: grace(100), grace: 100, due: 100 * time.Second}}},
		{name: "negative is one", pod: aPod, steps: []step{{o: grace(-5), grace: 1, due: time.Second}}},
		{name: "none", pod: aPod, steps: []step{{o: grace(0), gone: true}}},
		{name: "on no node", pod: aPod, free: true, steps: []step{{o: grace(100), gone: true}}},
		{name: "ended", pod: aPod, phase: corev1.PodSucceeded, steps: []step{{o: grace(100), gone: true}}},
		{name: "failed", pod: aPod, phase: corev1.PodFailed, steps: []step{{gone: true}}},
		{name: "shorter", pod: aPod, steps: []step{{grace: 30, due: 30 * time.Second}, {after: 2 * time.Second, o: grace(10), grace: 10, due: 10 * time.Second}}},
		{name: "shorter than what has passed", pod: aPod, steps: []step{{grace: 30, due: 30 * time.Second}, {after: 20 * time.Second, o: grace(10), grace: 10, due: 20 * time.Second}}},
		{name: "longer", pod: aPod, steps: []step{{o: grace(5), grace: 5, due: 5 * time.Second}, {after: time.Second, o: grace(50), grace: 5, due: 5 * time.Second}}},
		{name: "again without a word", pod: aPod, steps: []step{{o: grace(100), grace: 100, due: 100 * time.Second}, {after: time.Second, grace: 100, due: 100 * time.Second}}},
		{name: "then at once", pod: aPod, steps: []step{{grace: 30, due: 30 * time.Second}, {after: time.Second, o: grace(0), gone: true}}},
		{name: "then negative", pod: aPod, steps: []step{{grace: 30, due: 30 * time.Second}, {o: grace(-1), grace: 1, due: time.Second}}},
		{name: "held by a finalizer", pod: `{metadata: {name: p, finalizers: [example.com/f]}, spec: {containers: [{name: a, image: b}]}}`,
			steps: []step{{o: grace(0), grace: 0}, {after: time.Second, o: grace(0), grace: 0}, {after: time.Second, o: grace(10), grace: 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, clock := timed(t)
			var pod api.Object
			if tt.free {
				pod = c.must(c.create("pods", "demo", tt.pod))
			} else {
				pod = c.boundPod(tt.pod, "n1")
			}
			if tt.phase != "" {
				p := pod.DeepCopyObject().(*corev1.Pod)
				p.Status.Phase = tt.phase
				c.must(c.update("pods", p, "status"))
			}
			start := clock.Now().Truncate(time.Second)
			for i, s := range tt.steps {
				clock.add(s.after)
				d, err := c.delete("pods", "demo", "p", s.o)
				if err != nil || d.Gone != s.gone {
					t.Fatalf("step %d: gone %v, %v", i, d.Gone, err)
				}
				if s.gone {
					_, err := c.get("pods", "demo", "p")
					wants(t, err, apierr.ErrNotFound, `pods "p" not found`)
					return
				}
				obj, err := c.get("pods", "demo", "p")
				if err != nil {
					t.Fatal(err)
				}
				if g, at := *obj.GetDeletionGracePeriodSeconds(), obj.GetDeletionTimestamp().Sub(start); g != s.grace || at != s.due {
					t.Errorf("step %d: grace %d due %s, want %d, %s", i, g, at, s.grace, s.due)
				}
				if obj.GetGeneration() != 2 {
					t.Errorf("step %d: generation %d", i, obj.GetGeneration())
				}
			}
		})
	}
}

func TestDeleteCollection(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		for i := range 40 {
			finalizers := ""
			if i == 7 {
				finalizers = ", finalizers: [example.com/f]"
			}
			c.must(c.create("configmaps", "demo", fmt.Sprintf(`metadata: {name: m%02d, labels: {odd: "%v"}%s}`, i, i%2 == 1, finalizers)))
		}
		c.must(c.create("configmaps", "default", `metadata: {name: m00, labels: {odd: "true"}}`))
		left := func() int { return c.snapshot().Count("configmaps", "demo") }
		at := c.at("configmaps", "demo", "", "")
		steps := []struct {
			name string
			user api.User
			at   api.Target
			l    api.ListOptions
			o    metav1.DeleteOptions
			kind error
			text string
			n    int
			left int
		}{
			{name: "not allowed", user: jane, at: at, kind: apierr.ErrForbidden, left: 40},
			{name: "bad selector", user: admin, at: at, l: api.ListOptions{Selection: api.Selection{Fields: fields.OneTermEqualSelector("spec.x", "y")}}, kind: apierr.ErrBadRequest, left: 40},
			{name: "bad options", user: admin, at: at, o: policy("Sideways"), kind: apierr.ErrInvalid, left: 40},
			{name: "all namespaces", user: admin, at: c.at("configmaps", "", "", ""), kind: apierr.ErrMethodNotAllowed, text: `the server does not allow this method on the requested resource`, left: 40},
			{name: "namespaces", user: admin, at: c.at("namespaces", "", "", ""), kind: apierr.ErrMethodNotAllowed, left: 40},
			{name: "another's uid", user: admin, at: at, o: metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions("x")}, kind: apierr.ErrConflict, left: 40},
			{name: "dry", user: admin, at: at, o: metav1.DeleteOptions{DryRun: []string{"All"}}, n: 40, left: 40},
			{name: "by field", user: admin, at: at, l: api.ListOptions{Selection: api.Selection{Fields: fields.OneTermEqualSelector("metadata.name", "m03")}}, n: 1, left: 39},
			{name: "limited", user: admin, at: at, l: api.ListOptions{Limit: 4}, n: 4, left: 35},
			{name: "by label", user: admin, at: at, l: api.ListOptions{Selection: api.Selection{Labels: labels.SelectorFromSet(labels.Set{"odd": "true"})}}, n: 18, left: 18},
			{name: "all", user: admin, at: at, n: 18, left: 1},
		}
		for _, s := range steps {
			p, err := c.api.DeleteCollection(ctx, s.user, s.at, s.l, s.o)
			wants(t, err, s.kind, s.text)
			n := 0
			if err == nil {
				n = len(p.Records)
			}
			if n != s.n || left() != s.left {
				t.Errorf("%s: deleted %d, %d left; want %d, %d", s.name, n, left(), s.n, s.left)
			}
		}
		if obj, err := c.get("configmaps", "demo", "m07"); err != nil || obj.GetDeletionTimestamp() == nil {
			t.Errorf("held by a finalizer: %+v, %v", obj, err)
		}
		if _, err := c.get("configmaps", "default", "m00"); err != nil {
			t.Errorf("of another namespace: %v", err)
		}
	})
}

func TestNamespaceLife(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		_, err := c.delete("namespaces", "", "kube-system", metav1.DeleteOptions{})
		wants(t, err, apierr.ErrForbidden, `namespaces "kube-system" is forbidden: this namespace may not be deleted`)
		m := c.must(c.create("configmaps", "demo", `metadata: {name: a}`))
		d, err := c.delete("namespaces", "", "demo", policy(metav1.DeletePropagationBackground))
		if err != nil || d.Gone {
			t.Fatalf("gone %v, %v", d.Gone, err)
		}
		ns := c.object(d.Value).(*corev1.Namespace)
		if ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil || ns.DeletionGracePeriodSeconds != nil || len(ns.Spec.Finalizers) != 1 {
			t.Errorf("namespace %+v", ns)
		}
		_, err = c.create("configmaps", "demo", `metadata: {name: b}`)
		wants(t, err, apierr.ErrForbidden, `configmaps "b" is forbidden: unable to create new content in namespace demo because it is being terminated`)
		if cause := apierr.StatusOf(err).Details.Causes; len(cause) != 1 || cause[0].Type != corev1.NamespaceTerminatingCause {
			t.Errorf("causes %+v", cause)
		}
		upd := m.DeepCopyObject().(*corev1.ConfigMap)
		upd.Data = map[string]string{"k": "v"}
		c.must(c.update("configmaps", upd, ""))
		if _, err := c.delete("configmaps", "demo", "a", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		// Only finalize takes the finalizer away, and the namespace with it.
		n := ns.DeepCopy()
		n.Spec.Finalizers, n.ResourceVersion = nil, ""
		if got := c.must(c.update("namespaces", n, "")).(*corev1.Namespace); len(got.Spec.Finalizers) != 1 {
			t.Errorf("an update took the finalizer: %+v", got.Spec)
		}
		n.Spec.Finalizers = []corev1.FinalizerName{"mine"}
		_, err = c.update("namespaces", n, "finalize")
		wants(t, err, apierr.ErrInvalid, `Namespace "demo" is invalid: spec.finalizers[0]: Invalid value: "mine"`)
		n.Spec.Finalizers, n.Labels, n.Finalizers = nil, map[string]string{"a": "b"}, []string{"example.com/f"}
		got := c.must(c.update("namespaces", n, "finalize")).(*corev1.Namespace)
		if got.Labels["a"] != "" || len(got.Finalizers) != 0 {
			t.Errorf("finalize changed %+v", got.ObjectMeta)
		}
		_, err = c.get("namespaces", "", "demo")
		wants(t, err, apierr.ErrNotFound, `namespaces "demo" not found`)
		_, err = c.create("configmaps", "demo", `metadata: {name: b}`)
		wants(t, err, apierr.ErrNotFound, `namespaces "demo" not found`)
	})
}

// TestNothingLandsInAnEndingNamespace creates as fast as it can while namespaces
// begin to end: what was created at a later revision than the end's beginning
// would be forgotten by who empties it.
func TestNothingLandsInAnEndingNamespace(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		for round := range 10 {
			ns := fmt.Sprintf("ns%d", round)
			c.must(c.create("namespaces", "", `metadata: {name: `+ns+`}`))
			var all sync.WaitGroup
			begun := make(chan struct{})
			for w := range 8 {
				all.Go(func() {
					for i := range 200 {
						_, err := c.create("configmaps", ns, fmt.Sprintf(`metadata: {name: c%d-%d}`, w, i))
						if i == 3 && w == 0 {
							close(begun)
						}
						if err != nil {
							wants(t, err, apierr.ErrForbidden, "configmaps")
							return
						}
					}
				})
			}
			<-begun
			d, err := c.delete("namespaces", "", ns, metav1.DeleteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			all.Wait()
			for r := range c.snapshot().Scan("configmaps", ns, api.Key{}) {
				if r.Revision > d.Record.Revision {
					t.Errorf("%s was created at %d, after the end began at %d", r.Key, r.Revision, d.Record.Revision)
				}
			}
		}
	})
}

func TestDeleteFreesWhatWasAllocated(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		make := func() error {
			_, err := c.create("services", "demo", `{metadata: {name: s}, spec: {type: NodePort, clusterIP: 10.96.7.7, ports: [{port: 80, nodePort: 30333}]}}`)
			return err
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
		_, err := c.create("services", "demo", `{metadata: {name: s2}, spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}}`)
		wants(t, err, apierr.ErrInvalid, `Service "s2" is invalid: spec.clusterIPs: Invalid value: ["10.96.7.7"]: failed to allocate IP 10.96.7.7: provided IP is already allocated`)
		_, err = c.create("services", "demo", `{metadata: {name: s2}, spec: {type: NodePort, ports: [{port: 80, nodePort: 30333}]}}`)
		wants(t, err, apierr.ErrInvalid, `Service "s2" is invalid: spec.ports[0].nodePort: Invalid value: 30333: provided port is already allocated`)
		if _, err := c.delete("services", "demo", "s", metav1.DeleteOptions{DryRun: []string{"All"}}); err != nil {
			t.Fatal(err)
		}
		_, err = c.create("services", "demo", `{metadata: {name: s2}, spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}}`)
		wants(t, err, apierr.ErrInvalid, "")
		if _, err := c.delete("services", "demo", "s", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := make(); err != nil {
			t.Errorf("after the delete: %v", err)
		}
		n := c.must(c.create("nodes", "", `metadata: {name: n1}`)).(*corev1.Node)
		_, err = c.create("nodes", "", `{metadata: {name: n2}, spec: {podCIDR: `+n.Spec.PodCIDR+`}}`)
		wants(t, err, apierr.ErrInvalid, `Node "n2" is invalid: spec.podCIDR: Invalid value: "`+n.Spec.PodCIDR+`": is already given to another node`)
		if _, err := c.delete("nodes", "", "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if n = c.must(c.create("nodes", "", `{metadata: {name: n2}, spec: {podCIDR: `+n.Spec.PodCIDR+`}}`)).(*corev1.Node); !strings.HasSuffix(n.Spec.PodCIDR, ".0/24") {
			t.Errorf("node %+v", n.Spec)
		}
	})
}

// crowd counts how many commit at once.
type crowd struct {
	store.Store
	now, most atomic.Int32
}

func (s *crowd) Commit(ctx context.Context, c store.Command) (uint64, error) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	time.Sleep(time.Millisecond)
	return s.Store.Commit(ctx, c)
}

func TestDeleteCollectionIsBounded(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 1<<20)
	s := &crowd{Store: store.NewLocal(codec)}
	c := open(t, codec, s, apiserver.Config{})
	for i := range 100 {
		c.must(c.create("configmaps", "demo", fmt.Sprintf(`metadata: {name: m%d}`, i)))
	}
	p, err := c.api.DeleteCollection(t.Context(), admin, c.at("configmaps", "demo", "", ""), api.ListOptions{}, metav1.DeleteOptions{})
	if err != nil || len(p.Records) != 100 {
		t.Errorf("deleted %+v, %v", p, err)
	}
	if most := s.most.Load(); most < 2 || most > 16 {
		t.Errorf("%d at once", most)
	}
}
