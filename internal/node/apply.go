package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/netview"
	"github.com/wherry-project/wherry/internal/nodelink"
	"github.com/wherry-project/wherry/internal/podworker"
	"github.com/wherry-project/wherry/internal/runtime"
)

// Joined implements nodelink.Handler.
func (n *Node) Joined(c nodelink.Cluster) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.joined && n.cluster == c {
		return
	}
	n.cluster, n.joined = c, true
	signal(n.netChanged)
	signal(n.proxyChanged)
	signal(n.saveChanged)
}

// Controls implements nodelink.Handler.
func (n *Node) Controls(addresses []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.controls = addresses
	signal(n.saveChanged)
}

// Apply implements nodelink.Handler.
func (n *Node) Apply(u nodelink.Update) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applyLocked(u)
	if u.Full && !n.whole {
		n.whole = true
		n.dropStrangersLocked()
		signal(n.sweepNow)
	}
	signal(n.saveChanged)
}

// effects are what an update makes necessary.
type effects struct {
	network, proxy, names bool
	files                 map[string]bool // namespaces whose ConfigMaps or Secrets changed
}

func (n *Node) applyLocked(u nodelink.Update) {
	e := effects{files: map[string]bool{}}
	n.revision = u.Revision
	if u.Full {
		n.resetLocked(u)
		e.network, e.proxy, e.names = true, true, true
	}
	for _, obj := range u.Put {
		n.putLocked(obj, &e)
	}
	for _, gone := range u.Remove {
		n.removeLocked(gone, &e)
	}
	if e.network {
		signal(n.netChanged)
	}
	if e.proxy {
		signal(n.proxyChanged)
	}
	if e.names && n.dns != nil {
		n.dns.SetRecords(n.view.Records())
	}
	for _, w := range n.workers {
		if e.files[w.pod.Namespace] {
			w.Refresh()
		}
	}
}

// resetLocked forgets what a full set does not have.
func (n *Node) resetLocked(u nodelink.Update) {
	n.view.Reset()
	clear(n.configMaps)
	clear(n.secrets)
	clear(n.services)
	clear(n.extra)
	keep := map[string]bool{}
	for _, obj := range u.Put {
		if p, ok := obj.(*corev1.Pod); ok {
			keep[string(p.UID)] = true
		}
	}
	for uid := range n.pods {
		if !keep[uid] {
			n.podGoneLocked(uid)
		}
	}
}

func (n *Node) putLocked(obj metav1.Object, e *effects) {
	name := netview.Name{Namespace: obj.GetNamespace(), Name: obj.GetName()}
	switch o := obj.(type) {
	case *corev1.Pod:
		uid := string(o.UID)
		if old, ok := n.podNamedLocked(name); ok && string(old.UID) != uid {
			n.podGoneLocked(string(old.UID)) // made anew under its name
		}
		n.pods[uid] = o
		e.proxy = n.view.PutPod(n.localLocked(o)) || e.proxy
		n.workLocked(o)
	case *corev1.Service:
		n.services[name] = o
		n.view.PutService(o)
		e.proxy, e.names = true, true
	case *discoveryv1.EndpointSlice:
		n.extra["endpointslices.discovery.k8s.io/"+name.Namespace+"/"+name.Name] = o
		n.view.PutSlice(o)
		e.proxy, e.names = true, true
	case *corev1.Node:
		n.extra["nodes/"+name.Name] = o
		e.network = n.view.PutNode(o) || e.network
		if o.Name == n.cfg.Name {
			signal(n.nodeChanged)
		}
	case *corev1.Namespace:
		n.extra["namespaces/"+name.Name] = o
		n.view.PutNamespace(name.Name)
		e.names = true
	case *corev1.ConfigMap:
		n.configMaps[name] = o
		e.files[name.Namespace] = true
	case *corev1.Secret:
		n.secrets[name] = o
		e.files[name.Namespace] = true
	}
}

func (n *Node) podNamedLocked(name netview.Name) (*corev1.Pod, bool) {
	for _, p := range n.pods {
		if p.Namespace == name.Namespace && p.Name == name.Name {
			return p, true
		}
	}
	return nil, false
}

func (n *Node) removeLocked(gone *wherryv1.ObjectName, e *effects) {
	name := netview.Name{Namespace: gone.GetNamespace(), Name: gone.GetName()}
	switch gone.GetResource() {
	case "pods":
		if p := n.pods[gone.GetUid()]; p != nil {
			e.proxy = n.view.DeletePod(p.Namespace, p.Name) || e.proxy
			n.podGoneLocked(gone.GetUid())
		}
	case "services":
		delete(n.services, name)
		n.view.DeleteService(name.Namespace, name.Name)
		e.proxy, e.names = true, true
	case "endpointslices.discovery.k8s.io":
		delete(n.extra, gone.GetResource()+"/"+name.Namespace+"/"+name.Name)
		n.view.DeleteSlice(name.Namespace, name.Name)
		e.proxy, e.names = true, true
	case "nodes":
		delete(n.extra, "nodes/"+name.Name)
		n.view.DeleteNode(name.Name)
		e.network = true
	case "namespaces":
		delete(n.extra, "namespaces/"+name.Name)
		n.view.DeleteNamespace(name.Name)
		e.names = true
	case "configmaps":
		delete(n.configMaps, name)
		e.files[name.Namespace] = true
	case "secrets":
		delete(n.secrets, name)
		e.files[name.Namespace] = true
	}
}

// podGoneLocked ends a pod that the API has no longer.
func (n *Node) podGoneLocked(uid string) {
	delete(n.pods, uid)
	delete(n.statuses, uid)
	n.link.Forget(uid)
	if w := n.workers[uid]; w != nil {
		w.Want(nil)
	}
}

// workLocked hands a pod to its worker, which is made if need be. Before the
// pod network stands only pods that run already have one.
func (n *Node) workLocked(pod *corev1.Pod) {
	uid := string(pod.UID)
	if w := n.workers[uid]; w != nil {
		w.pod = pod
		w.Want(pod)
		return
	}
	found := n.found[uid]
	runs := found != nil && found.State == runtime.SandboxReady
	if n.running == nil || !n.ready && !runs && !pod.Spec.HostNetwork {
		return
	}
	delete(n.found, uid)
	n.startLocked(pod, podworker.New(n.shared, pod, found))
}

func (n *Node) startLocked(pod *corev1.Pod, pw *podworker.Worker) {
	uid := string(pod.UID)
	ctx, cancel := context.WithCancel(n.running)
	w := &worker{Worker: pw, pod: pod, cancel: cancel}
	n.workers[uid] = w
	n.group.Go(func() {
		defer cancel()
		w.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.workers[uid] == w {
			delete(n.workers, uid)
		}
	})
}

// dropStrangersLocked ends sandboxes of pods that the control plane does not
// have: it has said now what it has.
func (n *Node) dropStrangersLocked() {
	for uid, sb := range n.found {
		if n.pods[uid] == nil {
			n.log.Info("removing a pod that the cluster does not have", "pod", sb.Name, "uid", uid)
			n.strangerLocked(uid, sb)
		}
	}
}

// strangerLocked ends and clears away whatever there is of a pod that the
// cluster does not have.
func (n *Node) strangerLocked(uid string, sb *runtime.Sandbox) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}}
	if sb != nil {
		delete(n.found, uid)
		pod.Namespace, pod.Name = sb.Labels["namespace"], sb.Labels["name"]
		for _, c := range sb.Containers {
			if !hasContainer(pod, c.Name) {
				pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c.Name})
			}
		}
	}
	pw := podworker.New(n.shared, pod, sb)
	pw.Want(nil)
	n.startLocked(pod, pw)
}

// keepClean clears away, once the control plane has said what it has, what
// earlier nodeds left of pods that are gone: folders, volumes, addresses.
func (n *Node) keepClean(ctx context.Context) {
	for n.changed(ctx, n.sweepNow, nil) {
		left, err := n.leftovers(ctx)
		if err != nil {
			n.log.Error("what is left of former pods cannot be listed", "err", err)
			n.again(ctx, n.sweepNow)
		}
		n.mu.Lock()
		for uid := range left {
			if n.pods[uid] == nil && n.workers[uid] == nil {
				n.log.Info("clearing away what is left of a pod", "uid", uid)
				n.strangerLocked(uid, nil)
			}
		}
		n.mu.Unlock()
	}
}

// leftovers are the pods of which there is something on the node.
func (n *Node) leftovers(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	dirs, err := os.ReadDir(n.shared.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, d := range dirs {
		out[d.Name()] = true
	}
	vols, err := n.parts.Volumes.List()
	if err != nil {
		return nil, err
	}
	for _, uid := range vols {
		out[uid] = true
	}
	attached, err := n.parts.Network.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range attached {
		out[p.ID] = true
	}
	return out, nil
}

func hasContainer(p *corev1.Pod, name string) bool {
	for _, c := range p.Spec.Containers {
		if c.Name == name {
			return true
		}
	}
	return false
}

// saveEvery bounds how often the checkpoint is written.
const saveEvery = time.Second

// keepCheckpoint saves the state after it changed, all changes that gather
// meanwhile at once, and a last time when ctx ends.
func (n *Node) keepCheckpoint(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		ended = ctx.Err() != nil // what changed before that is saved
		select {
		case <-n.saveChanged:
		default:
			if ended || !n.changed(ctx, n.saveChanged, nil) {
				continue
			}
		}
		if err := n.save(); err != nil {
			n.log.Error("checkpoint not saved", "err", err)
			signal(n.saveChanged)
		}
		pause.Reset(saveEvery)
	}
}

func (n *Node) save() error {
	n.mu.Lock()
	known := n.joined && n.revision > 0
	var data []byte
	var err error
	if known {
		data, err = n.stateLocked()
	}
	n.mu.Unlock()
	if err != nil || !known {
		return err
	}
	return n.parts.Checkpoint.Save(data)
}

// stateLocked is the node's share of the state, as one delta, and what it knows
// of the cluster.
func (n *Node) stateLocked() ([]byte, error) {
	d := &wherryv1.Delta{Revision: n.revision, Full: true}
	add := func(m interface{ Marshal() ([]byte, error) }) error {
		a, err := api.ToAny(m)
		if err == nil {
			d.Put = append(d.Put, &wherryv1.NodeObject{Object: a})
		}
		return err
	}
	var err error
	for _, o := range n.pods {
		err = first(err, add(o))
	}
	for _, o := range n.services {
		err = first(err, add(o))
	}
	for _, o := range n.configMaps {
		err = first(err, add(o))
	}
	for _, o := range n.secrets {
		err = first(err, add(o))
	}
	for _, o := range n.extra {
		if m, ok := o.(interface{ Marshal() ([]byte, error) }); ok {
			err = first(err, add(m))
		}
	}
	if err != nil {
		return nil, err
	}
	w := &wherryv1.Welcome{
		Format: nodelink.Format, NodeUid: n.cluster.NodeUID, Controls: n.controls, ClusterDomain: n.cluster.Domain,
		ClusterDns: n.cluster.DNS, PodCidr: n.cluster.PodCIDR, ServiceCidr: n.cluster.ServiceCIDR,
	}
	head, err := proto.Marshal(w)
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(d)
	if err != nil {
		return nil, err
	}
	return join(head, body), nil
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// load gives the checkpoint's state, nil if there is none.
func (n *Node) load() (*nodelink.Update, error) {
	b, err := n.parts.Checkpoint.Load()
	if err != nil || b == nil {
		return nil, err
	}
	head, body, err := split(b)
	if err != nil {
		return nil, err
	}
	var w wherryv1.Welcome
	var d wherryv1.Delta
	if err := proto.Unmarshal(head, &w); err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	if err := proto.Unmarshal(body, &d); err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	u, err := nodelink.Decode(&d)
	if err != nil {
		return nil, err
	}
	n.cluster = nodelink.Cluster{NodeUID: w.GetNodeUid(), Domain: w.GetClusterDomain(), DNS: w.GetClusterDns(), PodCIDR: w.GetPodCidr(), ServiceCIDR: w.GetServiceCidr()}
	n.joined = true
	if len(w.GetControls()) > 0 {
		n.controls = w.GetControls()
	}
	n.link.Know(w.GetControls(), d.GetRevision())
	return u, nil
}
