// Package dispatch is the control plane's end of the nodes' sessions: each
// node's share of the state goes down, heartbeats and status come up, and the
// streams of pods (logs, exec, port-forward, image archives) run over
// connections that the node dialled.
//
// Invariants: what a node is told is always the state at one revision, full or
// as a difference to what the same session was told before; a status is
// acknowledged after its commit, or when it can never be stored.
package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

// Format is the session format spoken here.
const Format = 1

// Door is what a session writes through, as the node's own user.
type Door interface {
	// RegisterNode makes the Node object, or brings labels and status of the
	// one that is there up to date.
	RegisterNode(ctx context.Context, node *corev1.Node) (api.Object, error)
	// ReportPod stores the status that the node sees; conditions that belong
	// to others stay.
	ReportPod(ctx context.Context, namespace, name, uid string, status *corev1.PodStatus) error
	ReportNode(ctx context.Context, name string, status *corev1.NodeStatus) error
	Delete(ctx context.Context, key api.Key, o metav1.DeleteOptions) error
	PutEvents(ctx context.Context, events []*corev1.Event) error
}

// Cluster is what a node must know of the cluster.
type Cluster struct {
	Domain, DNS, PodCIDR, ServiceCIDR string
}

// Config are the parts of a Server.
type Config struct {
	Store store.Store
	Codec *api.Codec
	// As gives the door of a user.
	As func(api.User) Door
	// Identify finds out who calls.
	Identify func(ctx context.Context) (api.User, error)
	// Authorize answers whether a user may do verb to a target.
	Authorize func(u api.User, t api.Target, verb string) error
	// Leader reports whether this controld leads, Controls gives host:port of
	// all.
	Leader   func() bool
	Controls func() []string
	Cluster  Cluster
	// Wait is how long a request waits for a node that has no session: when a
	// controld was started anew, all nodes come back within a few seconds.
	Wait time.Duration
	// Heartbeat is how often a node is asked to say that it is there; 0 leaves
	// it to the node.
	Heartbeat time.Duration
	// Slow is how long a node may leave what it is told unread before its
	// session ends; 0 is half a minute.
	Slow time.Duration
	Log  *slog.Logger
}

// Server implements wherryv1.NodesServer, PodsServer and ImagesServer, and
// api.PodStreams.
type Server struct {
	wherryv1.UnimplementedNodesServer
	cfg Config

	mu       sync.Mutex
	sessions map[string]*session
	entered  chan struct{} // closed, and made anew, when a session is there
	seen     map[string]time.Time
	since    time.Time // when this controld began to lead
	waiting  map[string]chan *carrier
}

// New makes a server.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, sessions: map[string]*session{}, entered: make(chan struct{}), seen: map[string]time.Time{}, waiting: map[string]chan *carrier{}}
}

// Lead tells the server that this controld leads from now on: every node's
// grace starts anew.
func (s *Server) Lead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
	clear(s.seen)
}

// LastSeen gives when a node was last heard of by this leader: its last
// heartbeat, or the moment at which the leader began to lead.
func (s *Server) LastSeen(node string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.seen[node]; ok {
		return t
	}
	return s.since
}

// Heard gives when this controld last heard of a node, whether it leads or not:
// nodes send heartbeats to every member. Not ok if it did not, or not since it
// began to lead.
func (s *Server) Heard(node string) (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok = s.seen[node]
	return at, ok
}

func (s *Server) beat(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[node] = time.Now()
}

// session finds the session of a node.
func (s *Server) session(node string) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if se := s.sessions[node]; se != nil {
		return se, nil
	}
	return nil, noSession(node)
}

func noSession(node string) error {
	return apierr.Unavailable("node %q has no session with this control plane member; is noded running there and can it reach this machine?", node)
}

// await finds the session of a node, and waits a moment for it.
func (s *Server) await(ctx context.Context, node string) (*session, error) {
	late := time.NewTimer(s.cfg.Wait)
	defer late.Stop()
	for {
		s.mu.Lock()
		se, entered := s.sessions[node], s.entered
		s.mu.Unlock()
		if se != nil {
			return se, nil
		}
		select {
		case <-entered:
			continue
		case <-ctx.Done():
		case <-late.C:
		}
		return nil, noSession(node)
	}
}

// Nodes lists the nodes that have a session here.
func (s *Server) Nodes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.sessions))
	for n := range s.sessions {
		out = append(out, n)
	}
	return out
}

func (s *Server) enter(se *session) {
	s.mu.Lock()
	old := s.sessions[se.node]
	s.sessions[se.node] = se
	close(s.entered)
	s.entered = make(chan struct{})
	s.mu.Unlock()
	if old != nil {
		old.cancel() // the node dialled again: the older stream is dead
	}
}

func (s *Server) leave(se *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[se.node] == se {
		delete(s.sessions, se.node)
	}
}
