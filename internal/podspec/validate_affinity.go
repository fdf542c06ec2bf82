package podspec

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *checker) affinity(path *field.Path) {
	a := v.spec.Affinity
	if a == nil {
		return
	}
	if n := a.NodeAffinity; n != nil {
		v.nodeAffinity(n, path.Child("nodeAffinity"))
	}
	if p := a.PodAffinity; p != nil {
		v.podTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAffinity"))
	}
	if p := a.PodAntiAffinity; p != nil {
		v.podTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAntiAffinity"))
	}
}

const (
	requiredTerms  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferredTerms = "preferredDuringSchedulingIgnoredDuringExecution"
)

func (v *checker) nodeAffinity(n *corev1.NodeAffinity, path *field.Path) {
	if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		v.nodeSelector(r, path.Child(requiredTerms))
	}
	for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
		t, at := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], path.Child(preferredTerms).Index(i)
		v.weight(t.Weight, at.Child("weight"))
		v.nodeTerm(&t.Preference, at.Child("preference"))
	}
}

func (v *checker) nodeSelector(s *corev1.NodeSelector, path *field.Path) {
	at := path.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		v.add(field.Required(at, "must have at least one node selector term"))
	}
	for i := range s.NodeSelectorTerms {
		v.nodeTerm(&s.NodeSelectorTerms[i], at.Index(i))
	}
}

func (v *checker) weight(w int32, path *field.Path) {
	if w < 1 || w > 100 {
		v.invalid(path, w, "must be in the range 1-100")
	}
}

func (v *checker) nodeTerm(t *corev1.NodeSelectorTerm, path *field.Path) {
	for i := range t.MatchExpressions {
		r, at := &t.MatchExpressions[i], path.Child("matchExpressions").Index(i)
		v.nodeValues(r, at)
		v.add(metavalidation.ValidateLabelName(r.Key, at.Child("key"))...)
	}
	for i := range t.MatchFields {
		v.nodeField(&t.MatchFields[i], path.Child("matchFields").Index(i))
	}
}

func (v *checker) nodeValues(r *corev1.NodeSelectorRequirement, path *field.Path) {
	at := path.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			v.add(field.Required(at, "must be specified when `operator` is 'In' or 'NotIn'"))
		}
		for i, value := range r.Values {
			v.msgs(at.Index(i), value, validation.IsValidLabelValue(value))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			v.add(field.Forbidden(at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			v.add(field.Required(at, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		v.invalid(path.Child("operator"), r.Operator, "not a valid selector operator")
	}
}

func (v *checker) nodeField(r *corev1.NodeSelectorRequirement, path *field.Path) {
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			v.add(field.Required(path.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		v.invalid(path.Child("operator"), r.Operator, "not a valid selector operator")
	}
	if r.Key != "metadata.name" {
		v.invalid(path.Child("key"), r.Key, "not a valid field selector key")
		return
	}
	for i, value := range r.Values {
		v.msgs(path.Child("values").Index(i), value, validation.IsDNS1123Subdomain(value))
	}
}

func (v *checker) podTerms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, path *field.Path) {
	for i := range required {
		v.podTerm(&required[i], path.Child(requiredTerms).Index(i))
	}
	for i := range preferred {
		at := path.Child(preferredTerms).Index(i)
		v.weight(preferred[i].Weight, at.Child("weight"))
		v.podTerm(&preferred[i].PodAffinityTerm, at.Child("podAffinityTerm"))
	}
}

func (v *checker) podTerm(t *corev1.PodAffinityTerm, path *field.Path) {
	v.selector(t.LabelSelector, path.Child("labelSelector"))
	v.selector(t.NamespaceSelector, path.Child("namespaceSelector"))
	for _, ns := range t.Namespaces {
		v.msgs(path.Child("namespace"), ns, validation.IsDNS1123Label(ns))
	}
	v.topologyKey(t.TopologyKey, path.Child("topologyKey"))
}

func (v *checker) topologyKey(key string, path *field.Path) {
	if key == "" {
		v.add(field.Required(path, "can not be empty"))
		return
	}
	v.add(metavalidation.ValidateLabelName(key, path)...)
}

func (v *checker) selector(s *metav1.LabelSelector, path *field.Path) {
	v.add(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)...)
}

func (v *checker) spread(path *field.Path) {
	type pair struct {
		key  string
		when corev1.UnsatisfiableConstraintAction
	}
	seen := map[pair]bool{}
	for i := range v.spec.TopologySpreadConstraints {
		c, at := &v.spec.TopologySpreadConstraints[i], path.Index(i)
		if c.MaxSkew <= 0 {
			v.invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero")
		}
		v.topologyKey(c.TopologyKey, at.Child("topologyKey"))
		if c.WhenUnsatisfiable != corev1.DoNotSchedule && c.WhenUnsatisfiable != corev1.ScheduleAnyway {
			v.add(field.NotSupported(at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, []corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}))
		}
		p := pair{c.TopologyKey, c.WhenUnsatisfiable}
		if seen[p] {
			v.add(field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), "{"+c.TopologyKey+", "+string(c.WhenUnsatisfiable)+"}"))
		}
		seen[p] = true
		if m := c.MinDomains; m != nil {
			if *m <= 0 {
				v.invalid(at.Child("minDomains"), *m, "must be greater than zero")
			} else if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				v.invalid(at.Child("minDomains"), *m, "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s", c.WhenUnsatisfiable)
			}
		}
		oneOfPtr(v, at.Child("nodeAffinityPolicy"), c.NodeAffinityPolicy, corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)
		oneOfPtr(v, at.Child("nodeTaintsPolicy"), c.NodeTaintsPolicy, corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)
		v.matchLabelKeys(c, at)
		v.selector(c.LabelSelector, at.Child("labelSelector"))
	}
}

func (v *checker) matchLabelKeys(c *corev1.TopologySpreadConstraint, path *field.Path) {
	at := path.Child("matchLabelKeys")
	if len(c.MatchLabelKeys) > 0 && c.LabelSelector == nil {
		v.add(field.Forbidden(at, "must not be specified when labelSelector is not set"))
	}
	for i, key := range c.MatchLabelKeys {
		v.add(metavalidation.ValidateLabelName(key, at.Index(i))...)
	}
}
