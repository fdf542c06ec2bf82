package admission

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/apierr"
)

// nodeRestriction keeps a node to itself: it makes no Node but its own, and
// neither its taints, its owners nor the labels that place pods by trust are its
// to choose.
// Which objects it may touch at all is authorization's.
func nodeRestriction(r *Request) error {
	node, ok := r.Object.(*corev1.Node)
	if !ok || r.Node == "" {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return apierr.Forbidden("nodes", node.Name, fmt.Errorf("node %q is not allowed to "+format, append([]any{r.Node}, args...)...))
	}
	if node.Name != r.Node {
		return refuse("modify node %q", node.Name)
	}
	old, update := r.Old.(*corev1.Node)
	if !update {
		old = &corev1.Node{}
	}
	if labels := restricted(node.Labels, old.Labels); len(labels) > 0 {
		return refuse("set the following labels: %s", strings.Join(labels, ", "))
	}
	if update && !equality.Semantic.DeepEqual(node.Spec.Taints, old.Spec.Taints) {
		return refuse("modify taints")
	}
	// A node whose owner is gone is collected, and comes back without the taints
	// that an administrator gave it.
	if !equality.Semantic.DeepEqual(node.OwnerReferences, old.OwnerReferences) {
		return refuse("modify ownerReferences")
	}
	return nil
}

// restricted are the labels that differ and are not a node's to set.
func restricted(is, was map[string]string) []string {
	changed := map[string]bool{}
	for key, value := range is {
		if old, ok := was[key]; !ok || old != value {
			changed[key] = true
		}
	}
	for key := range was {
		if _, ok := is[key]; !ok {
			changed[key] = true
		}
	}
	maps.DeleteFunc(changed, func(key string, _ bool) bool { return ownLabel(key) })
	return slices.Sorted(maps.Keys(changed))
}

// ownLabel reports whether a label is a node's to set: those outside of
// Kubernetes' own domains, and of these the ones that say what the machine is.
func ownLabel(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	in := func(parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	switch {
	case !ok, !in("kubernetes.io") && !in("k8s.io"):
		return true
	case in(corev1.LabelNamespaceSuffixKubelet), in(corev1.LabelNamespaceSuffixNode):
		return true
	}
	switch key {
	case corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelInstanceTypeStable, corev1.LabelInstanceType,
		corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return true
	}
	return false
}

// taintNewNode keeps pods off a node until it has been seen to be ready.
func taintNewNode(r *Request) error {
	node, ok := r.Object.(*corev1.Node)
	if !ok || r.Operation != Create {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for _, t := range node.Spec.Taints {
		if t.MatchTaint(&taint) {
			return nil
		}
	}
	node.Spec.Taints = append(node.Spec.Taints, taint)
	return nil
}
