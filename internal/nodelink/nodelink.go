// Package nodelink is noded's end of the session: it dials every control plane
// member, brings the node's share of the state down, and carries heartbeats,
// status and streams up. A node behind NAT needs nothing but a way out.
//
// Invariants: state is handed on in order of revision, and what is not newer
// than what was handed on is ignored, whichever member says it; a pod's newest
// status is repeated until a member acknowledges it.
package nodelink

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// Format is the session format spoken here.
const Format = 1

// Update brings the node's share of the state to a revision.
type Update struct {
	Revision uint64
	// Full says that Put is everything: what is not in it is gone.
	Full   bool
	Put    []metav1.Object
	Remove []*wherryv1.ObjectName
}

// Cluster is what the control plane said of the cluster.
type Cluster struct {
	NodeUID, Domain, DNS, PodCIDR, ServiceCIDR string
}

// Handler is the node behind the link.
type Handler interface {
	// Joined is called when a member welcomed the node, before any Update.
	Joined(c Cluster)
	// Apply is called with one update at a time, in order. It must not block
	// for long.
	Apply(u Update)
	// Controls is called when the list of members changed.
	Controls(addresses []string)
	Streams
}

// Streams are what members ask of a node.
type Streams interface {
	Logs(ctx context.Context, podUID string, r *wherryv1.LogsRequest, out io.Writer) error
	// Exec runs until the command ends. Input comes by next, which gives
	// io.EOF when the other side is gone; output goes by send.
	Exec(ctx context.Context, podUID string, start *wherryv1.ExecStart, next func() (*wherryv1.ExecRequest, error), send func(*wherryv1.ExecResponse) error) (int32, error)
	Dial(ctx context.Context, podUID, address string) (net.Conn, error)
	// DialNoded connects to what noded serves by HTTP.
	DialNoded(ctx context.Context) (net.Conn, error)
	// Usage is what the node and its pods use.
	Usage(ctx context.Context) (*wherryv1.UsageResponse, error)
	ListImages(ctx context.Context) ([]*wherryv1.NodeImage, error)
	PullImage(ctx context.Context, reference string) ([]*wherryv1.NodeImage, error)
	// RemoveImage reports whether the image was there.
	RemoveImage(ctx context.Context, reference string) (bool, error)
	ImportImages(ctx context.Context, archive io.Reader) ([]*wherryv1.NodeImage, error)
	ExportImage(ctx context.Context, reference string, archive io.Writer) error
}

// Config are the parts of a Link.
type Config struct {
	Node   string
	BootID string
	// Controls are host:port of the members known at start.
	Controls []string
	// Dial gives a connection to a member; it may not block.
	Dial func(address string) (*grpc.ClientConn, error)
	// Describe gives the Node as it is now, with labels and status.
	Describe func() *corev1.Node
	Handler  Handler
	Log      *slog.Logger
}

// Link keeps the sessions.
type Link struct {
	cfg Config

	order    sync.Mutex // held while an update is handed on
	revision uint64     // newest state handed on, or known from before; guarded by order
	held     bool       // there is a state to which differences apply
	whole    bool       // a full set was handed on

	mu       sync.Mutex
	controls map[string]context.CancelFunc // running sessions' loops
	live     map[string]*session
	primary  *session
	led      bool                           // primary is the leader's
	statuses map[string]*wherryv1.PodStatus // by uid, not acknowledged
	sequence map[string]uint64
	node     *wherryv1.NodeStatus // newest
	events   []*wherryv1.NodeEvent
	dropped  int
	wake     chan struct{} // closed and replaced when there is news to send
	group    sync.WaitGroup
}

// maxEvents bounds the events that wait while no member can be reached; older
// ones are dropped.
const maxEvents = 512

// New makes a link.
func New(cfg Config) *Link {
	return &Link{
		cfg: cfg, controls: map[string]context.CancelFunc{}, live: map[string]*session{},
		statuses: map[string]*wherryv1.PodStatus{}, sequence: map[string]uint64{}, wake: make(chan struct{}),
	}
}

// Know tells what is known from before: members, and the revision of the state
// that the node works from, 0 for none. Older states are ignored from then on,
// also full ones: a member that was cut off for long may have none newer. Call
// it before Run.
func (l *Link) Know(addresses []string, revision uint64) {
	for _, a := range addresses {
		if !slices.Contains(l.cfg.Controls, a) {
			l.cfg.Controls = append(l.cfg.Controls, a)
		}
	}
	l.revision, l.held = revision, revision > 0
}

// Run keeps a session to every member until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	l.update(ctx, l.cfg.Controls, true)
	<-ctx.Done()
	l.group.Wait()
	return nil
}

// update starts loops so that there is one for each member, and if the list is
// the whole, ends the others.
func (l *Link) update(ctx context.Context, addresses []string, all bool) {
	l.mu.Lock()
	if len(addresses) == 0 || ctx.Err() != nil {
		l.mu.Unlock()
		return
	}
	changed := false
	for addr, cancel := range l.controls {
		if all && !slices.Contains(addresses, addr) {
			cancel()
			delete(l.controls, addr)
			changed = true
		}
	}
	for _, addr := range addresses {
		if l.controls[addr] != nil {
			continue
		}
		one, cancel := context.WithCancel(ctx)
		l.controls[addr] = cancel
		changed = true
		l.group.Go(func() { l.keep(one, ctx, addr) })
	}
	known := slices.Sorted(maps.Keys(l.controls))
	l.mu.Unlock()
	if changed {
		l.cfg.Handler.Controls(known)
	}
}

// Connected reports whether any member can be reached.
func (l *Link) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.live) > 0
}

// Report takes the newest status of a pod. Terminated says that nothing of the
// pod is left on the node, so that its object may go.
func (l *Link) Report(pod *corev1.Pod, status *corev1.PodStatus, terminated bool) error {
	a, err := anyOf(status)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	uid := string(pod.UID)
	l.sequence[uid]++
	l.statuses[uid] = &wherryv1.PodStatus{
		Namespace: pod.Namespace, Name: pod.Name, Uid: uid, Sequence: l.sequence[uid], Status: a, Terminated: terminated,
	}
	l.newsLocked()
	return nil
}

// Pending reports whether a status of the pod is not acknowledged yet.
func (l *Link) Pending(uid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.statuses[uid] != nil
}

// Forget drops what is kept of a pod that is gone everywhere.
func (l *Link) Forget(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.statuses, uid)
	delete(l.sequence, uid)
}

// ReportNode takes the newest status of the node.
func (l *Link) ReportNode(status *corev1.NodeStatus) error {
	a, err := anyOf(status)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.node = &wherryv1.NodeStatus{Status: a}
	l.newsLocked()
	return nil
}

// PutEvents takes Events for the control plane; they are sent once, when a
// member can be reached.
func (l *Link) PutEvents(_ context.Context, events []*corev1.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		a, err := anyOf(e)
		if err != nil {
			return err
		}
		l.events = append(l.events, &wherryv1.NodeEvent{Event: a})
	}
	if over := len(l.events) - maxEvents; over > 0 {
		l.events = l.events[over:]
		l.dropped += over
	}
	l.newsLocked()
	return nil
}

// newsLocked wakes the sessions' writers.
func (l *Link) newsLocked() {
	close(l.wake)
	l.wake = make(chan struct{})
}

// acknowledged drops a status that was stored, unless there is a newer one.
func (l *Link) acknowledged(a *wherryv1.StatusAck) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.statuses[a.GetUid()]; s != nil && s.GetSequence() == a.GetSequence() {
		delete(l.statuses, a.GetUid())
	}
}

// apply hands an update on if it is news. Each member tells without gaps, so a
// difference that ends later than what we have begins no later.
func (l *Link) apply(u Update) {
	l.order.Lock()
	defer l.order.Unlock()
	switch {
	case u.Revision < l.revision, u.Revision == l.revision && (!u.Full || l.whole):
		return
	case !u.Full && !l.held:
		return // a difference to something that we never had
	}
	l.revision, l.held, l.whole = u.Revision, true, l.whole || u.Full
	l.cfg.Handler.Apply(u)
}
