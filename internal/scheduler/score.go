package scheduler

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The weights of the scores, each of which is 0 to 100.
const (
	weighTaints    = 3
	weighRules     = 2
	weighSpread    = 2
	weighNear      = 2
	weighFree      = 1
	weighBalance   = 1
	weighImages    = 1
	imageTooSmall  = 23 << 20
	imageLargeEach = 1000 << 20
)

// score rates the nodes that fit, higher is better.
func score(v *View, w *wish, fit []*nodeState, near *neighbours) []float64 {
	total := make([]float64, len(fit))
	one := make([]float64, len(fit))
	add := func(weight float64, rate func(n *nodeState) float64, turn func([]float64)) {
		for i, n := range fit {
			one[i] = rate(n)
		}
		if turn != nil {
			turn(one)
		}
		for i := range total {
			total[i] += weight * one[i]
		}
	}
	add(weighFree, func(n *nodeState) float64 { return free(w, n) }, nil)
	add(weighBalance, func(n *nodeState) float64 { return balance(w, n) }, nil)
	if softTaints(fit) {
		add(weighTaints, func(n *nodeState) float64 { return disliked(w, n.node) }, lessIsBetter)
	}
	if len(w.rules.preferred) > 0 {
		add(weighRules, func(n *nodeState) float64 { return float64(w.rules.preference(n.node)) }, moreIsBetter)
	}
	if soft := v.tallies(w, false); len(soft) > 0 {
		add(weighSpread, func(n *nodeState) float64 { return crowd(w, soft, n) }, evenIsBetter)
	}
	if len(near.score) > 0 {
		add(weighNear, func(n *nodeState) float64 { return float64(near.rate(n.node)) }, between)
	}
	names := imageNames(&w.pod.Spec)
	if spread := imageSpread(v, names); len(spread) > 0 {
		add(weighImages, func(n *nodeState) float64 { return local(names, spread, n) }, nil)
	}
	return total
}

// part is the share that would be taken, 0 to 1.
func part(used, more, has int64) float64 {
	if has <= 0 {
		return 1
	}
	return min(1, float64(used+more)/float64(has))
}

// free rates the room that would be left.
func free(w *wish, n *nodeState) float64 {
	cpu, memory := part(n.weigh.cpu, w.weigh.cpu, n.has.cpu), part(n.weigh.memory, w.weigh.memory, n.has.memory)
	return 100 * ((1 - cpu) + (1 - memory)) / 2
}

// balance rates how evenly cpu and memory would be used.
func balance(w *wish, n *nodeState) float64 {
	cpu, memory := part(n.used.cpu, w.request.cpu, n.has.cpu), part(n.used.memory, w.request.memory, n.has.memory)
	return 100 * (1 - math.Abs(cpu-memory)/2)
}

func softTaints(fit []*nodeState) bool {
	for _, n := range fit {
		for i := range n.node.Spec.Taints {
			if n.node.Spec.Taints[i].Effect == corev1.TaintEffectPreferNoSchedule {
				return true
			}
		}
	}
	return false
}

// disliked counts the taints that would rather not have the pod.
func disliked(w *wish, node *corev1.Node) float64 {
	n := 0.0
	for i := range node.Spec.Taints {
		if t := &node.Spec.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerated(w.tolerations, t) {
			n++
		}
	}
	return n
}

func bounds(s []float64) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, x := range s {
		low, high = min(low, x), max(high, x)
	}
	return low, high
}

func moreIsBetter(s []float64) {
	if _, high := bounds(s); high > 0 {
		for i := range s {
			s[i] = 100 * s[i] / high
		}
	}
}

func lessIsBetter(s []float64) {
	_, high := bounds(s)
	for i := range s {
		if s[i] = 100 - 100*s[i]/high; high == 0 {
			s[i] = 100
		}
	}
}

// evenIsBetter rates the emptiest domain best.
func evenIsBetter(s []float64) {
	low, high := bounds(s)
	for i := range s {
		if s[i] = 100 * (high + low - s[i]) / high; high == 0 {
			s[i] = 100
		}
	}
}

func between(s []float64) {
	low, high := bounds(s)
	for i := range s {
		if s[i] = 100 * (s[i] - low) / (high - low); high == low {
			s[i] = 0
		}
	}
}

func imageNames(s *corev1.PodSpec) []string {
	var out []string
	for i := range s.InitContainers {
		out = append(out, withTag(s.InitContainers[i].Image))
	}
	for i := range s.Containers {
		out = append(out, withTag(s.Containers[i].Image))
	}
	return out
}

func withTag(image string) string {
	if strings.LastIndexByte(image, ':') <= strings.LastIndexByte(image, '/') {
		return image + ":latest"
	}
	return image
}

// imageSpread tells which part of the nodes has each image: an image that is
// only here and there draws less, so that not all pods go to one node.
func imageSpread(v *View, names []string) map[string]float64 {
	out := map[string]float64{}
	for _, n := range v.order {
		for _, name := range names {
			if _, ok := n.images[name]; ok {
				out[name] += 1 / float64(len(v.order))
			}
		}
	}
	return out
}

// local rates how much of the pod's images a node has.
func local(names []string, spread map[string]float64, n *nodeState) float64 {
	sum := 0.0
	for _, name := range names {
		sum += float64(n.images[name]) * spread[name]
	}
	most := float64(imageLargeEach * len(names))
	return 100 * (min(max(sum, imageTooSmall), most) - imageTooSmall) / (most - imageTooSmall)
}
