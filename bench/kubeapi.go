package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/wherry-project/wherry/internal/testbed"
)

const (
	apiClients  = 100
	apiObjects  = 10_000 // in the list; pods of apiOwners Deployments in memory
	apiOwners   = 100
	apiWatchers = 1_000
	apiEvents   = 200 // written one by one to the watchers
	apiSpace    = "bench-api"
)

// kubeAPI measures the Kubernetes API over HTTPS, as its clients use it.
func (b *bench) kubeAPI(ctx context.Context) error {
	t := &table{
		title: "The Kubernetes API",
		about: fmt.Sprintf("Over HTTPS with client-go and protobuf, %d clients in one process, ten to a connection, %s per cell; ConfigMaps of 256 B in a namespace of their own, %d of them for the list. "+
			"With three controls the connections go to all in turn. Fan-out: %d watches over ten connections, %d writes, from before the write until each watch has told.",
			apiClients, b.cell, apiObjects, apiWatchers, apiEvents),
		head: []string{"", "1 control", "3 controls", "goal"},
	}
	rows := [][]string{{"create"}, {"get"}, {"patch (merge)"}, {fmt.Sprintf("list of %d, one client", apiObjects)}, {fmt.Sprintf("fan-out to %d watchers", apiWatchers)}}
	goals := make([]string, len(rows))
	for _, n := range []int{1, 3} {
		cells, err := b.kubeCells(ctx, n)
		if err != nil {
			return err
		}
		for i, c := range cells {
			rows[i] = append(rows[i], c.text())
			if g := kubeGoal(i, n, c); g != "" {
				goals[i] = joinGoals(goals[i], g)
			}
		}
	}
	for i, row := range rows {
		t.add(append(row, goals[i])...)
	}
	kept, err := b.podsKept(ctx)
	if err != nil {
		return err
	}
	t.note("A pod of 1.2 KiB with its managed fields takes %.2f KiB of controld's resident memory, index included (%d pods of %d Deployments, created through the API): %s.",
		kept/1024, apiObjects, apiOwners, goal(kept <= 3<<10, "≤ 3 KiB"))
	b.out.show(t)
	return nil
}

func joinGoals(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// kubeGoal compares a cell with what is wanted of it.
func kubeGoal(row, controls int, c cell) string {
	switch {
	case row == 0 && controls == 3:
		return goal(c.rate >= 5000, "≥ 5000/s with three")
	case row == 0:
		return goal(c.took.at(99) <= 50*time.Millisecond, "p99 ≤ 50 ms")
	case row == 1:
		return goal(c.took.at(99) <= 5*time.Millisecond, fmt.Sprintf("p99 ≤ 5 ms with %d", controls))
	case row == 4 && controls == 1:
		return goal(c.took.at(50) <= 3*time.Millisecond, "p50 ≤ 3 ms") + ", " + goal(c.took.at(99) <= 10*time.Millisecond, "p99 ≤ 10 ms")
	}
	return ""
}

// kubeClients makes clients with a connection each, to the controls in turn.
func (d *bed) kubeClients(n int) ([]*kubernetes.Clientset, error) {
	var out []*kubernetes.Clientset
	for i := range n {
		config, err := d.RESTConfig(testbed.Client, d.controls[i%len(d.controls)].Name)
		if err != nil {
			return nil, err
		}
		config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"

		k, err := kubernetes.NewForConfig(rest.CopyConfig(config))
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func (b *bench) kubeCells(ctx context.Context, controls int) (cells []cell, err error) {
	d, err := b.newBed(ctx, controls, 1, b.bin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	clients, err := d.kubeClients(apiClients / 10)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{apiSpace, apiSpace + "-list"} {
		if _, err := clients[0].CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	do := func(n int, f func(ctx context.Context, k *kubernetes.Clientset, client, n int) error) error {
		c, err := load(ctx, n, b.cell, func(ctx context.Context, client, n int) error {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			return f(ctx, clients[client%len(clients)], client, n)
		})
		cells = append(cells, c)
		return err
	}
	err = do(apiClients, func(ctx context.Context, k *kubernetes.Clientset, client, n int) error {
		_, err := k.CoreV1().ConfigMaps(apiSpace).Create(ctx, apiMap(fmt.Sprintf("c%d-%d", client, n)), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	err = do(apiClients, func(ctx context.Context, k *kubernetes.Clientset, client, n int) error {
		_, err := k.CoreV1().ConfigMaps(apiSpace).Get(ctx, fmt.Sprintf("c%d-0", client), metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	err = do(apiClients, func(ctx context.Context, k *kubernetes.Clientset, client, n int) error {
		_, err := k.CoreV1().ConfigMaps(apiSpace).Patch(ctx, fmt.Sprintf("c%d-0", client), types.MergePatchType, []byte(fmt.Sprintf(`{"data":{"n":"%d"}}`, n)), metav1.PatchOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	if err := fillMaps(ctx, clients, apiSpace+"-list"); err != nil {
		return nil, fmt.Errorf("fill the list: %w", err)
	}
	err = do(1, func(ctx context.Context, k *kubernetes.Clientset, _, _ int) error {
		list, err := k.CoreV1().ConfigMaps(apiSpace+"-list").List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) < apiObjects {
			err = fmt.Errorf("%d objects in the list", len(list.Items))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	c, err := fanOut(ctx, clients)
	return append(cells, c), err
}

func apiMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"v": fmt.Sprintf("%0256d", 0)}}
}

// fillMaps creates the objects of the list.
func fillMaps(ctx context.Context, clients []*kubernetes.Clientset, ns string) error {
	return each(ctx, apiObjects, func(i int) error {
		_, err := clients[i%len(clients)].CoreV1().ConfigMaps(ns).Create(ctx, apiMap(fmt.Sprint("m", i)), metav1.CreateOptions{})
		return err
	})
}

// each does n things, some at once.
func each(ctx context.Context, n int, f func(i int) error) error {
	var wg sync.WaitGroup
	next, failed := make(chan int), make(chan error, apiClients)
	for range apiClients {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < n && err == nil; i++ {
		select {
		case next <- i:
		case err = <-failed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	close(next)
	wg.Wait()
	select {
	case late := <-failed:
		err = errors.Join(err, late)
	default:
	}
	return err
}

// fanOut writes to many watchers, and measures how long each waits for each.
func fanOut(ctx context.Context, clients []*kubernetes.Clientset) (c cell, err error) {
	const ns = "default"
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	begun := map[string]time.Time{}
	arrived := make(chan time.Duration, apiWatchers)
	defer wg.Wait()
	defer cancel()
	for i := range apiWatchers {
		w, err := clients[i%len(clients)].CoreV1().ConfigMaps(ns).Watch(ctx, metav1.ListOptions{LabelSelector: "bench=fan"})
		if err != nil {
			return c, err
		}
		wg.Go(func() {
			defer w.Stop()
			for {
				select {
				case e, ok := <-w.ResultChan():
					now := time.Now()
					m, is := e.Object.(*corev1.ConfigMap)
					if !ok || !is {
						return
					}
					mu.Lock()
					at := begun[m.Name]
					mu.Unlock()
					arrived <- now.Sub(at)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	start := time.Now()
	for n := range apiEvents {
		m := apiMap(fmt.Sprint("fan", n))
		m.Labels = map[string]string{"bench": "fan"}
		mu.Lock()
		begun[m.Name] = time.Now()
		mu.Unlock()
		if _, err := clients[0].CoreV1().ConfigMaps(ns).Create(ctx, m, metav1.CreateOptions{}); err != nil {
			return c, err
		}
		for range apiWatchers {
			select {
			case d := <-arrived:
				c.took = append(c.took, d)
			case <-ctx.Done():
				return c, fmt.Errorf("a watcher has not told of write %d: %w", n, ctx.Err())
			}
		}
	}
	c.clients, c.rate = apiWatchers, float64(len(c.took))/time.Since(start).Seconds()
	return c, nil
}

// podsKept gives the bytes of controld's memory that each of many pods takes.
func (b *bench) podsKept(ctx context.Context) (per float64, err error) {
	bin, err := copyPrograms(b.bin, b.dir)
	if err != nil {
		return 0, err
	}
	d, err := b.newBed(ctx, 1, 1, bin)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	clients, err := d.kubeClients(apiClients / 10)
	if err != nil {
		return 0, err
	}
	ns := apiSpace + "-pods"
	if _, err := clients[0].CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	for { // until the namespace's account is there
		_, err := clients[0].CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			break
		}
		if err := errors.Join(pause(ctx, 100*time.Millisecond), ctx.Err()); err != nil {
			return 0, err
		}
	}
	create := func(from, to int) error {
		return each(ctx, to-from, func(i int) error {
			_, err := clients[i%len(clients)].CoreV1().Pods(ns).Create(ctx, benchPod(from+i), metav1.CreateOptions{})
			return err
		})
	}
	measure := func() (int64, error) {
		if err := pause(ctx, settle); err != nil {
			return 0, err
		}
		r, err := d.resident(ctx)
		return r.controld, err
	}
	// The first ones fill what is bounded: caches, the ring of events.
	if err := create(0, apiObjects); err != nil {
		return 0, err
	}
	before, err := measure()
	if err != nil {
		return 0, err
	}
	if err := create(apiObjects, 2*apiObjects); err != nil {
		return 0, err
	}
	after, err := measure()
	return float64(after-before) / apiObjects, err
}

// benchPod is a pod as a Deployment's, which no node takes.
func benchPod(i int) *corev1.Pod {
	app := fmt.Sprintf("web-%03d", i%apiOwners)
	res := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-5d59d67564-%05d", app, i), GenerateName: app + "-5d59d67564-", Labels: map[string]string{"app": app, "pod-template-hash": "5d59d67564"},
			Annotations: map[string]string{"example.com/about": fmt.Sprintf("%0400d", i)},
		},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/never"}},
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/team/web:1.2.3", Resources: corev1.ResourceRequirements{Limits: res, Requests: res},
				Env: []corev1.EnvVar{{Name: "A", Value: "some value"}}, Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			}},
		},
	}
}
