package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	apiClients  = 100
	apiObjects  = 10_000 // in the list; pods of apiOwners Deployments in memory
	apiOwners   = 100
	apiWatchers = 1_000
	apiEvents   = 200 // written one by one to the watchers
	apiSpace    = "bench-api"
)

var fanRow = fmt.Sprintf("fan-out to %d watchers", apiWatchers)

// kubeRows are what is measured of the Kubernetes API, with its goals for one
// control and for three.
var kubeRows = []struct {
	name  string
	goals func(c cell, controls int) string
}{
	{"create", func(c cell, n int) string {
		if n == 3 {
			return goal(c.rate >= 5000, "≥ 5000/s with 3")
		}
		return goal(c.took.at(99) <= 50*time.Millisecond, "p99 ≤ 50 ms")
	}},
	{"— by client-go", nil},
	{"get", func(c cell, n int) string {
		return goal(c.took.at(99) <= 5*time.Millisecond, fmt.Sprintf("p99 ≤ 5 ms with %d", n))
	}},
	{"— by client-go", nil},
	{"patch (merge)", nil},
	{"— by client-go", nil},
	{fmt.Sprintf("list of %d, one client-go", apiObjects), nil},
	{fanRow, func(c cell, n int) string {
		return goal(c.took.at(50) <= 3*time.Millisecond, fmt.Sprintf("p50 ≤ 3 ms with %d", n)) + ", " + goal(c.took.at(99) <= 10*time.Millisecond, "p99 ≤ 10 ms")
	}},
	{"— by client-go", nil},
}

// kubeAPI measures the Kubernetes API over HTTPS.
func (b *bench) kubeAPI(ctx context.Context) error {
	t := &table{
		title: "The Kubernetes API",
		about: fmt.Sprintf("Over HTTPS with protobuf, %d clients in one process, ten to a connection, %s per cell; ConfigMaps of 256 B in a namespace of their own, %d of them for the list. "+
			"With three controls the connections go to all in turn, to each on its own host. The clients of the first line of each pair do no more than HTTP/2 and TLS, as those of other machines would seem to controld; those of the second are client-go's. "+
			"Floor: the same clients at a server of net/http that looks nothing up. Fan-out: %d watches over ten connections, %d writes, from before the write until each watch has told.",
			apiClients, b.cell, apiObjects, apiWatchers, apiEvents),
		head: []string{"", "1 control", "3 controls", "goal"},
	}
	rows := make([][]string, len(kubeRows))
	goals := make([]string, len(kubeRows))
	for _, n := range []int{1, 3} {
		cells, err := b.kubeCells(ctx, n)
		if err != nil {
			return err
		}
		for i, c := range cells {
			rows[i] = append(rows[i], c.text())
			if of := kubeRows[i].goals; of != nil {
				goals[i] = joinGoals(goals[i], of(c, n))
			}
		}
	}
	get, fan, err := b.floorCells(ctx)
	if err != nil {
		return fmt.Errorf("the floor: %w", err)
	}
	floors := map[string]cell{"get": get, fanRow: fan}
	for i, row := range rows {
		t.add(append(append([]string{kubeRows[i].name}, row...), goals[i])...)
		if c, ok := floors[kubeRows[i].name]; ok {
			t.add("— floor", c.text(), "", "")
		}
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

// kubeClients are connections to a cluster's controls in turn, of both sorts.
type kubeClients struct {
	full  []*kubernetes.Clientset
	plain []*plainConn
}

func (d *bed) kubeClients(ctx context.Context, n int) (k *kubeClients, err error) {
	k = &kubeClients{}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
		}
	}()
	for i := range n {
		control := d.controls[i%len(d.controls)].Name
		config, err := d.RESTConfig(control, control)
		if err != nil {
			return k, err
		}
		config.ContentType, config.AcceptContentTypes = protobufMedia, protobufMedia
		full, err := kubernetes.NewForConfig(rest.CopyConfig(config))
		if err != nil {
			return k, err
		}
		plain, err := dialPlain(ctx, config)
		if err != nil {
			return k, err
		}
		k.full, k.plain = append(k.full, full), append(k.plain, plain)
	}
	return k, nil
}

func (k *kubeClients) close() (err error) {
	for _, p := range k.plain {
		err = errors.Join(err, p.close())
	}
	return err
}

const mapsPath = "/api/v1/namespaces/" + apiSpace + "/configmaps"

func (b *bench) kubeCells(ctx context.Context, controls int) (cells []cell, err error) {
	d, err := b.newBed(ctx, controls, 1, b.bin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	clients, err := d.kubeClients(ctx, apiClients/10)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, clients.close()) }()
	for _, name := range []string{apiSpace, apiSpace + "-list"} {
		if _, err := clients.full[0].CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	do := func(what string, n int, f func(ctx context.Context, client, n int) error) {
		if err != nil {
			return
		}
		var c cell
		c, err = load(ctx, n, b.cell, f)
		cells = append(cells, c)
		if err != nil {
			err = fmt.Errorf("%s: %w", what, err)
		}
	}
	plain := func(client int) *plainConn { return clients.plain[client%len(clients.plain)] }
	full := func(client int) *kubernetes.Clientset { return clients.full[client%len(clients.full)] }
	do("create", apiClients, func(ctx context.Context, client, n int) error {
		body, err := protobufOf(apiMap(fmt.Sprintf("p%d-%d", client, n)))
		if err == nil {
			_, err = plain(client).do(ctx, "POST", mapsPath, body, protobufMedia)
		}
		return err
	})
	do("create by client-go", apiClients, func(ctx context.Context, client, n int) error {
		_, err := full(client).CoreV1().ConfigMaps(apiSpace).Create(ctx, apiMap(fmt.Sprintf("c%d-%d", client, n)), metav1.CreateOptions{})
		return err
	})
	do("get", apiClients, func(ctx context.Context, client, n int) error {
		_, err := plain(client).do(ctx, "GET", fmt.Sprintf(mapsPath+"/p%d-0", client), nil, "")
		return err
	})
	do("get by client-go", apiClients, func(ctx context.Context, client, n int) error {
		_, err := full(client).CoreV1().ConfigMaps(apiSpace).Get(ctx, fmt.Sprintf("c%d-0", client), metav1.GetOptions{})
		return err
	})
	do("patch", apiClients, func(ctx context.Context, client, n int) error {
		_, err := plain(client).do(ctx, "PATCH", fmt.Sprintf(mapsPath+"/p%d-0", client), fmt.Appendf(nil, `{"data":{"n":"%d"}}`, n), string(types.MergePatchType))
		return err
	})
	do("patch by client-go", apiClients, func(ctx context.Context, client, n int) error {
		_, err := full(client).CoreV1().ConfigMaps(apiSpace).Patch(ctx, fmt.Sprintf("c%d-0", client), types.MergePatchType, fmt.Appendf(nil, `{"data":{"n":"%d"}}`, n), metav1.PatchOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := fillMaps(ctx, clients.full, apiSpace+"-list"); err != nil {
		return nil, fmt.Errorf("fill the list: %w", err)
	}
	do("list", 1, func(ctx context.Context, _, _ int) error {
		list, err := clients.full[0].CoreV1().ConfigMaps(apiSpace+"-list").List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) < apiObjects {
			err = fmt.Errorf("%d objects in the list", len(list.Items))
		}
		return err
	})
	for _, fan := range []func(context.Context, *kubeClients) (cell, error){plainFanOut, fanOut} {
		if err != nil {
			return nil, err
		}
		var c cell
		c, err = fan(ctx, clients)
		cells = append(cells, c)
	}
	return cells, err
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
