package replicaset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/owner"
	"github.com/wherry-project/wherry/internal/podstate"
)

// burst bounds the pods that one look at a ReplicaSet makes or deletes.
const burst = 500

// actions are what brings the pods to the number wanted.
type actions struct {
	create int
	remove []*corev1.Pod
}

// plan compares the number wanted with the active pods. Related are all active
// pods of the ReplicaSet's owner, which tell how crowded a node is.
func plan(rs *appsv1.ReplicaSet, active, related []*corev1.Pod, now time.Time) actions {
	if rs.DeletionTimestamp != nil {
		return actions{}
	}
	missing := wanted(rs) - len(active)
	if missing >= 0 {
		return actions{create: min(missing, burst)}
	}
	if -missing >= len(active) {
		return actions{remove: active[:min(len(active), burst)]}
	}
	return actions{remove: victims(active, related, now)[:min(-missing, burst)]}
}

func wanted(rs *appsv1.ReplicaSet) int {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return int(*rs.Spec.Replicas)
}

// victims orders pods: the one to lose first comes first.
func victims(pods, related []*corev1.Pod, now time.Time) []*corev1.Pod {
	crowd := map[string]int{}
	for _, p := range related {
		if p.Spec.NodeName != "" {
			crowd[p.Spec.NodeName]++
		}
	}
	out := slices.Clone(pods)
	slices.SortFunc(out, func(a, b *corev1.Pod) int {
		return cmp.Or(
			trueFirst(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			cmp.Compare(phaseOrder(a), phaseOrder(b)),
			trueFirst(!podstate.Ready(a), !podstate.Ready(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(crowd[b.Spec.NodeName], crowd[a.Spec.NodeName]),
			youngerFirst(podstate.ReadySince(a), podstate.ReadySince(b), now),
			cmp.Compare(restarts(b), restarts(a)),
			youngerFirst(a.CreationTimestamp, b.CreationTimestamp, now),
			cmp.Compare(a.UID, b.UID),
		)
	})
	return out
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func phaseOrder(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	}
	return 2
}

func deletionCost(p *corev1.Pod) int32 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// youngerFirst compares ages by powers of two, so that pods of about one age
// are equal. Where there is no time, there is nothing to compare.
func youngerFirst(a, b metav1.Time, now time.Time) int {
	if a.IsZero() || b.IsZero() {
		return trueFirst(a.IsZero(), b.IsZero())
	}
	return cmp.Compare(magnitude(now.Sub(a.Time)), magnitude(now.Sub(b.Time)))
}

func magnitude(age time.Duration) int {
	if age <= 0 {
		return -1
	}
	return int(math.Log2(float64(age)))
}

func restarts(p *corev1.Pod) int32 {
	n := int32(0)
	for _, c := range p.Status.ContainerStatuses {
		n = max(n, c.RestartCount)
	}
	for _, c := range p.Status.InitContainerStatuses {
		n = max(n, c.RestartCount)
	}
	return n
}

// newPod makes a pod of the template.
func newPod(rs *appsv1.ReplicaSet) *corev1.Pod {
	t := rs.Spec.Template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: rs.Namespace, GenerateName: rs.Name + "-",
			Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{owner.Ref(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: t.Spec,
	}
}

// status is what the pods come to, and when it changes by itself: when the next
// pod will have been ready for long enough (0: never).
func status(rs *appsv1.ReplicaSet, active []*corev1.Pod, terminating int, failure *appsv1.ReplicaSetCondition, now time.Time) (appsv1.ReplicaSetStatus, time.Duration) {
	s := *rs.Status.DeepCopy()
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = int32(len(active)), 0, 0, 0
	gone := int32(terminating)
	s.TerminatingReplicas = &gone
	s.ObservedGeneration = rs.Generation
	again := time.Duration(0)
	for _, p := range active {
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		left, ready := podstate.AvailableIn(p, rs.Spec.MinReadySeconds, now)
		switch {
		case !ready:
			continue
		case left == 0:
			s.AvailableReplicas++
		case again == 0 || left < again:
			again = left
		}
		s.ReadyReplicas++
	}
	s.Conditions = withFailure(s.Conditions, failure)
	return s, again
}

// withFailure sets the condition of failure, or removes it.
func withFailure(list []appsv1.ReplicaSetCondition, failure *appsv1.ReplicaSetCondition) []appsv1.ReplicaSetCondition {
	var out []appsv1.ReplicaSetCondition
	for _, c := range list {
		switch {
		case c.Type != appsv1.ReplicaSetReplicaFailure:
			out = append(out, c)
		case failure != nil && c.Status == failure.Status && c.Reason == failure.Reason:
			out, failure = append(out, c), nil
		}
	}
	if failure != nil {
		out = append(out, *failure)
	}
	return out
}
