package dispatch

import (
	"slices"

	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/authz"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

// everywhere are the resources that every node gets: for names, service rules
// and routes.
func everywhere() []string {
	return []string{"namespaces", "nodes", "services", "endpointslices.discovery.k8s.io"}
}

// share is what one session has told its node, as far as it must be known to
// tell the rest: which ConfigMaps and Secrets its pods name.
type share struct {
	node  string
	codec *api.Codec
	refs  map[api.Key]int       // how many pods name it
	named map[api.Key][]api.Key // by pod
	// touched are those whose count changed since the last diff, with the
	// count that they had.
	touched map[api.Key]int
}

func newShare(node string, codec *api.Codec) *share {
	return &share{node: node, codec: codec, refs: map[api.Key]int{}, named: map[api.Key][]api.Key{}, touched: map[api.Key]int{}}
}

// diff is what changed for the node.
type diff struct {
	put    []*api.Record
	remove []*api.Record
}

// full is the node's whole share at a snapshot.
func (h *share) full(snap *store.Snapshot) diff {
	var d diff
	for _, resource := range everywhere() {
		for r := range snap.Scan(resource, "", api.Key{}) {
			d.put = append(d.put, r)
		}
	}
	clear(h.refs)
	clear(h.named)
	clear(h.touched)
	var pods []*api.Record
	for r := range snap.ByField("pods", "spec.nodeName", h.node) {
		h.name(snap, r)
		pods = append(pods, r)
	}
	h.follow(snap, &d)
	d.put = append(d.put, pods...)
	return d
}

// delta is what events change, at snap, which is not older than they are.
func (h *share) delta(snap *store.Snapshot, events []store.Event) diff {
	var d diff
	var pods []*api.Record
	done := map[api.Key]bool{}
	for i := len(events) - 1; i >= 0; i-- { // newest first: the last word counts
		e := events[i]
		key := e.Key()
		if done[key] || !h.concerns(e) {
			continue
		}
		done[key] = true
		switch {
		case e.New == nil, key.Resource == "pods" && !h.mine(e.New):
			d.remove = append(d.remove, e.Old)
			if key.Resource == "pods" {
				h.forget(key)
			}
		case key.Resource == "pods":
			h.name(snap, e.New)
			pods = append(pods, e.New)
		default:
			d.put = append(d.put, e.New)
		}
	}
	h.follow(snap, &d)
	d.put = append(d.put, pods...) // after what they name
	return d
}

func (h *share) concerns(e store.Event) bool {
	key := e.Key()
	switch key.Resource {
	case "pods":
		return h.mine(e.New) || h.mine(e.Old)
	case "configmaps", "secrets":
		return h.refs[key] > 0
	}
	for _, r := range everywhere() {
		if r == key.Resource {
			return true
		}
	}
	return false
}

func (h *share) mine(r *api.Record) bool {
	return r != nil && r.Index.Fields["spec.nodeName"] == h.node
}

// name notes what a pod names. A pod that cannot be decoded names nothing; the
// node will say so.
func (h *share) name(snap *store.Snapshot, pod *api.Record) {
	p, err := store.Decode[*corev1.Pod](snap, pod)
	if err != nil {
		return
	}
	keys := references(p)
	for _, k := range keys {
		h.count(k, 1)
	}
	h.forget(pod.Key)
	h.named[pod.Key] = keys
}

func (h *share) forget(pod api.Key) {
	for _, k := range h.named[pod] {
		h.count(k, -1)
	}
	delete(h.named, pod)
}

func (h *share) count(k api.Key, by int) {
	if _, ok := h.touched[k]; !ok {
		h.touched[k] = h.refs[k]
	}
	if h.refs[k] += by; h.refs[k] <= 0 {
		delete(h.refs, k)
	}
}

// follow adds to a diff what is named now and was not, and takes away what is
// named no longer: a node keeps no Secret that none of its pods needs. What is
// named and does not exist is taken away too, should an older one be there.
func (h *share) follow(snap *store.Snapshot, d *diff) {
	for k, before := range h.touched {
		now := h.refs[k]
		if (before > 0) == (now > 0) {
			continue
		}
		if r, ok := snap.Get(k); ok && now > 0 {
			d.put = append(d.put, r)
			continue
		}
		d.remove = append(d.remove, &api.Record{Key: k})
	}
	clear(h.touched)
}

// references are the ConfigMaps and Secrets that a pod names: what the node may
// read of them, it is told.
func references(p *corev1.Pod) []api.Key {
	keys := authz.References(p)
	return slices.DeleteFunc(keys, func(k api.Key) bool { return k.Resource != "configmaps" && k.Resource != "secrets" })
}

func containers(p *corev1.Pod) []corev1.Container {
	all := append([]corev1.Container{}, p.Spec.InitContainers...)
	return append(all, p.Spec.Containers...)
}

// maxDelta ends one message of a delta; the next one follows.
const maxDelta = 1 << 20

// messages packs a diff into deltas that fit gRPC messages. The last one has
// more unset.
func (h *share) messages(revision uint64, full bool, d diff) []*wherryv1.Delta {
	cur := &wherryv1.Delta{Revision: revision, Full: full}
	out := []*wherryv1.Delta{cur}
	size := 0
	for _, r := range d.put {
		if size > maxDelta {
			cur.More = true
			cur = &wherryv1.Delta{Revision: revision, Full: full}
			out = append(out, cur)
			size = 0
		}
		cur.Put = append(cur.Put, &wherryv1.NodeObject{Object: h.wrap(r)})
		size += r.Len() + 128
	}
	for _, r := range d.remove {
		cur.Remove = append(cur.Remove, &wherryv1.ObjectName{Resource: r.Resource, Namespace: r.Namespace, Name: r.Name, Uid: r.UID})
	}
	return out
}

func (h *share) wrap(r *api.Record) *anypb.Any {
	k, ok := h.codec.Kinds().ByKey(r.Resource)
	if !ok {
		return nil // a share holds served kinds only
	}
	return k.RecordAny(r)
}
