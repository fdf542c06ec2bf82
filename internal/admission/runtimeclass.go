package admission

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// handler is the only one that nodes have.
const handler = "runc"

// runtimeClass gives a pod what its RuntimeClass says: the overhead, which is
// the class's alone to set, and the nodes that it may run on.
func runtimeClass(r *Request) error {
	pod, ok := r.Object.(*corev1.Pod)
	if !ok || r.Operation != Create || r.Subresource != "" {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return apierr.Forbidden("pods", pod.Name, fmt.Errorf(format, args...))
	}
	class := &nodev1.RuntimeClass{}
	if name := pod.Spec.RuntimeClassName; name != nil && *name != "" {
		var err error
		class, err = store.Get[*nodev1.RuntimeClass](r.Snapshot, api.Key{Resource: "runtimeclasses.node.k8s.io", Name: *name})
		if errors.Is(err, apierr.ErrNotFound) {
			return refuse("pod rejected: RuntimeClass %q not found", *name)
		} else if err != nil {
			return err
		}
		if class.Handler != handler {
			// Kubernetes lets such a pod wait on its node for ever. In another
			// runtime than the one asked for it must not run.
			return refuse("pod rejected: RuntimeClass %q has the handler %q, which no node has: nodes have %q", *name, class.Handler, handler)
		}
	}
	switch over := class.Overhead; {
	case over == nil && pod.Spec.Overhead != nil:
		return refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	case over == nil:
	case pod.Spec.Overhead != nil && !equality.Semantic.DeepEqual(over.PodFixed, pod.Spec.Overhead):
		return refuse("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	default:
		pod.Spec.Overhead = over.DeepCopy().PodFixed
	}
	if class.Scheduling == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(class.Scheduling.NodeSelector)) {
		want := class.Scheduling.NodeSelector[key]
		if has, ok := pod.Spec.NodeSelector[key]; ok && has != want {
			return refuse("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, want, key, has)
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[key] = want
	}
	pod.Spec.Tolerations = mergeTolerations(pod.Spec.Tolerations, class.DeepCopy().Scheduling.Tolerations)
	return nil
}

// mergeTolerations puts two lists together, without those that another one of
// them makes superfluous; of equal ones the first stays.
func mergeTolerations(a, b []corev1.Toleration) []corev1.Toleration {
	all := slices.Concat(a, b)
	var out []corev1.Toleration
	for i, t := range all {
		superfluous := func(other corev1.Toleration) bool { return covers(other, t) }
		laterOnly := func(other corev1.Toleration) bool {
			return covers(other, t) && !equality.Semantic.DeepEqual(other, t)
		}
		if !slices.ContainsFunc(out, superfluous) && !slices.ContainsFunc(all[i+1:], laterOnly) {
			out = append(out, t)
		}
	}
	return out
}

// covers reports whether all that t tolerates, and for as long, wide does too.
func covers(wide, t corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(wide, t) {
		return true
	}
	exists := wide.Operator == corev1.TolerationOpExists
	if wide.Key != t.Key && (wide.Key != "" || !exists) || wide.Effect != t.Effect && wide.Effect != "" {
		return false
	}
	if wide.Effect == corev1.TaintEffectNoExecute && wide.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *wide.TolerationSeconds) {
		return false
	}
	same := wide.Operator == t.Operator || wide.Operator == "" && t.Operator == corev1.TolerationOpEqual || t.Operator == "" && wide.Operator == corev1.TolerationOpEqual
	return exists || same && wide.Value == t.Value && t.Operator != corev1.TolerationOpExists
}
