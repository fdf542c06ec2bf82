package scheduler

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/podstate"
)

// refused gives a copy of the pod with the condition that it has no node, and
// reports whether that is news.
func refused(pod *corev1.Pod, reason, message string, now time.Time) (*corev1.Pod, bool) {
	out := pod.DeepCopy()
	changed := podstate.SetCondition(out, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		LastTransitionTime: metav1.Time{Time: now.Truncate(time.Second)}, ObservedGeneration: pod.Generation,
	})
	return out, changed
}
