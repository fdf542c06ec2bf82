package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Requests is what a pod takes of a node: the larger of what runs at once
// (containers and sidecars) and of each init container with the sidecars that
// were started before it, replaced by pod-level requests where those are given,
// and the overhead.
func Requests(s *corev1.PodSpec) corev1.ResourceList {
	total := effective(s, func(r *corev1.ResourceRequirements) corev1.ResourceList { return r.Requests })
	if s.Resources != nil {
		for name, q := range s.Resources.Requests {
			if podLevelResource(name) {
				total[name] = q.DeepCopy()
			}
		}
	}
	add(total, s.Overhead)
	return total
}

// Limits is what a pod may take, by the same rule as Requests; overhead is
// added to resources that have a limit.
func Limits(s *corev1.PodSpec) corev1.ResourceList {
	total := effective(s, func(r *corev1.ResourceRequirements) corev1.ResourceList { return r.Limits })
	if s.Resources != nil {
		for name, q := range s.Resources.Limits {
			if podLevelResource(name) {
				total[name] = q.DeepCopy()
			}
		}
	}
	for name, q := range s.Overhead {
		if have, ok := total[name]; ok {
			have.Add(q)
			total[name] = have
		}
	}
	return total
}

func effective(s *corev1.PodSpec, of func(*corev1.ResourceRequirements) corev1.ResourceList) corev1.ResourceList {
	total, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range s.Containers {
		add(total, of(&s.Containers[i].Resources))
	}
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		if Sidecar(c) {
			add(total, of(&c.Resources))
			add(sidecars, of(&c.Resources))
			raise(peak, sidecars)
			continue
		}
		one := sidecars.DeepCopy()
		add(one, of(&c.Resources))
		raise(peak, one)
	}
	raise(total, peak)
	return total
}

// Sidecar reports whether an init container keeps running beside the others.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func add(to, more corev1.ResourceList) {
	for name, q := range more {
		have, ok := to[name]
		if !ok {
			to[name] = q.DeepCopy()
			continue
		}
		have.Add(q)
		to[name] = have
	}
}

func raise(to, least corev1.ResourceList) {
	for name, q := range least {
		if have, ok := to[name]; !ok || have.Cmp(q) < 0 {
			to[name] = q.DeepCopy()
		}
	}
}

// QOS is the pod's quality of service: Guaranteed if every container has limits
// of cpu and memory that equal its requests, BestEffort if none has any,
// otherwise Burstable. Pod-level resources speak for the whole pod.
func QOS(s *corev1.PodSpec) corev1.PodQOSClass {
	var all []*corev1.ResourceRequirements
	if s.Resources != nil && len(s.Resources.Requests)+len(s.Resources.Limits) > 0 {
		all = append(all, s.Resources)
	} else {
		for i := range s.InitContainers {
			all = append(all, &s.InitContainers[i].Resources)
		}
		for i := range s.Containers {
			all = append(all, &s.Containers[i].Resources)
		}
	}
	guaranteed, best := len(all) > 0, true
	for _, r := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := r.Limits[name], r.Requests[name]
			if !limit.IsZero() || !request.IsZero() {
				best = false
			}
			if limit.IsZero() || !sameOrUnset(r.Requests, name, limit) {
				guaranteed = false
			}
		}
	}
	switch {
	case best:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// sameOrUnset reports whether a request is its limit; an unset one will be.
func sameOrUnset(requests corev1.ResourceList, name corev1.ResourceName, limit resource.Quantity) bool {
	q, ok := requests[name]
	return !ok || q.Cmp(limit) == 0
}
