// Package podworker lives one pod's life on a node: a worker looks at what is
// wanted and what is there, takes the next step, and reports the status. The
// choice of the step and the status are pure functions of the two; a status
// only goes forward.
//
// A worker may die with its noded at any point: its successor finds sandbox and
// containers by what the runtime lists, and what the runtime does not have
// (counts, how runs ended whose sandbox is gone) by the status that the worker
// keeps in the pod's folder.
package podworker

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

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
	// Dir holds a folder per pod (files, termination messages, the last
	// status), LogDir the pods' logs.
	Dir, LogDir string
	Runtime     runtime.Runtime
	Network     Network
	Images      Images
	Volumes     Volumes
	// Slots bounds how many starts of containers and sandboxes run at once.
	Slots chan struct{}
	// Report hands the newest status on. Terminated says that nothing is left
	// but the object, which may go.
	Report func(pod *corev1.Pod, status *corev1.PodStatus, terminated bool)
	// Pending reports whether a status of the pod is still on its way. Nil
	// says never.
	Pending func(pod *corev1.Pod) bool
	// Fits says why the node cannot give a pod the resources that it asks for
	// (Deferred or Infeasible, and a text), or nothing. Nil says that it can.
	Fits func(pod *corev1.Pod) (reason, message string)
	// Event records something about a pod.
	Event func(pod *corev1.Pod, eventType, reason, message string)
	// Token gives a token of the pod's service account, the same one until it is
	// time for another. Nil says that there are none.
	Token func(ctx context.Context, pod *corev1.Pod, want *corev1.ServiceAccountTokenProjection) (string, error)
	// Cluster gives what the pod is told of the cluster.
	Cluster Cluster
	Log     *slog.Logger
}

// Cluster answers what a pod's files and environment need.
type Cluster interface {
	// ResolvConf and Hosts are the texts of the pod's files; warnings are for
	// a DNSConfigForming event.
	ResolvConf(pod *corev1.Pod) (text string, warnings []string)
	Hosts(pod *corev1.Pod, addresses []netip.Addr) string
	// Domain is the cluster's.
	Domain() string
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
	news  chan struct{} // signals what waits under mu

	mu      sync.Mutex
	wish    *corev1.Pod
	wished  bool
	refresh bool
	exits   map[string]runtime.Event // by container: not seen yet
	lost    bool                     // the sandbox may be; not seen yet

	// The rest belongs to Run's goroutine.
	pod      *corev1.Pod
	state    state
	reported *corev1.PodStatus
	final    bool // the end was reported
	group    sync.WaitGroup
}

// inboxSize is how many messages wait for a busy worker; senders wait beyond.
const inboxSize = 64

// New makes a worker for a pod. Found is what the runtime has of it already.
func New(node *Node, pod *corev1.Pod, found *runtime.Sandbox) *Worker {
	w := &Worker{
		node: node, inbox: make(chan func(*Worker), inboxSize), done: make(chan struct{}), news: make(chan struct{}, 1),
		pod: pod, exits: map[string]runtime.Event{},
	}
	known, err := w.lastStatus()
	if err != nil {
		node.Log.Warn("the pod's last status is lost", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
	if known == nil {
		known = &pod.Status
	}
	w.state = newState(pod, known, found, time.Now())
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

// Event tells what happened in the pod's sandbox. It never blocks.
func (w *Worker) Event(e runtime.Event) {
	w.mu.Lock()
	if e.Kind == runtime.SandboxLost {
		w.lost = true
	} else {
		w.exits[e.Container.ID] = e
	}
	w.mu.Unlock()
	w.wake()
}

// Done is closed when nothing is left of the pod on the node, nor in the API.
func (w *Worker) Done() <-chan struct{} { return w.done }

func (w *Worker) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// take takes what Want, Refresh and Event left.
func (w *Worker) take() {
	w.mu.Lock()
	wish, wished, refresh, lost := w.wish, w.wished, w.refresh, w.lost
	w.wished, w.refresh, w.lost = false, false, false
	var exits map[string]runtime.Event
	if len(w.exits) > 0 {
		exits, w.exits = w.exits, map[string]runtime.Event{}
	}
	w.mu.Unlock()
	for _, e := range exits {
		w.state.observe(e)
	}
	w.state.doubt = w.state.doubt || lost
	if refresh {
		w.state.refresh()
	}
	if wished {
		w.want(wish)
	}
}

// want takes a new wish.
func (w *Worker) want(pod *corev1.Pod) {
	if pod == nil {
		w.state.orphan = true
		return
	}
	w.state.changed(w.pod, pod)
	w.pod = pod
	pending := w.node.Pending != nil && w.node.Pending(pod)
	if w.reported != nil && !pending && !sameStatus(&pod.Status, w.reported) {
		w.reported = nil // somebody else wrote over it: say it again
	}
}

// sameStatus reports whether what the API has is what the node said.
func sameStatus(have, said *corev1.PodStatus) bool {
	owned := map[corev1.PodConditionType]corev1.ConditionStatus{}
	for _, c := range have.Conditions {
		owned[c.Type] = c.Status
	}
	for _, c := range said.Conditions {
		if owned[c.Type] != c.Status {
			return false
		}
	}
	return have.Phase == said.Phase && have.PodIP == said.PodIP &&
		equality.Semantic.DeepEqual(have.ContainerStatuses, said.ContainerStatuses) &&
		equality.Semantic.DeepEqual(have.InitContainerStatuses, said.InitContainerStatuses) &&
		equality.Semantic.DeepEqual(have.EphemeralContainerStatuses, said.EphemeralContainerStatuses)
}

// tell gives a message to the worker; after its end nobody listens.
func (w *Worker) tell(ctx context.Context, f func(*Worker)) {
	select {
	case w.inbox <- f:
	case <-w.done:
	case <-ctx.Done():
	}
}

// Run works until the pod is gone from the node and the API, or ctx ends; then
// the containers go on without it.
func (w *Worker) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.group.Wait()
	defer cancel()
	for ctx.Err() == nil {
		w.drain()
		for _, c := range w.state.containers {
			c.current.closeEnded()
		}
		w.watchProbes(ctx)
		s := plan(w.pod, &w.state, time.Now())
		if s.kind == waitFor {
			w.report()
			w.rest(ctx, s.delay)
			continue
		}
		if s.kind == finish {
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
	w.take()
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

// report sends the status if it is new, and keeps it for a successor.
func (w *Worker) report() {
	if w.state.orphan {
		return // nobody has the object any more
	}
	st := w.look()
	end := w.state.torn && w.pod.DeletionTimestamp != nil
	if w.reported != nil && w.final == end && equality.Semantic.DeepEqual(w.reported, st) {
		return
	}
	if err := w.keepStatus(st, false); err != nil {
		w.node.Log.Warn("the pod's status is not kept", "pod", w.pod.Namespace+"/"+w.pod.Name, "err", err)
	}
	w.reported, w.final = st, end
	w.node.Report(w.pod, st, end)
}

// look makes the status as it is now. Conditions that stay keep their times.
func (w *Worker) look() *corev1.PodStatus {
	st := status(w.pod, &w.state, w.node.Addresses, time.Now())
	w.state.conditions = st.Conditions
	return st
}

// background runs something slow beside the worker; its result comes back as a
// message, unless ctx ended.
func (w *Worker) background(ctx context.Context, work func(ctx context.Context) func(*Worker)) {
	w.group.Go(func() {
		if result := work(ctx); ctx.Err() == nil {
			w.tell(ctx, result)
		}
	})
}
