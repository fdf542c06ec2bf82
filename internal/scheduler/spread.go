package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// constraint is a compiled topology spread constraint.
type constraint struct {
	key         string
	maxSkew     int64
	minDomains  int64
	hard        bool
	pods        labels.Selector
	honorRules  bool // count only nodes that the pod's node rules allow
	honorTaints bool // count only nodes whose taints it tolerates
	// byOwner counts the pods of the same controller instead of a selector.
	byOwner bool
}

func constraintsOf(pod *corev1.Pod, owned bool) []constraint {
	var out []constraint
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		one := constraint{
			key: c.TopologyKey, maxSkew: int64(c.MaxSkew), minDomains: 1, hard: c.WhenUnsatisfiable == corev1.DoNotSchedule,
			pods:        withKeys(selectorOf(c.LabelSelector), pod.Labels, c.MatchLabelKeys, selection.In),
			honorRules:  c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			honorTaints: c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if c.MinDomains != nil {
			one.minDomains = int64(*c.MinDomains)
		}
		out = append(out, one)
	}
	if len(out) == 0 && owned {
		return []constraint{
			{key: corev1.LabelHostname, maxSkew: 3, byOwner: true},
			{key: corev1.LabelTopologyZone, maxSkew: 5, byOwner: true},
		}
	}
	return out
}

// tally counts a constraint's pods in each domain.
type tally struct {
	constraint
	count map[string]int64
	least int64
	self  int64
	// nodes, if above 0, says that each node is a domain of its own; nothing
	// is counted beforehand then.
	nodes int
}

// tallies counts for those constraints that are hard, or for the others.
func (v *View) tallies(w *wish, hard bool) []tally {
	var out []tally
	for _, c := range w.spread {
		if c.hard != hard {
			continue
		}
		if c.byOwner && c.key == corev1.LabelHostname {
			out = append(out, tally{constraint: c, nodes: len(v.order)})
			continue
		}
		t := tally{constraint: c, count: map[string]int64{}}
		if !c.byOwner && c.pods.Matches(labels.Set(w.labels)) {
			t.self = 1
		}
		for _, at := range v.order {
			if value, ok := at.node.Labels[c.key]; ok && c.counts(w, at.node) && hasAll(w.spread, hard, at.node) {
				t.count[value] += c.on(w, at)
			}
		}
		t.least = math.MaxInt64
		for _, n := range t.count {
			t.least = min(t.least, n)
		}
		if int64(len(t.count)) < c.minDomains || len(t.count) == 0 {
			t.least = 0
		}
		out = append(out, t)
	}
	return out
}

// hasAll reports whether a node has the labels of all hard constraints; soft
// ones each stand for themselves.
func hasAll(list []constraint, hard bool, node *corev1.Node) bool {
	for _, c := range list {
		if _, ok := node.Labels[c.key]; hard && c.hard && !ok {
			return false
		}
	}
	return true
}

func (c *constraint) counts(w *wish, node *corev1.Node) bool {
	return (!c.honorRules || w.rules.allow(node)) && (!c.honorTaints || untolerated(node, w.tolerations) == nil)
}

// on counts the constraint's pods on a node.
func (c *constraint) on(w *wish, at *nodeState) int64 {
	if c.byOwner {
		return int64(at.owners[w.owner])
	}
	n := int64(0)
	for _, p := range at.pods {
		if p.namespace == w.namespace && !p.deleting && c.pods.Matches(labels.Set(p.labels)) {
			n++
		}
	}
	return n
}

// The reasons of a hard constraint.
const (
	reasonSpread      = "node(s) didn't match pod topology spread constraints"
	reasonSpreadLabel = "node(s) didn't match pod topology spread constraints (missing required label)"
)

// refuse gives the reason why a node will not do, or "".
func (t *tally) refuse(node *corev1.Node) string {
	value, ok := node.Labels[t.key]
	switch {
	case !ok:
		return reasonSpreadLabel
	case t.count[value]+t.self-t.least > t.maxSkew:
		return reasonSpread
	}
	return ""
}

// crowd is how full a node's domains are of the pod's like; it is weighed so
// that many small domains count as much as a few large ones.
func crowd(w *wish, list []tally, n *nodeState) float64 {
	sum := 0.0
	for i := range list {
		t := &list[i]
		size, count := t.nodes, int64(0)
		if size > 0 {
			count = t.on(w, n)
		} else if value, ok := n.node.Labels[t.key]; ok {
			size, count = len(t.count), t.count[value]
		} else {
			continue
		}
		sum += float64(count)*math.Log(float64(size+2)) + float64(t.maxSkew-1)
	}
	return sum
}
