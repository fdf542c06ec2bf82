// Package node joins the parts of a node: the session to the control plane, a
// worker per pod, the pod network, service rules and DNS, and the checkpoint
// from which it all starts without anybody's help.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/checkpoint"
	"github.com/wherry-project/wherry/internal/dns"
	"github.com/wherry-project/wherry/internal/events"
	"github.com/wherry-project/wherry/internal/images"
	"github.com/wherry-project/wherry/internal/netview"
	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/nodelink"
	"github.com/wherry-project/wherry/internal/podworker"
	"github.com/wherry-project/wherry/internal/runtime"
	"github.com/wherry-project/wherry/internal/stats"
	"github.com/wherry-project/wherry/internal/svcproxy"
)

// Config says who the node is and where it keeps things.
type Config struct {
	Name    string
	Version string
	// Address is the node's own, by which others reach it.
	Address netip.Addr
	// Controls are host:port of the control plane members known at start.
	Controls []string
	// DataDir holds pods' folders and the checkpoint, LogDir their logs.
	DataDir, LogDir string
	// ResolvConf and Hosts are the node's own files.
	ResolvConf, Hosts string
	// Upstreams answer what is not of the cluster; empty asks those of
	// ResolvConf.
	Upstreams []netip.AddrPort
	MaxPods   int
	// Parallel bounds the starts of containers that run at once.
	Parallel int
	// DNSPort is where the node's DNS answers; 0 is 53.
	DNSPort uint16
}

// Network is the pod network.
type Network interface {
	podworker.Network
	Apply(ctx context.Context, cfg network.Config) error
	List(ctx context.Context) ([]network.Pod, error)
}

// Proxy makes services reachable.
type Proxy interface {
	Apply(ctx context.Context, cfg svcproxy.Config) error
	Problems() []svcproxy.Problem
}

// Volumes are the pods' volumes.
type Volumes interface {
	podworker.Volumes
	List() ([]string, error)
}

// Parts are what a Node works with. The caller opens and closes them.
type Parts struct {
	Runtime    runtime.Runtime
	Network    Network
	Proxy      Proxy
	Images     *images.Store
	Volumes    Volumes
	Checkpoint *checkpoint.Store
	// Tokens keeps the pods' tokens; nil keeps them in memory only.
	Tokens *checkpoint.Store
	// Kinds name objects in Events.
	Kinds *api.Kinds
	// Cgroups and Machine measure what containers and the machine use.
	Cgroups Cgroups
	Machine func() (stats.Usage, error)
	// Inside connects to what noded serves by HTTP; nil is nothing.
	Inside func(ctx context.Context) (net.Conn, error)
	// Dial gives a connection to a control plane member, with the node's
	// identity.
	Dial func(address string) (*grpc.ClientConn, error)
	Log  *slog.Logger
}

// repairEvery is how often pod network and service rules are held against what
// they have to be, whoever has changed them meanwhile.
const repairEvery = 30 * time.Second

// Node is one node.
type Node struct {
	cfg    Config
	parts  Parts
	log    *slog.Logger
	link   *nodelink.Link
	events *events.Recorder
	shared *podworker.Node
	dns    *dns.Server
	tokens *tokens
	// sampler has what the machine and containers use.
	sampler stats.Sampler

	mu         sync.Mutex
	cluster    nodelink.Cluster
	joined     bool
	controls   []string
	view       *netview.View
	revision   uint64
	pods       map[string]*corev1.Pod
	statuses   map[string]*corev1.PodStatus // as the workers see them, newest
	configMaps map[netview.Name]*corev1.ConfigMap
	secrets    map[netview.Name]*corev1.Secret
	services   map[netview.Name]*corev1.Service
	extra      map[string]metav1.Object // what else the checkpoint keeps
	workers    map[string]*worker
	found      map[string]*runtime.Sandbox            // left by an earlier noded, without a worker yet
	whole      bool                                   // the control plane has told everything once
	sampled    []runtime.Sandbox                      // what ran when use was measured last
	ready      bool                                   // the pod network stands
	pressed    map[corev1.NodeConditionType]time.Time // when each pressure was last seen
	running    context.Context                        //nolint:containedctx // the life of the workers, which are started as pods come

	netChanged   chan struct{}
	proxyChanged chan struct{}
	saveChanged  chan struct{}
	nodeChanged  chan struct{}
	sweepNow     chan struct{}
	group        sync.WaitGroup
}

// worker is a pod's worker and how to end it.
type worker struct {
	*podworker.Worker
	pod    *corev1.Pod
	cancel context.CancelFunc
}

// New makes a node.
func New(cfg Config, parts Parts) *Node {
	n := &Node{
		cfg: cfg, parts: parts, log: parts.Log, view: netview.New(cfg.Name),
		pods: map[string]*corev1.Pod{}, statuses: map[string]*corev1.PodStatus{}, configMaps: map[netview.Name]*corev1.ConfigMap{}, secrets: map[netview.Name]*corev1.Secret{},
		services: map[netview.Name]*corev1.Service{}, extra: map[string]metav1.Object{}, workers: map[string]*worker{},
		found: map[string]*runtime.Sandbox{}, controls: cfg.Controls, pressed: map[corev1.NodeConditionType]time.Time{},
		netChanged: make(chan struct{}, 1), proxyChanged: make(chan struct{}, 1), saveChanged: make(chan struct{}, 1), nodeChanged: make(chan struct{}, 1),
		sweepNow: make(chan struct{}, 1),
	}
	n.link = nodelink.New(nodelink.Config{
		Node: cfg.Name, BootID: bootID(), Controls: cfg.Controls, Dial: parts.Dial, Describe: n.describe, Handler: n, Log: parts.Log,
	})
	n.events = events.New(n.link, parts.Kinds, "kubelet", cfg.Name, parts.Log)
	n.tokens = newTokens(n.link.RequestToken, parts.Tokens)
	n.shared = &podworker.Node{
		Name: cfg.Name, Addresses: []netip.Addr{cfg.Address}, Dir: filepath.Join(cfg.DataDir, "pods"), LogDir: cfg.LogDir,
		Runtime: parts.Runtime, Network: parts.Network, Images: parts.Images, Volumes: parts.Volumes,
		Slots: make(chan struct{}, max(cfg.Parallel, 1)), Report: n.report, Pending: n.pending, Fits: n.fits, Cluster: clusterFacts{n}, Log: parts.Log,
		Token: n.tokens.get,
		Event: func(p *corev1.Pod, kind, reason, message string) { n.events.Event(p, kind, reason, message) },
	}
	return n
}

// signal makes one waiting signal of any number.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run lives until ctx ends. Containers go on without it. Ready is called when
// the node works: it has looked at what an earlier noded left, and runs what
// the checkpoint says.
func (n *Node) Run(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.running = ctx
	if err := n.recover(ctx); err != nil {
		return err
	}
	n.group.Go(func() { n.follow(ctx) })
	n.group.Go(func() { n.keepNetwork(ctx) })
	n.group.Go(func() { n.keepProxy(ctx) })
	n.group.Go(func() { n.keepCheckpoint(ctx) })
	n.group.Go(func() { n.keepStatus(ctx) })
	n.group.Go(func() { n.keepClean(ctx) })
	n.group.Go(func() { n.keepTokens(ctx) })
	if n.parts.Cgroups != nil {
		n.group.Go(func() { n.keepMeasuring(ctx) })
	}
	errs := make(chan error, 2)
	n.group.Go(func() { errs <- n.link.Run(ctx) })
	n.group.Go(func() { errs <- n.events.Run(ctx) })
	ready()
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	cancel()
	n.group.Wait()
	return err
}

// recover finds what an earlier noded left, and starts the checkpoint's pods. A
// checkpoint that is damaged is done without; one of another format is not ours
// to overwrite.
func (n *Node) recover(ctx context.Context) error {
	list, err := n.parts.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("list what runs here: %w", err)
	}
	for i := range list {
		n.found[list[i].ID] = &list[i]
	}
	if err := n.tokens.load(); err != nil {
		n.log.Warn("pods get new tokens", "err", err)
	}
	u, err := n.load()
	if errors.Is(err, checkpoint.ErrFormat) {
		return err
	}
	if err != nil {
		n.log.Error("the node starts without its checkpoint", "err", err)
		return nil
	}
	if u != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.applyLocked(*u)
	}
	return nil
}

// follow hands the runtime's events to the pods' workers. What happens to a pod
// that has none yet is noted in what was found of it.
func (n *Node) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-n.parts.Runtime.Events():
			if !ok {
				return
			}
			n.mu.Lock()
			if w := n.workers[e.SandboxID]; w != nil {
				w.Event(e)
			} else if sb := n.found[e.SandboxID]; sb != nil {
				note(sb, e)
			}
			n.mu.Unlock()
		}
	}
}

// note brings what was found of a sandbox up to date.
func note(sb *runtime.Sandbox, e runtime.Event) {
	if e.Kind == runtime.SandboxLost {
		sb.State = runtime.SandboxGone
	}
	for i := range sb.Containers {
		c := &sb.Containers[i]
		switch {
		case e.Kind == runtime.ContainerExited && c.ID == e.Container.ID:
			*c = e.Container
		case e.Kind == runtime.SandboxLost && c.State == runtime.Running:
			c.State, c.ExitCode, c.FinishedAt = runtime.Lost, runtime.ExitLost, time.Now()
		}
	}
}

// report hands a pod's status up. Host ports follow the node's own view, so that
// they stand without the control plane.
func (n *Node) report(pod *corev1.Pod, status *corev1.PodStatus, terminated bool) {
	n.mu.Lock()
	if uid := string(pod.UID); n.pods[uid] != nil {
		n.statuses[uid] = status
		if n.view.PutPod(n.localLocked(n.pods[uid])) {
			signal(n.proxyChanged)
		}
	}
	n.mu.Unlock()
	if err := n.link.Report(pod, status, terminated); err != nil {
		n.log.Error("pod status not reported", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}

func (n *Node) pending(pod *corev1.Pod) bool { return n.link.Pending(string(pod.UID)) }

// localLocked is a pod with the status that the node sees.
func (n *Node) localLocked(pod *corev1.Pod) *corev1.Pod {
	st := n.statuses[string(pod.UID)]
	if st == nil {
		return pod
	}
	local := *pod
	local.Status = *st
	return &local
}

// Healthy says what keeps the node from running pods, or nil.
func (n *Node) Healthy() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ready {
		return errors.New("the pod network is not set up yet")
	}
	return nil
}

// Register adds the node's metrics.
func (n *Node) Register(r prometheus.Registerer) error {
	gauge := func(name, help string, value func() float64) error {
		return r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	return errors.Join(
		gauge("wherry_node_pods", "Pods that the cluster has given to this node.", func() float64 { return float64(len(n.Pods())) }),
		gauge("wherry_node_connected", "1 while a control plane member can be reached.", func() float64 {
			if n.link.Connected() {
				return 1
			}
			return 0
		}),
	)
}

// Pods are the node's pods as it sees them.
func (n *Node) Pods() []*corev1.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(n.pods))
	for _, p := range n.pods {
		out = append(out, n.localLocked(p))
	}
	return out
}
