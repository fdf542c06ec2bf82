package node

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wherry-project/wherry/internal/podspec"
)

// fits says why the node cannot give a pod that runs the resources that it asks
// for now: Infeasible, it never could, or Deferred, others have them.
func (n *Node) fits(pod *corev1.Pod) (reason, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	self := n.view.Self()
	if self == nil {
		return "", ""
	}
	others := make([]*corev1.Pod, 0, len(n.pods))
	for uid, p := range n.pods {
		if uid != string(pod.UID) && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			others = append(others, p)
		}
	}
	return room(pod, others, self.Status.Allocatable)
}

// room is the judgement of fits, pure.
func room(pod *corev1.Pod, others []*corev1.Pod, whole corev1.ResourceList) (reason, message string) {
	want := podspec.Requests(&pod.Spec)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		all, ok := whole[name]
		need := want[name]
		if !ok || need.IsZero() {
			continue
		}
		amount := func(q resource.Quantity) int64 {
			if name == corev1.ResourceCPU {
				return q.MilliValue()
			}
			return q.Value()
		}
		if need.Cmp(all) > 0 {
			return corev1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, amount(need), amount(all))
		}
		sum := need.DeepCopy()
		for _, p := range others {
			sum.Add(podspec.Requests(&p.Spec)[name])
		}
		if sum.Cmp(all) > 0 {
			return corev1.PodReasonDeferred, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
				name, amount(need), amount(sum)-amount(need), amount(all))
		}
	}
	return "", ""
}
