package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// hardWeight is what a required affinity of a placed pod counts for when a
// node is chosen for one that it wants beside it.
const hardWeight = 1

// term is a compiled rule about other pods in the same domain.
type term struct {
	namespaces []string
	// inNamespaces selects namespaces by label; nil selects none.
	inNamespaces labels.Selector
	pods         labels.Selector
	key          string
	// anti forbids, or for a preference repels; required is a filter.
	anti, required bool
	weight         int64
}

// termsOf compiles all rules of a pod about other pods.
func termsOf(pod *corev1.Pod) []term {
	a := pod.Spec.Affinity
	if a == nil {
		return nil
	}
	var out []term
	if a.PodAffinity != nil {
		for i := range a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			out = append(out, termOf(pod, &a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i], false, 0))
		}
		for i := range a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			w := &a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i]
			out = append(out, termOf(pod, &w.PodAffinityTerm, false, int64(w.Weight)))
		}
	}
	if a.PodAntiAffinity != nil {
		for i := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			out = append(out, termOf(pod, &a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i], true, 0))
		}
		for i := range a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			w := &a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i]
			out = append(out, termOf(pod, &w.PodAffinityTerm, true, int64(w.Weight)))
		}
	}
	return out
}

func termOf(pod *corev1.Pod, t *corev1.PodAffinityTerm, anti bool, weight int64) term {
	out := term{namespaces: t.Namespaces, key: t.TopologyKey, anti: anti, required: weight == 0, weight: weight}
	out.pods = withKeys(selectorOf(t.LabelSelector), pod.Labels, t.MatchLabelKeys, selection.In)
	out.pods = withKeys(out.pods, pod.Labels, t.MismatchLabelKeys, selection.NotIn)
	if t.NamespaceSelector != nil {
		out.inNamespaces = selectorOf(t.NamespaceSelector)
	} else if len(t.Namespaces) == 0 {
		out.namespaces = []string{pod.Namespace}
	}
	return out
}

// selectorOf compiles a selector; nil and malformed ones match nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}

// withKeys narrows a selector to the pod's own values of some labels.
func withKeys(s labels.Selector, own map[string]string, keys []string, op selection.Operator) labels.Selector {
	for _, k := range keys {
		if v, ok := own[k]; ok {
			if r, err := labels.NewRequirement(k, op, []string{v}); err == nil {
				s = s.Add(*r)
			}
		}
	}
	return s
}

// matches reports whether a term speaks of a pod.
func (t *term) matches(v *View, p *placed) bool {
	if !slices.Contains(t.namespaces, p.namespace) && (t.inNamespaces == nil || !t.inNamespaces.Matches(labels.Set(v.namespaces[p.namespace]))) {
		return false
	}
	return t.pods.Matches(labels.Set(p.labels))
}

// domain is one value of a topology label.
type domain struct{ key, value string }

// neighbours is what the pods already placed mean for a new one: computed once
// per decision, asked per node.
type neighbours struct {
	want []term // the new pod's required affinity
	near []map[string]bool
	// self reports that the new pod fulfils its own wishes, as the first of
	// its kind, and that nobody else does.
	self  bool
	avoid map[domain]bool // its own anti-affinity
	bar   map[domain]bool // anti-affinity of others
	score map[domain]int64
}

// neighbours looks at the placed pods. Most clusters have few rules: without
// any this touches nothing.
func (v *View) neighbours(w *wish) *neighbours {
	n := &neighbours{avoid: map[domain]bool{}, bar: map[domain]bool{}, score: map[domain]int64{}}
	for _, t := range w.terms {
		if t.required && !t.anti {
			n.want = append(n.want, t)
			n.near = append(n.near, map[string]bool{})
		}
	}
	if len(w.terms) > 0 {
		for _, at := range v.order {
			for _, p := range at.pods {
				n.own(v, w, at.node, p)
			}
		}
	}
	for _, p := range v.ruled {
		if at := v.nodes[p.node]; at != nil && at.node != nil {
			n.others(v, w, at.node, p)
		}
	}
	n.self = len(n.want) > 0
	for i := range n.want {
		n.self = n.self && len(n.near[i]) == 0 && n.want[i].matches(v, w.placed)
	}
	return n
}

// own takes in what the new pod's rules say of a placed one.
func (n *neighbours) own(v *View, w *wish, node *corev1.Node, p *placed) {
	i := 0
	for j := range w.terms {
		t := &w.terms[j]
		wanted := t.required && !t.anti
		value, ok := node.Labels[t.key]
		if ok && t.matches(v, p) {
			switch {
			case wanted:
				n.near[i][value] = true
			case t.required:
				n.avoid[domain{t.key, value}] = true
			case t.anti:
				n.score[domain{t.key, value}] -= t.weight
			default:
				n.score[domain{t.key, value}] += t.weight
			}
		}
		if wanted {
			i++
		}
	}
}

// others takes in what a placed pod's rules say of the new one.
func (n *neighbours) others(v *View, w *wish, node *corev1.Node, p *placed) {
	for j := range p.terms {
		t := &p.terms[j]
		value, ok := node.Labels[t.key]
		if !ok || !t.matches(v, w.placed) {
			continue
		}
		switch d := (domain{t.key, value}); {
		case t.required && t.anti:
			n.bar[d] = true
		case t.required:
			n.score[d] += hardWeight
		case t.anti:
			n.score[d] -= t.weight
		default:
			n.score[d] += t.weight
		}
	}
}

// The reasons of neighbours.refuse.
const (
	reasonAffinity     = "node(s) didn't match pod affinity rules"
	reasonAntiAffinity = "node(s) didn't match pod anti-affinity rules"
	reasonBarred       = "node(s) didn't satisfy existing pods anti-affinity rules"
)

// refuse gives the reason why a node will not do, or "".
func (n *neighbours) refuse(w *wish, node *corev1.Node) string {
	for i := range n.want {
		value, ok := node.Labels[n.want[i].key]
		if !ok || !n.near[i][value] && !n.self {
			return reasonAffinity
		}
	}
	if len(n.avoid) > 0 {
		for i := range w.terms {
			t := &w.terms[i]
			if value, ok := node.Labels[t.key]; ok && t.required && t.anti && n.avoid[domain{t.key, value}] {
				return reasonAntiAffinity
			}
		}
	}
	for d := range n.bar {
		if node.Labels[d.key] == d.value {
			return reasonBarred
		}
	}
	return ""
}

func (n *neighbours) rate(node *corev1.Node) int64 {
	sum := int64(0)
	for d, s := range n.score {
		if value, ok := node.Labels[d.key]; ok && value == d.value {
			sum += s
		}
	}
	return sum
}
