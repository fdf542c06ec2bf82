package dispatch

import (
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
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
}

func newShare(node string, codec *api.Codec) *share {
	return &share{node: node, codec: codec, refs: map[api.Key]int{}, named: map[api.Key][]api.Key{}}
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
	for r := range snap.ByField("pods", "spec.nodeName", h.node) {
		d.put = append(d.put, h.name(snap, r)...)
		d.put = append(d.put, r)
	}
	return d
}

// delta is what events change, at snap, which is not older than they are.
func (h *share) delta(snap *store.Snapshot, events []store.Event) diff {
	var d diff
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
			d.put = append(d.put, h.name(snap, e.New)...)
			d.put = append(d.put, e.New)
		default:
			d.put = append(d.put, e.New)
		}
	}
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

// name notes what a pod names and gives the records that the node did not have
// yet. A pod that cannot be decoded names nothing; the node will say so.
func (h *share) name(snap *store.Snapshot, pod *api.Record) []*api.Record {
	p, err := store.Decode[*corev1.Pod](snap, pod)
	if err != nil {
		return nil
	}
	keys := references(p)
	var fresh []*api.Record
	for _, k := range keys {
		if h.refs[k]++; h.refs[k] == 1 {
			if r, ok := snap.Get(k); ok {
				fresh = append(fresh, r)
			}
		}
	}
	h.forget(pod.Key)
	h.named[pod.Key] = keys
	return fresh
}

func (h *share) forget(pod api.Key) {
	for _, k := range h.named[pod] {
		if h.refs[k]--; h.refs[k] <= 0 {
			delete(h.refs, k)
		}
	}
	delete(h.named, pod)
}

// references are the ConfigMaps and Secrets that a pod names.
func references(p *corev1.Pod) []api.Key {
	var keys []api.Key
	seen := map[api.Key]bool{}
	add := func(resource, name string) {
		k := api.Key{Resource: resource, Namespace: p.Namespace, Name: name}
		if name != "" && !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	for _, s := range p.Spec.ImagePullSecrets {
		add("secrets", s.Name)
	}
	for _, v := range p.Spec.Volumes {
		if v.ConfigMap != nil {
			add("configmaps", v.ConfigMap.Name)
		}
		if v.Secret != nil {
			add("secrets", v.Secret.SecretName)
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				add("configmaps", s.ConfigMap.Name)
			}
			if s.Secret != nil {
				add("secrets", s.Secret.Name)
			}
		}
	}
	for _, c := range containers(p) {
		for _, e := range c.EnvFrom {
			if e.ConfigMapRef != nil {
				add("configmaps", e.ConfigMapRef.Name)
			}
			if e.SecretRef != nil {
				add("secrets", e.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				add("configmaps", e.ValueFrom.ConfigMapKeyRef.Name)
			}
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				add("secrets", e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	return keys
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
		size += len(r.Bytes) + 128
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
