package scheduler

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// tolerated reports whether one of the tolerations covers a taint.
func tolerated(list []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range list {
		if tolerates(&list[i], taint) {
			return true
		}
	}
	return false
}

func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Value == taint.Value
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		want, err := strconv.ParseInt(t.Value, 10, 64)
		has, err2 := strconv.ParseInt(taint.Value, 10, 64)
		if err != nil || err2 != nil {
			return false
		}
		return t.Operator == corev1.TolerationOpLt && has < want || t.Operator == corev1.TolerationOpGt && has > want
	}
	return false
}

// untolerated finds the first taint that keeps a pod off a node.
func untolerated(node *corev1.Node, list []corev1.Toleration) *corev1.Taint {
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if (t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute) && !tolerated(list, t) {
			return t
		}
	}
	return nil
}

// nodeTerm is a compiled corev1.NodeSelectorTerm.
type nodeTerm struct {
	labels labels.Selector
	fields labels.Selector
	weight int64
}

func (t nodeTerm) matches(n *corev1.Node) bool {
	return t.labels.Matches(labels.Set(n.Labels)) && t.fields.Matches(labels.Set{metav1.ObjectNameField: n.Name})
}

// nodeTermOf compiles a term. One that is empty or malformed matches nothing.
func nodeTermOf(t *corev1.NodeSelectorTerm, weight int64) nodeTerm {
	none := nodeTerm{labels.Nothing(), labels.Nothing(), weight}
	if len(t.MatchExpressions) == 0 && len(t.MatchFields) == 0 {
		return none
	}
	l, ok := nodeSelector(t.MatchExpressions)
	f, ok2 := nodeSelector(t.MatchFields)
	if !ok || !ok2 {
		return none
	}
	return nodeTerm{l, f, weight}
}

// selectionOf gives the operator of labels for one of node selectors.
func selectionOf(o corev1.NodeSelectorOperator) selection.Operator {
	switch o {
	case corev1.NodeSelectorOpIn:
		return selection.In
	case corev1.NodeSelectorOpNotIn:
		return selection.NotIn
	case corev1.NodeSelectorOpExists:
		return selection.Exists
	case corev1.NodeSelectorOpDoesNotExist:
		return selection.DoesNotExist
	case corev1.NodeSelectorOpGt:
		return selection.GreaterThan
	case corev1.NodeSelectorOpLt:
		return selection.LessThan
	}
	return "" // NewRequirement refuses it
}

func nodeSelector(list []corev1.NodeSelectorRequirement) (labels.Selector, bool) {
	s := labels.NewSelector()
	for _, e := range list {
		r, err := labels.NewRequirement(e.Key, selectionOf(e.Operator), e.Values)
		if err != nil {
			return nil, false
		}
		s = s.Add(*r)
	}
	return s, true
}

// nodeRules are what a pod asks of its node.
type nodeRules struct {
	selector  labels.Selector
	required  []nodeTerm // one of them; nil is no rule
	preferred []nodeTerm
}

func nodeRulesOf(s *corev1.PodSpec) nodeRules {
	r := nodeRules{selector: labels.SelectorFromSet(s.NodeSelector)}
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil {
		return r
	}
	a := s.Affinity.NodeAffinity
	if must := a.RequiredDuringSchedulingIgnoredDuringExecution; must != nil {
		r.required = []nodeTerm{}
		for i := range must.NodeSelectorTerms {
			r.required = append(r.required, nodeTermOf(&must.NodeSelectorTerms[i], 0))
		}
	}
	for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		p := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
		r.preferred = append(r.preferred, nodeTermOf(&p.Preference, int64(p.Weight)))
	}
	return r
}

func (r *nodeRules) allow(n *corev1.Node) bool {
	if !r.selector.Matches(labels.Set(n.Labels)) {
		return false
	}
	return r.required == nil || slices.ContainsFunc(r.required, func(t nodeTerm) bool { return t.matches(n) })
}

// preference is the weight of the preferred terms that a node matches.
func (r *nodeRules) preference(n *corev1.Node) int64 {
	sum := int64(0)
	for _, t := range r.preferred {
		if t.matches(n) {
			sum += t.weight
		}
	}
	return sum
}
