package admission

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// The classes that are there even before the cluster has made their objects.
const (
	clusterCritical, clusterCriticalValue = "system-cluster-critical", 2000000000
	nodeCritical, nodeCriticalValue       = "system-node-critical", 2000001000
)

// priority turns the name of a priority class into the number and the policy
// that count from then on: the class may change or go, the pod keeps them. A pod
// that names no class gets the one that is marked as the default, if there is
// one. A pod that is replaced by one without numbers keeps its own.
func priority(r *Request) error {
	if class, ok := r.Object.(*schedulingv1.PriorityClass); ok {
		return oneDefault(r, class)
	}
	pod, ok := r.Object.(*corev1.Pod)
	if !ok || r.Subresource != "" || r.Operation == Delete {
		return nil
	}
	if old, ok := r.Old.(*corev1.Pod); ok {
		keepPriority(pod, old)
		return nil
	}
	class, err := classOf(r.Snapshot, pod)
	if err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return apierr.Forbidden("pods", pod.Name, fmt.Errorf(format, args...))
	}
	pod.Spec.PriorityClassName = class.Name
	if p := pod.Spec.Priority; p != nil && *p != class.Value {
		return refuse("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p, class.Value)
	}
	value, policy := class.Value, corev1.PreemptLowerPriority
	if class.PreemptionPolicy != nil {
		policy = *class.PreemptionPolicy
	}
	if p := pod.Spec.PreemptionPolicy; p != nil && *p != policy {
		return refuse("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p, policy)
	}
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}

func keepPriority(pod, old *corev1.Pod) {
	if pod.Spec.Priority == nil && old.Spec.Priority != nil {
		value := *old.Spec.Priority
		pod.Spec.Priority = &value
	}
	if pod.Spec.PreemptionPolicy == nil && old.Spec.PreemptionPolicy != nil {
		policy := *old.Spec.PreemptionPolicy
		pod.Spec.PreemptionPolicy = &policy
	}
}

// classOf is the class of a new pod, shared and read-only; without name and with
// the value 0 if it names none and there is no default.
func classOf(snap *store.Snapshot, pod *corev1.Pod) (*schedulingv1.PriorityClass, error) {
	name := pod.Spec.PriorityClassName
	if name == "" {
		class, err := defaultClass(snap)
		if class == nil {
			class = &schedulingv1.PriorityClass{}
		}
		return class, err
	}
	class, err := store.Get[*schedulingv1.PriorityClass](snap, api.Key{Resource: priorityClasses, Name: name})
	if !errors.Is(err, apierr.ErrNotFound) {
		return class, err
	}
	class = &schedulingv1.PriorityClass{}
	class.Name = name
	switch name {
	case clusterCritical:
		class.Value = clusterCriticalValue
	case nodeCritical:
		class.Value = nodeCriticalValue
	default:
		return nil, apierr.Forbidden("pods", pod.Name, fmt.Errorf("no PriorityClass with name %s was found", name))
	}
	return class, nil
}

const priorityClasses = "priorityclasses.scheduling.k8s.io"

// defaultClass is the class that is marked as the default; of several, which only
// writes at one time can make, the lowest. Nil if there is none.
func defaultClass(snap *store.Snapshot) (found *schedulingv1.PriorityClass, err error) {
	for r := range snap.Scan(priorityClasses, "", api.Key{}) {
		class, err := store.Decode[*schedulingv1.PriorityClass](snap, r)
		if err != nil {
			return nil, err
		}
		if class.GlobalDefault && (found == nil || found.Value > class.Value) {
			found = class
		}
	}
	return found, nil
}

// oneDefault refuses a second default class.
func oneDefault(r *Request, class *schedulingv1.PriorityClass) error {
	if !class.GlobalDefault || r.Operation == Delete {
		return nil
	}
	there, err := defaultClass(r.Snapshot)
	if err != nil || there == nil || r.Operation == Update && there.Name == class.Name {
		return err
	}
	return apierr.Forbidden(priorityClasses, class.Name, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", there.Name))
}
