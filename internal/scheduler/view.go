package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/store"
)

// View is what a decision is made from: the nodes with what is taken of them.
// It is kept up to date change by change; a View taken of a snapshot and one
// that followed the changes up to it are the same.
type View struct {
	nodes map[string]*nodeState
	// order are the nodes that exist, by name.
	order []*nodeState
	pods  map[string]*placed
	// ruled are the placed pods with rules about other pods.
	ruled      map[string]*placed
	namespaces map[string]map[string]string
}

// nodeState is a node, with the pods on it. The node is nil if pods are bound
// to one that does not exist.
type nodeState struct {
	name        string
	node        *corev1.Node
	has         amounts
	maxPods     int64
	used, weigh amounts
	pods        []*placed
	owners      map[string]int
	images      map[string]int64
}

// NewView makes an empty view.
func NewView() *View {
	return &View{
		nodes: map[string]*nodeState{}, pods: map[string]*placed{}, ruled: map[string]*placed{},
		namespaces: map[string]map[string]string{},
	}
}

// ViewOf takes a view of a snapshot.
func ViewOf(s *store.Snapshot) (*View, error) {
	v := NewView()
	for _, resource := range []string{"namespaces", "nodes", "pods"} {
		for r := range s.Scan(resource, "", api.Key{}) {
			if _, err := v.Apply(s.Codec(), store.Event{New: r}); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// hint says for which pods a change may have made room.
type hint int

const (
	helpsNobody hint = iota
	// helpsNeighbours: those that were refused for other pods' sake.
	helpsNeighbours
	helpsAll
)

// Apply takes in one change of the store.
func (v *View) Apply(codec *api.Codec, e store.Event) (hint, error) {
	switch e.Key().Resource {
	case "namespaces":
		if e.New == nil {
			delete(v.namespaces, e.Old.Name)
			return helpsNobody, nil
		}
		v.namespaces[e.New.Name] = e.New.Index.Labels
		return helpsNeighbours, nil
	case "nodes":
		if e.New == nil {
			return v.dropNode(e.Old.Name), nil
		}
		obj, err := codec.Decode(e.New)
		if err != nil {
			return helpsNobody, err
		}
		return v.putNode(obj.(*corev1.Node)), nil
	case "pods":
		return v.putPod(codec, e)
	}
	return helpsNobody, nil
}

func (v *View) at(name string) *nodeState {
	n := v.nodes[name]
	if n == nil {
		n = &nodeState{name: name, owners: map[string]int{}}
		v.nodes[name] = n
	}
	return n
}

func (v *View) putNode(node *corev1.Node) hint {
	n := v.at(node.Name)
	was := n.node
	n.node = node
	n.has = amountsOf(node.Status.Allocatable)
	n.maxPods = node.Status.Allocatable.Pods().Value()
	if was == nil {
		i, _ := slices.BinarySearchFunc(v.order, node.Name, byName)
		v.order = slices.Insert(v.order, i, n)
	}
	if was == nil || !slices.EqualFunc(was.Status.Images, node.Status.Images, sameImage) {
		n.images = imagesOf(node)
	}
	if was != nil && was.Spec.Unschedulable == node.Spec.Unschedulable &&
		equality.Semantic.DeepEqual(was.Status.Allocatable, node.Status.Allocatable) &&
		equality.Semantic.DeepEqual(was.Labels, node.Labels) &&
		equality.Semantic.DeepEqual(was.Spec.Taints, node.Spec.Taints) {
		return helpsNobody
	}
	return helpsAll
}

func byName(n *nodeState, name string) int { return strings.Compare(n.name, name) }

func sameImage(a, b corev1.ContainerImage) bool {
	return a.SizeBytes == b.SizeBytes && slices.Equal(a.Names, b.Names)
}

func imagesOf(node *corev1.Node) map[string]int64 {
	out := map[string]int64{}
	for _, i := range node.Status.Images {
		for _, name := range i.Names {
			out[name] = i.SizeBytes
		}
	}
	return out
}

func (v *View) dropNode(name string) hint {
	if i, ok := slices.BinarySearchFunc(v.order, name, byName); ok {
		v.order = slices.Delete(v.order, i, i+1)
	}
	if n := v.nodes[name]; n != nil {
		n.node, n.images, n.has, n.maxPods = nil, nil, amounts{}, 0
		v.tidy(n)
	}
	return helpsNeighbours
}

// tidy forgets a node that neither exists nor has pods.
func (v *View) tidy(n *nodeState) {
	if n.node == nil && len(n.pods) == 0 {
		delete(v.nodes, n.name)
	}
}

func (v *View) putPod(codec *api.Codec, e store.Event) (hint, error) {
	r := e.New
	if r == nil {
		return v.remove(e.Old.UID), nil
	}
	out := hint(helpsNobody)
	if e.Old != nil && e.Old.UID != r.UID {
		out = v.remove(e.Old.UID)
	}
	node, phase := r.Index.Fields["spec.nodeName"], corev1.PodPhase(r.Index.Fields["status.phase"])
	if node == "" {
		return out, nil // it waits, or is assumed to be on a node
	}
	if phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		return max(out, v.remove(r.UID)), nil
	}
	if had := v.pods[r.UID]; had != nil && had.node == node && !had.assumed && had.deleting == r.Index.Deleting && sameLabels(had.labels, r.Index.Labels) {
		return out, nil // only its status moved
	}
	obj, err := codec.Decode(r)
	if err != nil {
		return out, err
	}
	had := v.pods[r.UID]
	v.place(placedOf(obj.(*corev1.Pod)))
	if had != nil && had.assumed {
		return out, nil
	}
	return max(out, helpsNeighbours), nil
}

func sameLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// place puts a pod on its node, in place of what was known of it.
func (v *View) place(p *placed) {
	v.remove(p.uid)
	n := v.at(p.node)
	n.used.add(p.request, 1)
	n.weigh.add(p.weigh, 1)
	n.pods = append(n.pods, p)
	if p.owner != "" && !p.deleting {
		n.owners[p.owner]++
	}
	v.pods[p.uid] = p
	if len(p.terms) > 0 {
		v.ruled[p.uid] = p
	}
}

// remove takes a pod off its node.
func (v *View) remove(uid string) hint {
	p := v.pods[uid]
	if p == nil {
		return helpsNobody
	}
	n := v.nodes[p.node]
	n.used.add(p.request, -1)
	n.weigh.add(p.weigh, -1)
	i, last := slices.Index(n.pods, p), len(n.pods)-1
	n.pods[i], n.pods[last] = n.pods[last], nil
	n.pods = n.pods[:last]
	if p.owner != "" && !p.deleting {
		if n.owners[p.owner]--; n.owners[p.owner] == 0 {
			delete(n.owners, p.owner)
		}
	}
	delete(v.pods, uid)
	delete(v.ruled, uid)
	v.tidy(n)
	return helpsAll
}
