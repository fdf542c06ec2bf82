// Package podstate reads what a pod's status says: whether the pod is ready,
// available, active or done, and its conditions. Controllers share it, so that
// they mean the same by these words.
package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition finds a condition of a pod; nil if there is none.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// SetCondition writes a condition and reports whether that changed anything.
// The time of transition stays while the status does.
func SetCondition(p *corev1.Pod, c corev1.PodCondition) bool {
	old := Condition(p, c.Type)
	if old == nil {
		p.Status.Conditions = append(p.Status.Conditions, c)
		return true
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	if c.LastProbeTime.IsZero() {
		c.LastProbeTime = old.LastProbeTime
	}
	if *old == c {
		return false
	}
	*old = c
	return true
}

// Ready reports whether the pod's condition Ready is true.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// ReadySince is when a ready pod became ready; zero for others.
func ReadySince(p *corev1.Pod) metav1.Time {
	if c := Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime
	}
	return metav1.Time{}
}

// AvailableIn gives how long a pod must stay ready until it counts as
// available: 0 if it does now. It is not ok for a pod that is not ready.
func AvailableIn(p *corev1.Pod, minReadySeconds int32, now time.Time) (left time.Duration, ok bool) {
	if !Ready(p) {
		return 0, false
	}
	if minReadySeconds == 0 {
		return 0, true
	}
	since := ReadySince(p)
	if since.IsZero() {
		return time.Duration(minReadySeconds) * time.Second, true
	}
	return max(0, since.Add(time.Duration(minReadySeconds)*time.Second).Sub(now)), true
}

// Done reports whether the pod has ended for good.
func Done(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Active reports whether the pod is neither done nor being deleted.
func Active(p *corev1.Pod) bool { return !Done(p) && p.DeletionTimestamp == nil }

// Terminating reports whether the pod is being deleted and still runs.
func Terminating(p *corev1.Pod) bool { return !Done(p) && p.DeletionTimestamp != nil }
