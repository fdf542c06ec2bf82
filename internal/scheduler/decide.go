// Package scheduler finds a node for each pod. Decide is a pure function of a
// view of the cluster and the pod; the loop around it follows the store, binds,
// and tries again what found no node when a change may have helped.
package scheduler

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Decision is a node, or why there is none.
type Decision struct {
	Node string
	// Message says why there is no node, in Kubernetes' words.
	Message string
	// neighbourly reports that other pods' rules had a part in that.
	neighbourly bool
}

// wish is a pod that waits, prepared for looking at many nodes.
type wish struct {
	*placed
	pod         *corev1.Pod
	tolerations []corev1.Toleration
	rules       nodeRules
	spread      []constraint
}

func wishOf(pod *corev1.Pod) *wish {
	p := placedOf(pod)
	return &wish{
		placed: p, pod: pod, tolerations: pod.Spec.Tolerations, rules: nodeRulesOf(&pod.Spec),
		spread: constraintsOf(pod, p.owner != ""),
	}
}

// The reasons why a node will not do.
const (
	reasonUnschedulable = "node(s) were unschedulable"
	reasonRules         = "node(s) didn't match Pod's node affinity/selector"
	reasonPorts         = "node(s) didn't have free ports for the requested pod ports"
	reasonPods          = "Too many pods"
)

// Decide finds the best node for a pod. Equal views and pods give equal
// decisions.
func Decide(v *View, pod *corev1.Pod) Decision {
	if len(v.order) == 0 {
		return Decision{Message: "no nodes available to schedule pods"}
	}
	if missing := claims(&pod.Spec); missing != "" {
		return Decision{Message: fmt.Sprintf("0/%d nodes are available: %s.", len(v.order), missing)}
	}
	w := wishOf(pod)
	near := v.neighbours(w)
	hard := v.tallies(w, true)
	reasons := map[string]int{}
	var fit []*nodeState
	for _, n := range v.order {
		refused := refuse(w, n, hard, near)
		for _, r := range refused {
			reasons[r]++
		}
		if len(refused) == 0 {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return unfit(v, w, reasons)
	}
	return Decision{Node: best(v, w, fit, near).name}
}

// claims names what a pod needs that is not served.
func claims(s *corev1.PodSpec) string {
	for i := range s.Volumes {
		switch v := &s.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			return fmt.Sprintf("persistentvolumeclaim %q not found (persistent volumes are not served; use emptyDir or hostPath)", v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			return fmt.Sprintf("volume %q is ephemeral (persistent volumes are not served; use emptyDir)", v.Name)
		}
	}
	if len(s.ResourceClaims) > 0 {
		return fmt.Sprintf("resource claim %q cannot be allocated (resource claims are not served)", s.ResourceClaims[0].Name)
	}
	return ""
}

// refuse gives the reasons why a node will not do: those of the first filter
// that refuses.
func refuse(w *wish, n *nodeState, hard []tally, near *neighbours) []string {
	if n.node.Spec.Unschedulable && !tolerated(w.tolerations, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return []string{reasonUnschedulable}
	}
	if t := untolerated(n.node, w.tolerations); t != nil {
		return []string{fmt.Sprintf("node(s) had untolerated taint {%s: %s}", t.Key, t.Value)}
	}
	if !w.rules.allow(n.node) {
		return []string{reasonRules}
	}
	if len(w.ports) > 0 && portsTaken(w, n) {
		return []string{reasonPorts}
	}
	var out []string
	if int64(len(n.pods))+1 > n.maxPods {
		out = append(out, reasonPods)
	}
	if out = append(out, n.has.lacking(&n.used, &w.request)...); len(out) > 0 {
		return out
	}
	for i := range hard {
		if r := hard[i].refuse(n.node); r != "" {
			return []string{r}
		}
	}
	if r := near.refuse(w, n.node); r != "" {
		return []string{r}
	}
	return nil
}

func portsTaken(w *wish, n *nodeState) bool {
	for _, p := range n.pods {
		for _, has := range p.ports {
			if slices.ContainsFunc(w.ports, has.conflicts) {
				return true
			}
		}
	}
	return false
}

// unfit tells why no node will do.
func unfit(v *View, w *wish, reasons map[string]int) Decision {
	d := Decision{}
	var parts []string
	scarce := false
	for _, r := range slices.Sorted(maps.Keys(reasons)) {
		parts = append(parts, fmt.Sprintf("%d %s", reasons[r], r))
		switch r {
		case reasonSpread, reasonAffinity, reasonAntiAffinity, reasonBarred:
			d.neighbourly = true
		}
		scarce = scarce || r == reasonPods || strings.HasPrefix(r, "Insufficient ")
	}
	slices.Sort(parts)
	d.Message = fmt.Sprintf("0/%d nodes are available: %s.", len(v.order), strings.Join(parts, ", "))
	if scarce && v.hasLower(w) {
		d.Message += " preemption: not supported, pods of lower priority stay where they are."
	}
	return d
}

// hasLower reports whether the pod might elsewhere drive out others.
func (v *View) hasLower(w *wish) bool {
	if p := w.pod.Spec.PreemptionPolicy; p != nil && *p == corev1.PreemptNever {
		return false
	}
	for _, p := range v.pods {
		if p.priority < w.priority {
			return true
		}
	}
	return false
}

// best chooses among nodes that fit. Equals are told apart by the pod's uid, so
// that not every pod meets the same node first.
func best(v *View, w *wish, fit []*nodeState, near *neighbours) *nodeState {
	if len(fit) == 1 {
		return fit[0]
	}
	scores := score(v, w, fit, near)
	top := slices.Max(scores)
	var equal []*nodeState
	for i, n := range fit {
		if scores[i] >= top-1e-9 {
			equal = append(equal, n)
		}
	}
	h := fnv.New32a()
	h.Write([]byte(w.uid))
	return equal[int(h.Sum32())%len(equal)]
}
