package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/wherry-project/wherry/internal/testbed"
)

const (
	oneByOne = 60
	atOnce   = 100
)

// pods measures how long a pod takes, beside the floor.
func (b *bench) pods(ctx context.Context) error {
	t := &table{
		title: "Pod created by the API → Running seen by a watch",
		about: fmt.Sprintf("The image is on the node. A client creates the pod over HTTPS and a watch of its own sees phase Running. One by one: %d pods; at once: %d. "+
			"CPU a pod: processor time of its start, of those at once. Nothing is removed meanwhile.", oneByOne, atOnce),
		head: []string{"", "one by one p50", "p99", "at once", "p50", "p99", "CPU a pod", "goal"},
	}
	err := b.floor(ctx, t)
	ways := &table{
		title: "Where a pod's time goes",
		about: "The same pods, one by one, as the watch saw them: p50 (p99) since the create was sent.",
		head:  []string{"", "create answered", "bound to a node", "Running"},
	}
	sizes := [][2]int{{3, 2}, {1, 1}}
	for _, size := range sizes {
		name := fmt.Sprintf("Wherry, %d controld, %d noded, one machine", size[0], size[1])
		d, e := b.bed(ctx, size[0], size[1])
		if e != nil {
			return errors.Join(err, e)
		}
		r, e := b.podTimes(ctx, d)
		if e != nil {
			return errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
		one, all := running(r.single), running(r.many)
		rate := float64(atOnce) / r.wall.Seconds()
		t.add(name, one.p50(), one.p99(), perSecond(rate), all.p50(), all.p99(),
			fmt.Sprintf("%s + %s of controld", millis(r.cpu[testbed.RoleNode]/atOnce), millis(r.cpu[testbed.RoleControl]/atOnce)),
			goal(one.at(50) <= 60*time.Millisecond, "p50 ≤ 60 ms")+", "+goal(one.at(99) <= 200*time.Millisecond, "p99 ≤ 200 ms")+", "+goal(rate >= 40, "≥ 40 pods/s"))
		var created, bound samples
		for _, p := range r.single {
			created = append(created, p.created)
			bound = append(bound, p.bound)
		}
		both := func(s samples) string { return fmt.Sprintf("%s (%s)", s.p50(), s.p99()) }
		ways.add(name, both(created), both(bound), both(one))
	}
	b.out.show(t)
	b.out.show(ways)
	for _, size := range sizes {
		err = errors.Join(err, b.beds[size].clearPods(ctx))
	}
	return err
}

// clearPods removes all pods of the namespace.
func (d *bed) clearPods(ctx context.Context) error {
	w, err := d.watchPods(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	list, err := d.kube.CoreV1().Pods(podNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	w.mu.Lock()
	for _, p := range list.Items {
		w.pods[p.Name] = &followed{ended: "removed", running: make(chan struct{})}
	}
	w.mu.Unlock()
	return w.clear(ctx)
}

// floor adds the rows of what the kernel and libcontainer take alone.
func (b *bench) floor(ctx context.Context, t *table) error {
	program, err := b.buildFloor(ctx)
	if err != nil {
		return err
	}
	runs := []floorRun{
		{name: "floor: namespace, veth, address, overlay, libcontainer in one process"},
		{name: "the same with the default seccomp profile, built each time", seccomp: true},
	}
	if path, err := exec.LookPath("runc"); err == nil {
		runs = append(runs, floorRun{name: "the same by Debian's runc program", runc: path})
	} else {
		t.note("Debian's runc program is not installed; with it, a row shows it.")
	}
	for _, f := range runs {
		f.pods, f.parallel = oneByOne, 1
		single, err := b.runFloor(ctx, program, f)
		if err != nil {
			return err
		}
		f.pods, f.parallel = atOnce, 4
		many, err := b.runFloor(ctx, program, f)
		if err != nil {
			return err
		}
		one, all := durations(single.Total), durations(many.Total)
		t.add(f.name, one.p50(), one.p99(), perSecond(float64(atOnce)/many.Wall*1000)+" (4 at a time)", all.p50(), all.p99(), millis(time.Duration(many.CPU/atOnce*float64(time.Millisecond))), "")
		if f.runc == "" && !f.seccomp {
			t.note("The floor's parts, p50: network %s, overlay %s, container %s.",
				durations(single.Network).p50(), durations(single.Mount).p50(), durations(single.Container).p50())
		}
	}
	return nil
}

// podTime is when things were seen of one pod, since its create was sent.
type podTime struct {
	start                   time.Time
	created, bound, running time.Duration
}

func running(all []podTime) samples {
	var s samples
	for _, p := range all {
		s = append(s, p.running)
	}
	return s
}

const podNamespace = "bench"

// podRun is what was measured on one bed.
type podRun struct {
	single, many []podTime
	wall         time.Duration                  // of all at once
	cpu          map[testbed.Role]time.Duration // of all at once
}

// podTimes starts pods one by one and then all at once. It removes none: on a
// file system without a journal the kernel takes long to make files where
// others were removed a moment ago, and the next figures would show that.
func (b *bench) podTimes(ctx context.Context, d *bed) (r podRun, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	_, err = d.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: podNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return r, err
	}
	w, err := d.watchPods(ctx)
	if err != nil {
		return r, err
	}
	defer w.stop()
	for i := range 3 { // the first ones pay for what is done once
		if _, err := w.start(ctx, fmt.Sprint("warm", i), ""); err != nil {
			return r, err
		}
	}
	for i := range oneByOne {
		p, err := w.start(ctx, fmt.Sprint("one", i), "")
		if err != nil {
			return r, err
		}
		r.single = append(r.single, p)
	}
	before, err := d.cpuTime(ctx)
	if err != nil {
		return r, err
	}
	if r.many, r.wall, err = w.startMany(ctx, atOnce, ""); err != nil {
		return r, err
	}
	r.cpu, err = d.cpuTime(ctx)
	for role := range before {
		r.cpu[role] -= before[role]
	}
	return r, err
}

// podWatch follows the pods of the namespace.
type podWatch struct {
	d      *bed
	events watch.Interface
	done   chan struct{}

	mu   sync.Mutex
	pods map[string]*followed
	left chan struct{} // signalled when a pod is gone
	err  error
}

type followed struct {
	times   podTime
	running chan struct{}
	ended   string // why it will never run
}

func (d *bed) watchPods(ctx context.Context) (*podWatch, error) {
	events, err := d.kube.CoreV1().Pods(podNamespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	w := &podWatch{d: d, events: events, done: make(chan struct{}), pods: map[string]*followed{}, left: make(chan struct{}, 1)}
	go w.follow()
	return w, nil
}

func (w *podWatch) stop() {
	w.events.Stop()
	<-w.done
}

func (w *podWatch) follow() {
	defer close(w.done)
	for e := range w.events.ResultChan() {
		now := time.Now()
		pod, ok := e.Object.(*corev1.Pod)
		w.mu.Lock()
		if !ok {
			w.err = apierrors.FromObject(e.Object)
			w.mu.Unlock()
			continue
		}
		if f := w.pods[pod.Name]; f != nil {
			f.see(e.Type, pod, now)
			if e.Type == watch.Deleted {
				delete(w.pods, pod.Name)
				select {
				case w.left <- struct{}{}:
				default:
				}
			}
		}
		w.mu.Unlock()
	}
}

// see notes what an event tells, the first time.
func (f *followed) see(kind watch.EventType, pod *corev1.Pod, now time.Time) {
	since := now.Sub(f.times.start)
	if pod.Spec.NodeName != "" && f.times.bound == 0 {
		f.times.bound = since
	}
	if f.times.running != 0 || f.ended != "" {
		return
	}
	switch {
	case pod.Status.Phase == corev1.PodRunning:
		f.times.running = since
		close(f.running)
	case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded || kind == watch.Deleted:
		f.ended = fmt.Sprintf("pod %s is %s: %s %s", pod.Name, pod.Status.Phase, pod.Status.Reason, pod.Status.Message)
		close(f.running)
	}
}

// start creates a pod and waits until it runs.
func (w *podWatch) start(ctx context.Context, name, node string) (podTime, error) {
	f := &followed{running: make(chan struct{}), times: podTime{start: time.Now()}}
	w.mu.Lock()
	w.pods[name] = f
	w.mu.Unlock()
	grace := int64(1)
	_, err := w.d.kube.CoreV1().Pods(podNamespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "c", Image: podImage, Args: []string{"sleep"}, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}, metav1.CreateOptions{})
	created := time.Since(f.times.start)
	if err != nil {
		return podTime{}, fmt.Errorf("create pod %s: %w", name, err)
	}
	within, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	select {
	case <-f.running:
	case <-w.done:
		return podTime{}, errors.Join(errors.New("the watch has ended"), w.err)
	case <-within.Done():
		return podTime{}, fmt.Errorf("pod %s does not run: %s", name, w.d.why(context.WithoutCancel(ctx), name))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f.times.created = created
	if f.ended != "" {
		return podTime{}, errors.New(f.ended)
	}
	return f.times, nil
}

// startMany starts pods at once and gives how long it took until all ran.
func (w *podWatch) startMany(ctx context.Context, n int, node string) ([]podTime, time.Duration, error) {
	times := make([]podTime, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() { times[i], errs[i] = w.start(ctx, fmt.Sprint("many", i), node) })
	}
	wg.Wait()
	return times, time.Since(began), errors.Join(errs...)
}

// clear deletes all pods and waits until they are gone.
func (w *podWatch) clear(ctx context.Context) error {
	err := w.d.kube.CoreV1().Pods(podNamespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		w.mu.Lock()
		n := len(w.pods)
		w.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-w.left:
		case <-within.Done():
			return fmt.Errorf("%d deleted pods are still there", n)
		}
	}
}

// why tells what the API says of a pod that does not run.
func (d *bed) why(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	p, err := d.kube.CoreV1().Pods(podNamespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%s on node %q", p.Status.Phase, p.Spec.NodeName)
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			text += fmt.Sprintf("; %s: %s %s", c.Name, w.Reason, w.Message)
		}
	}
	return text
}
