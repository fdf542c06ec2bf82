package admission

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/apierr"
)

const tolerateSeconds = 300

// defaultTolerations lets a pod stay on a node that is not ready or cannot be
// reached for five minutes, unless it says otherwise.
func defaultTolerations(r *Request) error {
	pod, ok := r.Object.(*corev1.Pod)
	if !ok || r.Subresource != "" || r.Operation == Delete {
		return nil
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if tolerates(pod.Spec.Tolerations, key) {
			continue
		}
		seconds := int64(tolerateSeconds)
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
		})
	}
	return nil
}

func tolerates(list []corev1.Toleration, key string) bool {
	for _, t := range list {
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}

// priority turns the name of a built-in priority class into its number, and
// keeps the number when a pod is replaced by one that names none.
func priority(r *Request) error {
	pod, ok := r.Object.(*corev1.Pod)
	if !ok || r.Subresource != "" || r.Operation == Delete {
		return nil
	}
	if old, ok := r.Old.(*corev1.Pod); ok {
		if pod.Spec.Priority == nil && old.Spec.Priority != nil {
			value := *old.Spec.Priority
			pod.Spec.Priority = &value
		}
		if pod.Spec.PreemptionPolicy == nil && old.Spec.PreemptionPolicy != nil {
			policy := *old.Spec.PreemptionPolicy
			pod.Spec.PreemptionPolicy = &policy
		}
		return nil
	}
	value := int32(0)
	switch name := pod.Spec.PriorityClassName; name {
	case "":
	case "system-cluster-critical":
		value = 2000000000
	case "system-node-critical":
		value = 2000001000
	default:
		return apierr.Forbidden("pods", pod.Name, fmt.Errorf("no PriorityClass with name %s was found", name))
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return apierr.Forbidden("pods", pod.Name, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value))
	}
	pod.Spec.Priority = &value
	if pod.Spec.PreemptionPolicy == nil {
		policy := corev1.PreemptLowerPriority
		pod.Spec.PreemptionPolicy = &policy
	}
	return nil
}

// runtimeClass refuses a pod that wants a runtime of its own: there is one
// runtime, and no RuntimeClass is served.
func runtimeClass(r *Request) error {
	pod, ok := r.Object.(*corev1.Pod)
	if !ok || r.Operation != Create || r.Subresource != "" || pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return nil
	}
	return apierr.Forbidden("pods", pod.Name, fmt.Errorf("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName))
}
