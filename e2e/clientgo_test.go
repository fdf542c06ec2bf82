package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	appsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/wherry-project/wherry/internal/testbed"
)

const (
	protobufType = "application/vnd.kubernetes.protobuf"
	syncWrites   = 10_000
	syncWriters  = 20
)

// plainLists makes a reflector list and watch, as before client-go 1.35.
type plainLists struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is what reflectors ask.
func (plainLists) IsWatchListSemanticsUnSupported() bool { return true }

// seen is an informer under test and what its handlers were told.
type seen struct {
	name     string
	cut      *cutter
	informer cache.SharedIndexInformer

	mu   sync.Mutex
	last map[string]uint64 // revision by name, 0 when deleted
	errs []error
}

func revisionIn(obj any) (name string, n uint64, err error) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return "", 0, err
	}
	n, err = strconv.ParseUint(m.GetResourceVersion(), 10, 64)
	return m.GetName(), n, err
}

// note checks that an object's revisions only go up, and that it comes and goes
// in turn.
func (s *seen) note(what string, obj any) {
	name, n, err := revisionIn(obj)
	s.mu.Lock()
	defer s.mu.Unlock()
	was, there := s.last[name]
	switch {
	case err != nil:
	case what == "add" && there, what != "add" && !there:
		err = fmt.Errorf("%s of %s at %d: there before: %v", what, name, n, there)
	case what == "update" && n < was: // what is listed again is told again
		err = fmt.Errorf("%s of %s from %d to %d", what, name, was, n)
	}
	if err != nil && len(s.errs) < 10 {
		s.errs = append(s.errs, err)
	}
	s.last[name] = n
	if what == "delete" {
		delete(s.last, name)
	}
}

// inform starts an informer of a namespace's ConfigMaps.
func inform(t *testing.T, ns, media string, plain bool) *seen {
	t.Helper()
	config, err := suite.RESTConfig(testbed.Client, "")
	if err != nil {
		t.Fatal(err)
	}
	s := &seen{name: media, cut: &cutter{bodies: map[*cutBody]bool{}}, last: map[string]uint64{}}
	config.ContentType, config.AcceptContentTypes = media, media
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		s.cut.RoundTripper = rt
		return s.cut
	})
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return k.CoreV1().ConfigMaps(ns).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return k.CoreV1().ConfigMaps(ns).Watch(ctx, o)
		},
	}
	var from cache.ListerWatcher = lw
	if plain {
		s.name += " plain"
		from = plainLists{lw}
	}
	s.informer = cache.NewSharedIndexInformer(from, &corev1.ConfigMap{}, 0, nil)
	if _, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.note("add", obj) },
		UpdateFunc: func(_, obj any) { s.note("update", obj) },
		DeleteFunc: func(obj any) { s.note("delete", obj) },
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.informer.RunWithContext(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, func() error {
		if !s.informer.HasSynced() {
			return errors.New("the informer is not in sync")
		}
		return nil
	})
	return s
}

// busy writes ConfigMaps, each name by one writer: makes it, changes it, takes it
// away. It notes the revisions that were acknowledged.
type busy struct {
	k     *kubernetes.Clientset
	ns    string
	count atomic.Int64

	mu    sync.Mutex
	acked map[uint64]string
	lost  int // writes without an answer
}

func (b *busy) ack(m *corev1.ConfigMap, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.lost++
		return
	}
	n, _ := strconv.ParseUint(m.ResourceVersion, 10, 64)
	b.acked[n] = m.Name
	b.count.Add(1)
}

func (b *busy) write(ctx context.Context, writer int) {
	maps := b.k.CoreV1().ConfigMaps(b.ns)
	for i := 0; b.count.Load() < syncWrites && ctx.Err() == nil; i++ {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("w%02d-%d", writer, i%10)}, Data: map[string]string{"i": strconv.Itoa(i)}}
		within, cancel := context.WithTimeout(ctx, 5*time.Second)
		switch i / 10 % 5 {
		case 0:
			made, err := maps.Create(within, m, metav1.CreateOptions{})
			if !apierrors.IsAlreadyExists(err) { // made without an answer, or not taken away
				b.ack(made, err)
			}
		case 4:
			if err := maps.Delete(within, m.Name, metav1.DeleteOptions{}); err == nil {
				b.count.Add(1)
			}
		default:
			made, err := maps.Update(within, m, metav1.UpdateOptions{})
			if !apierrors.IsNotFound(err) {
				b.ack(made, err)
			}
		}
		cancel()
	}
}

// follow notes every revision that a watch tells which goes on by itself.
func follow(ctx context.Context, t *testing.T, k *kubernetes.Clientset, ns, from string) (told func() (map[uint64]int, []error)) {
	t.Helper()
	w, err := watchtools.NewRetryWatcherWithContext(ctx, from, &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		return k.CoreV1().ConfigMaps(ns).Watch(ctx, o)
	}})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var errs []error
	revisions, last := map[uint64]int{}, uint64(0)
	go func() {
		for e := range w.ResultChan() {
			_, n, err := revisionIn(e.Object)
			mu.Lock()
			if err == nil && n <= last {
				err = fmt.Errorf("%s at %d after %d", e.Type, n, last)
			}
			if err != nil {
				errs = append(errs, err)
			}
			last = n
			revisions[n]++
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { w.Stop(); <-w.Done() })
	return func() (map[uint64]int, []error) {
		mu.Lock()
		defer mu.Unlock()
		out := map[uint64]int{}
		for n, times := range revisions {
			out[n] = times
		}
		return out, errs
	}
}

// TestClientGoInformers keeps informers in sync over many writes, while the
// leader is killed and while the server forgets what they saw last.
func TestClientGoInformers(t *testing.T) {
	breaks(t)
	ns := namespace(t)
	k := kube(t, "")
	list, err := k.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	told := follow(t.Context(), t, k, ns, list.ResourceVersion)
	var all []*seen
	for _, media := range []string{"application/json", protobufType} {
		all = append(all, inform(t, ns, media, false), inform(t, ns, media, true))
	}
	b := &busy{k: k, ns: ns, acked: map[uint64]string{}}
	var writing sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer writing.Wait()
	defer cancel()
	began := time.Now()
	for i := range syncWriters {
		writing.Go(func() { b.write(ctx, i) })
	}
	reach := func(n int64) {
		t.Helper()
		eventually(t, func() error {
			if got := b.count.Load(); got < n {
				return fmt.Errorf("%d writes, want %d", got, n)
			}
			return nil
		})
	}
	reach(syncWrites / 4)
	was := leader(t)
	if err := suite.Kill(t.Context(), was, ""); err != nil {
		t.Fatal(err)
	}
	reach(syncWrites / 2)
	if err := suite.Start(t.Context(), was, ""); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		eventually(t, func() error { // what is cut off must have seen something
			if !s.cut.watching() {
				return fmt.Errorf("%s does not watch", s.name)
			}
			return nil
		})
		s.cut.cut()
	}
	forget(t, k, ns)
	for _, s := range all {
		s.cut.resume()
	}
	reach(syncWrites)
	writing.Wait()
	took := time.Since(began)
	for _, s := range all {
		s.check(t, k, ns)
	}
	eventually(t, func() error {
		got, _ := told()
		for n, name := range b.acked {
			if got[n] != 1 {
				return fmt.Errorf("%s at %d was told %d times", name, n, got[n])
			}
		}
		return nil
	})
	if _, errs := told(); len(errs) > 0 {
		t.Errorf("a watch that goes on by itself: %v", errs[:min(len(errs), 5)])
	}
	t.Logf("%d writes in %v, %d without an answer", b.count.Load(), took.Round(time.Millisecond), b.lost)
}

// forget writes until the servers have forgotten all that was before.
func forget(t *testing.T, k *kubernetes.Clientset, ns string) {
	t.Helper()
	big := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "big"}}
	list, err := k.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // the leader may change meanwhile
		_, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), big, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			err = nil
		}
		return err
	})
	for i := range 400 {
		big.Data = map[string]string{"k": strings.Repeat(strconv.Itoa(i%10), 900<<10)}
		eventually(t, func() error {
			_, err := k.CoreV1().ConfigMaps(ns).Update(t.Context(), big, metav1.UpdateOptions{})
			return err
		})
		if i%10 != 9 {
			continue
		}
		_, err := k.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact, Limit: 1})
		if apierrors.IsResourceExpired(err) {
			return
		}
	}
	t.Fatal("the servers forget nothing")
}

// check compares the cache with what is stored.
func (s *seen) check(t *testing.T, k *kubernetes.Clientset, ns string) {
	t.Helper()
	eventually(t, func() error {
		list, err := k.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if got := len(s.informer.GetStore().List()); got != len(list.Items) {
			return fmt.Errorf("%s holds %d objects of %d", s.name, got, len(list.Items))
		}
		for i := range list.Items {
			obj, _, err := s.informer.GetStore().GetByKey(ns + "/" + list.Items[i].Name)
			got, ok := obj.(*corev1.ConfigMap)
			if err != nil || !ok || !reflect.DeepEqual(got.ObjectMeta, list.Items[i].ObjectMeta) || !reflect.DeepEqual(got.Data, list.Items[i].Data) {
				return fmt.Errorf("%s holds another %s: %v", s.name, list.Items[i].Name, err)
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) > 0 {
		t.Errorf("%s: %v", s.name, errors.Join(s.errs...))
	}
	if s.cut.expired.Load() == 0 {
		t.Errorf("%s was never told that it is too old", s.name)
	}
	if plain := strings.HasSuffix(s.name, "plain"); plain && (s.cut.lists.Load() < 2 || s.cut.initial.Load() > 0) || !plain && s.cut.initial.Load() < 2 {
		t.Errorf("%s made %d lists and %d watches that begin with what is there", s.name, s.cut.lists.Load(), s.cut.initial.Load())
	}
}

// TestClientGoElection lets two candidates have a Lease in turn.
func TestClientGoElection(t *testing.T) {
	ns := namespace(t)
	k := kube(t, "")
	leads := make(chan string, 4)
	run := func(ctx context.Context, id string) {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock:          &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: ns, Name: "boss"}, Client: k.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: id}},
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 200 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { leads <- id }, OnStoppedLeading: func() {}},
		})
	}
	var running sync.WaitGroup
	defer running.Wait()
	first, resign := context.WithCancel(t.Context())
	defer resign()
	running.Go(func() { run(first, "one") })
	next := func(want string) {
		t.Helper()
		select {
		case got := <-leads:
			if got != want {
				t.Errorf("%s leads, want %s", got, want)
			}
		case <-time.After(2 * patience):
			t.Fatalf("%s does not lead", want)
		}
	}
	next("one")
	second, end := context.WithCancel(t.Context())
	defer end()
	running.Go(func() { run(second, "two") })
	resign()
	next("two")
	lease, err := k.CoordinationV1().Leases(ns).Get(t.Context(), "boss", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != "two" || *lease.Spec.LeaseTransitions != 1 {
		t.Errorf("lease %+v, %v", lease.Spec, err)
	}
}

// TestClientGoDynamic works without Go types, and an informer of metadata only
// sees it.
func TestClientGoDynamic(t *testing.T) {
	ns := namespace(t)
	config, err := suite.RESTConfig(testbed.Client, "")
	if err != nil {
		t.Fatal(err)
	}
	d, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := metadata.NewForConfig(rest.CopyConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	gvr := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	informer := metadatainformer.NewFilteredMetadataInformer(m, gvr, ns, 0, nil, nil).Informer()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); informer.RunWithContext(ctx) }()
	defer func() { cancel(); <-done }()
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{
			"replicas": int64(0), "selector": map[string]any{"matchLabels": map[string]any{"app": "web"}},
			"template": map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "web"}}, "spec": map[string]any{"containers": []any{map[string]any{"name": "a", "image": "a:1"}}}},
		},
	}}
	c := d.Resource(gvr).Namespace(ns)
	made, err := c.Create(t.Context(), obj, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(t.Context(), metav1.ListOptions{ResourceVersion: made.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := c.Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Modified {
		t.Errorf("watched %v", e)
	}
	list, err := c.List(t.Context(), metav1.ListOptions{LabelSelector: "a=b"})
	if err != nil || len(list.Items) != 1 || list.GetKind() != "DeploymentList" || list.Items[0].GetKind() != "Deployment" {
		t.Errorf("list %+v, %v", list, err)
	}
	scale, err := c.Get(t.Context(), "web", metav1.GetOptions{}, "scale")
	if err != nil || scale.GetKind() != "Scale" {
		t.Errorf("scale %+v, %v", scale, err)
	}
	await := func(labels int) {
		t.Helper()
		eventually(t, func() error {
			for _, o := range informer.GetStore().List() {
				if p, ok := o.(*metav1.PartialObjectMetadata); ok && p.Name == "web" && len(p.Labels) == labels && p.UID == made.GetUID() {
					return nil
				}
			}
			return fmt.Errorf("the informer of metadata has not seen %d labels", labels)
		})
	}
	await(1)
	if err := c.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "a=b"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if n := len(informer.GetStore().List()); n > 0 {
			return fmt.Errorf("%d deployments in the cache", n)
		}
		return nil
	})
}

// TestClientGoApply applies typed configurations of two managers that want the
// same field.
func TestClientGoApply(t *testing.T) {
	ns := namespace(t)
	c := kube(t, "").AppsV1().Deployments(ns)
	want := func(replicas int32, image string) *appsv1.DeploymentApplyConfiguration {
		labels := map[string]string{"app": "web"}
		return appsv1.Deployment("web", ns).WithSpec(appsv1.DeploymentSpec().WithReplicas(replicas).
			WithSelector(applymeta.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(applycore.PodTemplateSpec().WithLabels(labels).WithSpec(applycore.PodSpec().
				WithContainers(applycore.Container().WithName("a").WithImage(image)))))
	}
	made, err := c.Apply(t.Context(), want(0, "a:1"), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Apply(t.Context(), want(0, "a:1"), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil || again.Generation != made.Generation {
		t.Errorf("applied again: %+v, %v", again, err)
	}
	_, err = c.Apply(t.Context(), want(0, "a:2"), metav1.ApplyOptions{FieldManager: "two"})
	var st apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &st) {
		t.Fatalf("a conflict: %v", err)
	}
	if s := st.Status(); s.Message != `Apply failed with 1 conflict: conflict with "one": .spec.template.spec.containers[name="a"].image` ||
		len(s.Details.Causes) != 1 || s.Details.Causes[0].Type != metav1.CauseTypeFieldManagerConflict || s.Details.Causes[0].Message != `conflict with "one"` {
		t.Errorf("conflict %+v", s)
	}
	taken, err := c.Apply(t.Context(), want(0, "a:2"), metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil || taken.Spec.Template.Spec.Containers[0].Image != "a:2" {
		t.Fatalf("taken by force: %+v, %v", taken, err)
	}
	mine, err := appsv1.ExtractDeployment(taken, "two")
	if err != nil || mine.Spec == nil || *mine.Spec.Template.Spec.Containers[0].Image != "a:2" {
		t.Errorf("what two owns: %+v, %v", mine, err)
	}
	if _, err := c.Apply(t.Context(), appsv1.Deployment("web", ns).WithResourceVersion("1"), metav1.ApplyOptions{FieldManager: "one"}); !apierrors.IsConflict(err) {
		t.Errorf("a stale revision: %v", err)
	}
}
