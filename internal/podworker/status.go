package podworker

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// status is the pod's status as the node sees it.
func status(pod *corev1.Pod, s *state, node *Node, now time.Time) *corev1.PodStatus {
	st := &corev1.PodStatus{
		QOSClass:           pod.Status.QOSClass,
		ObservedGeneration: pod.Generation,
		StartTime:          &metav1.Time{Time: s.startedAt.Truncate(time.Second)},
	}
	for _, a := range node.Addresses {
		st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: a.String()})
	}
	if len(st.HostIPs) > 0 {
		st.HostIP = st.HostIPs[0].IP
	}
	if s.address.IsValid() {
		st.PodIP = s.address.String()
		st.PodIPs = []corev1.PodIP{{IP: st.PodIP}}
	} else if over(pod, s) || s.torn {
		st.PodIP, st.PodIPs = pod.Status.PodIP, pod.Status.PodIPs
	}
	initialized := true
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := s.containers[spec.Name]
		done := !sidecar(spec) && c.current.ended() && c.current.ExitCode == 0 || sidecar(spec) && started(spec, c)
		st.InitContainerStatuses = append(st.InitContainerStatuses, containerStatus(pod, s, spec, c, initialized, now))
		initialized = initialized && done
	}
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		st.ContainerStatuses = append(st.ContainerStatuses, containerStatus(pod, s, spec, s.containers[spec.Name], initialized, now))
	}
	st.Phase = phase(pod, s, initialized)
	if s.failed != nil {
		st.Reason, st.Message = s.failed.reason, s.failed.message
	}
	st.Conditions = conditions(pod, s, st, initialized, now)
	return st
}

// containerStatus is one container's. Reached says that its turn has come.
func containerStatus(pod *corev1.Pod, s *state, spec *corev1.Container, c *container, reached bool, now time.Time) corev1.ContainerStatus {
	st := corev1.ContainerStatus{Name: c.name, Image: spec.Image, RestartCount: int32(max(c.starts-1, 0))} //nolint:gosec // counts of restarts fit
	if c.current == nil && c.last == nil {
		st.RestartCount = int32(c.starts) //nolint:gosec // as above
	}
	if img := first(c.current, c.last); img != nil {
		st.ImageID = img.imageID
		if img.image != "" {
			st.Image = img.image
		}
	}
	if c.last != nil {
		st.LastTerminationState.Terminated = terminated(pod, c.last)
	}
	switch {
	case c.current.running():
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: c.current.StartedAt.Truncate(time.Second)}}
		st.ContainerID = containerID(pod, c.current)
	case c.current.ended() && (!again(pod, spec, c) || ending(pod, s)):
		st.State.Terminated = terminated(pod, c.current)
		st.ContainerID = containerID(pod, c.current)
	case c.current.ended():
		// A restart is due: what ended is the last state, and the wait shows.
		if now.Before(c.again) {
			st.LastTerminationState.Terminated = terminated(pod, c.current)
			st.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf(
				"back-off %s restarting failed container=%s pod=%s_%s(%s)", backOff(max(c.fails-1, 0)), c.name, pod.Name, pod.Namespace, pod.UID)}
		} else if w := waiting(c, s, pod, reached); w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			st.LastTerminationState.Terminated = terminated(pod, c.current)
			st.State.Waiting = w
		} else {
			st.State.Terminated = terminated(pod, c.current)
		}
		st.ContainerID = containerID(pod, c.current)
	default:
		st.State.Waiting = waiting(c, s, pod, reached)
	}
	begun := started(spec, c)
	st.Started = &begun
	st.Ready = c.current.running() && begun && (spec.ReadinessProbe == nil || c.probeReady)
	if isInit(pod, c.name) && !sidecar(spec) {
		st.Ready = c.current.ended() && c.current.ExitCode == 0
	}
	return st
}

func ending(pod *corev1.Pod, s *state) bool {
	return s.orphan || pod.DeletionTimestamp != nil || s.failed != nil
}

func containerID(pod *corev1.Pod, r *run) string {
	if r.ID == "" {
		return ""
	}
	return "wherry://" + string(pod.UID) + "/" + r.ID
}

// waiting says what a container waits for.
func waiting(c *container, s *state, pod *corev1.Pod, reached bool) *corev1.ContainerStateWaiting {
	switch {
	case !reached:
		return &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	case c.config != nil:
		return &corev1.ContainerStateWaiting{Reason: c.config.reason, Message: c.config.message}
	case c.pullFail != nil && c.pullFail.times > 1 && c.pullFail.reason == "ErrImagePull":
		return &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", imageOf(pod, c.name), c.pullFail.message)}
	case c.pullFail != nil:
		return &corev1.ContainerStateWaiting{Reason: c.pullFail.reason, Message: c.pullFail.message}
	}
	return &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

func imageOf(pod *corev1.Pod, name string) string {
	for _, c := range allContainers(pod) {
		if c.Name == name {
			return c.Image
		}
	}
	return ""
}

func terminated(pod *corev1.Pod, r *run) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode: int32(r.ExitCode), Signal: 0, Reason: r.reason, Message: r.message, //nolint:gosec // exit codes are 0-255
		StartedAt: metav1.Time{Time: r.StartedAt.Truncate(time.Second)}, FinishedAt: metav1.Time{Time: r.FinishedAt.Truncate(time.Second)},
		ContainerID: containerID(pod, r),
	}
}

// phase follows from the containers. A final phase stays.
func phase(pod *corev1.Pod, s *state, initialized bool) corev1.PodPhase {
	if p := pod.Status.Phase; p == corev1.PodSucceeded || p == corev1.PodFailed {
		return p
	}
	if s.failed != nil {
		return corev1.PodFailed
	}
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := s.containers[spec.Name]
		if !sidecar(spec) && c.current.ended() && c.current.ExitCode != 0 && !again(pod, spec, c) {
			return corev1.PodFailed
		}
	}
	if !initialized {
		if ending(pod, s) && s.torn {
			return corev1.PodFailed
		}
		return corev1.PodPending
	}
	never, running, good, bad := 0, 0, 0, 0
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		c := s.containers[spec.Name]
		switch {
		case c.current.running():
			running++
		case c.current == nil && c.last == nil:
			never++
		case c.current.ended() && (!again(pod, spec, c) || ending(pod, s)):
			if c.current.ExitCode == 0 {
				good++
			} else {
				bad++
			}
		default: // a restart is due
			running++
		}
	}
	switch {
	case running == 0 && never == 0 && bad == 0, ending(pod, s) && s.torn && bad == 0 && never == 0:
		return corev1.PodSucceeded
	case running == 0 && never == 0, ending(pod, s) && s.torn:
		return corev1.PodFailed
	case never > 0:
		return corev1.PodPending
	}
	return corev1.PodRunning
}

// conditions are those that the node writes.
func conditions(pod *corev1.Pod, s *state, st *corev1.PodStatus, initialized bool, now time.Time) []corev1.PodCondition {
	var unready, uninitialized []string
	for i, c := range st.ContainerStatuses {
		if !c.Ready {
			unready = append(unready, pod.Spec.Containers[i].Name)
		}
	}
	for i, c := range st.InitContainerStatuses {
		spec := &pod.Spec.InitContainers[i]
		if sidecar(spec) && !c.Ready {
			unready = append(unready, spec.Name)
		}
		if !c.Ready && !sidecar(spec) || sidecar(spec) && !*c.Started {
			uninitialized = append(uninitialized, spec.Name)
		}
	}
	over := st.Phase == corev1.PodSucceeded || st.Phase == corev1.PodFailed
	ready := condition(corev1.ContainersReady, len(unready) == 0, "ContainersNotReady", "containers with unready status: ["+strings.Join(unready, " ")+"]")
	init := condition(corev1.PodInitialized, initialized, "ContainersNotInitialized", "containers with incomplete status: ["+strings.Join(uninitialized, " ")+"]")
	if over {
		reason := "PodCompleted"
		if st.Phase == corev1.PodFailed {
			reason = "PodFailed"
		}
		ready = condition(corev1.ContainersReady, false, reason, "")
		if st.Phase == corev1.PodSucceeded {
			init = condition(corev1.PodInitialized, true, "", "")
			init.Reason = reason
		}
	}
	whole := ready
	whole.Type = corev1.PodReady
	if ready.Status == corev1.ConditionTrue {
		for _, g := range pod.Spec.ReadinessGates {
			if !has(pod, g.ConditionType) {
				whole = condition(corev1.PodReady, false, "ReadinessGatesNotReady", fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but False", g.ConditionType))
				break
			}
		}
	}
	list := []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, s.sandbox, "", ""), init, whole, ready,
	}
	for i := range list {
		list[i].ObservedGeneration = pod.Generation
		list[i].LastTransitionTime = since(pod, list[i], now)
	}
	return list
}

func has(pod *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func condition(t corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
	if ok {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}

// since is when a condition took its status: as the API has it, or the start of
// what made it so.
func since(pod *corev1.Pod, c corev1.PodCondition, now time.Time) metav1.Time {
	for _, old := range pod.Status.Conditions {
		if old.Type == c.Type && old.Status == c.Status {
			return old.LastTransitionTime
		}
	}
	return metav1.Time{Time: now.Truncate(time.Second)}
}
