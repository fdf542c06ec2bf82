// Package podworker lives one pod's life on a node: a worker looks at what is
// wanted and what is there, takes the next step, and reports the status. The
// choice of the step is a pure function of the two; a status only goes forward.
//
// A worker may die with its noded at any point: its successor finds sandbox and
// containers by what the runtime lists, and goes on from there.
package podworker

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/runtime"
)

// Network attaches pods.
type Network interface {
	Attach(ctx context.Context, cfg network.PodConfig) (network.Pod, error)
	Detach(ctx context.Context, id string) error
}

// Images finds and pulls images.
type Images interface {
	Lookup(ref string) (images.Image, bool)
	Pull(ctx context.Context, ref string, auth ...images.Auth) (images.Image, error)
}

// Node is what every worker of a node shares.
type Node struct {
	Name string
	// Addresses are the node's own; the first is its InternalIP.
	Addresses []netip.Addr
	// Dir holds a folder per pod (files, termination messages), LogDir the
	// pods' logs.
	Dir, LogDir string
	Runtime     runtime.Runtime
	Network     Network
	Images      Images
	Volumes     Volumes
	// Slots bounds how many starts of containers and sandboxes run at once.
	Slots chan struct{}
	// Report hands the newest status on. Terminated says that nothing is left.
	Report func(pod *corev1.Pod, status *corev1.PodStatus, terminated bool)
	// Event records something about a pod.
	Event func(pod *corev1.Pod, eventType, reason, message string)
	// Cluster gives what the pod is told of the cluster.
	Cluster Cluster
	Log     *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Cluster answers what a pod's files and environment need.
type Cluster interface {
	// ResolvConf and Hosts are the texts of the pod's files; warnings are for
	// a DNSConfigForming event.
	ResolvConf(pod *corev1.Pod) (text string, warnings []string)
	Hosts(pod *corev1.Pod, addresses []netip.Addr) string
	// ServiceEnv are the variables of the services that the pod sees.
	ServiceEnv(pod *corev1.Pod) []corev1.EnvVar
	// ConfigMap and Secret find what the pod names; not ok when missing.
	ConfigMap(namespace, name string) (*corev1.ConfigMap, bool)
	Secret(namespace, name string) (*corev1.Secret, bool)
}

// Worker lives one pod's life. Its methods may be called by anybody; Run by one.
type Worker struct {
	node  *Node
	inbox chan func(*Worker)
	done  chan struct{}
	news  chan struct{} // signals a wish

	mu      sync.Mutex
	wish    *corev1.Pod
	wished  bool
	refresh bool

	// The rest belongs to Run's goroutine.
	pod      *corev1.Pod
	state    state
	reported *corev1.PodStatus
	final    bool // the end was reported
}

// inboxSize is how many messages wait for a busy worker; senders wait beyond.
const inboxSize = 64

// New makes a worker for a pod. Found is what the runtime has of it already.
func New(node *Node, pod *corev1.Pod, found *runtime.Sandbox) *Worker {
	w := &Worker{node: node, inbox: make(chan func(*Worker), inboxSize), done: make(chan struct{}), news: make(chan struct{}, 1), pod: pod}
	w.state = newState(pod, found)
	return w
}

// Want gives the newest wish. A nil pod says that the API has it no longer:
// whatever runs is ended with a short grace. It never blocks.
func (w *Worker) Want(pod *corev1.Pod) {
	w.mu.Lock()
	w.wish, w.wished = pod, true
	w.mu.Unlock()
	w.wake()
}

// Refresh lets the worker look again: a ConfigMap or Secret changed. It never
// blocks.
func (w *Worker) Refresh() {
	w.mu.Lock()
	w.refresh = true
	w.mu.Unlock()
	w.wake()
}

func (w *Worker) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// wishes takes what Want and Refresh left.
func (w *Worker) wishes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refresh {
		w.refresh, w.state.volumesDone = false, false
	}
	if !w.wished {
		return
	}
	w.wished = false
	if w.wish == nil {
		w.state.orphan = true
		return
	}
	w.pod = w.wish
	if w.reported != nil && readyOf(w.pod.Status.Conditions) != readyOf(w.reported.Conditions) {
		w.reported = nil // somebody else wrote over it: say it again
	}
}

func readyOf(list []corev1.PodCondition) corev1.ConditionStatus {
	for _, c := range list {
		if c.Type == corev1.PodReady {
			return c.Status
		}
	}
	return ""
}

// Event tells what happened in the pod's sandbox.
func (w *Worker) Event(e runtime.Event) {
	w.tell(func(w *Worker) { w.state.observe(e) })
}

// Done is closed when nothing is left of the pod on the node.
func (w *Worker) Done() <-chan struct{} { return w.done }

// tell gives a message to the worker; after its end nobody listens.
func (w *Worker) tell(f func(*Worker)) {
	select {
	case w.inbox <- f:
	case <-w.done:
	}
}

func (w *Worker) now() time.Time {
	if w.node.Now != nil {
		return w.node.Now()
	}
	return time.Now()
}

// Run works until the pod is gone, or ctx ends; then the containers go on
// without it.
func (w *Worker) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for ctx.Err() == nil {
		w.drain()
		for _, c := range w.state.containers {
			c.current.closeEnded()
		}
		s := plan(w.pod, &w.state, w.now())
		if s.kind == waitFor {
			w.report(false)
			w.rest(ctx, s.delay)
			continue
		}
		if s.kind == finish {
			w.report(true)
			close(w.done)
			return
		}
		if err := w.act(ctx, s); err != nil && ctx.Err() == nil {
			w.node.Log.Warn("pod step failed", "pod", w.pod.Namespace+"/"+w.pod.Name, "step", s.kind, "container", s.container, "err", err)
		}
	}
}

// drain takes all messages that are there.
func (w *Worker) drain() {
	w.wishes()
	for {
		select {
		case f := <-w.inbox:
			f(w)
		default:
			return
		}
	}
}

// rest waits for a message, or for delay if it is above 0.
func (w *Worker) rest(ctx context.Context, delay time.Duration) {
	var due <-chan time.Time
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	case <-w.news:
	case f := <-w.inbox:
		f(w)
	}
}

// report sends the status if it is new. The pod's end is told even if nothing
// else changed.
func (w *Worker) report(end bool) {
	if w.state.orphan {
		return // nobody has the object any more
	}
	st := status(w.pod, &w.state, w.node, w.now())
	if !end && w.reported != nil && reflect.DeepEqual(w.reported, st) {
		return
	}
	w.reported = st
	w.node.Report(w.pod, st, end && w.pod.DeletionTimestamp != nil)
}

// background runs something slow beside the worker; its result comes back as a
// message.
func (w *Worker) background(ctx context.Context, work func(ctx context.Context) func(*Worker)) {
	go func() { // joined by the worker's end: ctx ends then
		result := work(ctx)
		if ctx.Err() == nil || !errors.Is(ctx.Err(), context.Canceled) {
			w.tell(result)
		}
	}()
}
