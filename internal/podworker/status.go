package podworker

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxMessages is what the termination messages of a pod have together.
const maxMessages = 12 << 10

// status is the pod's status as the node sees it: a pure function.
func status(pod *corev1.Pod, s *state, node []netip.Addr, now time.Time) *corev1.PodStatus {
	st := &corev1.PodStatus{
		QOSClass:           pod.Status.QOSClass,
		ObservedGeneration: pod.Generation,
		StartTime:          &metav1.Time{Time: s.startedAt.Truncate(time.Second)},
	}
	for _, a := range node {
		st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: a.String()})
	}
	if len(st.HostIPs) > 0 {
		st.HostIP = st.HostIPs[0].IP
	}
	switch {
	case s.address.IsValid():
		st.PodIP = s.address.String()
		st.PodIPs = []corev1.PodIP{{IP: st.PodIP}}
	case s.sandbox || s.torn || over(pod, s): // not attached yet by this noded, or no longer
		st.PodIP, st.PodIPs = pod.Status.PodIP, pod.Status.PodIPs
	}
	initialized := true
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := s.containers[spec.Name]
		st.InitContainerStatuses = append(st.InitContainerStatuses, containerStatus(pod, s, spec, c, now))
		initialized = initialized && (sidecar(spec) && started(spec, c) || !sidecar(spec) && c.done())
	}
	initialized = initialized || s.begun
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		st.ContainerStatuses = append(st.ContainerStatuses, containerStatus(pod, s, spec, s.containers[spec.Name], now))
	}
	for _, spec := range ephemeral(pod) {
		one := containerStatus(pod, s, spec, s.containers[spec.Name], now)
		one.Ready, one.Started, one.Resources = false, nil, nil
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses, one)
	}
	st.Phase = phase(pod, s, initialized)
	switch {
	case !final(st.Phase):
	case s.failed != nil:
		st.Reason, st.Message = s.failed.reason, s.failed.message
	case final(pod.Status.Phase):
		st.Reason, st.Message = pod.Status.Reason, pod.Status.Message
	}
	st.Conditions = conditions(pod, s, st, initialized, now)
	return st
}

// containerStatus is one container's.
func containerStatus(pod *corev1.Pod, s *state, spec *corev1.Container, c *container, now time.Time) corev1.ContainerStatus {
	st := corev1.ContainerStatus{Name: c.name, Image: spec.Image, RestartCount: int32(max(c.starts-1, 0))} //nolint:gosec // counts of restarts fit
	if img := first(c.current, c.last); img != nil {
		st.ImageID, st.ContainerID = img.imageID, containerID(pod, img)
		if img.image != "" {
			st.Image = img.image
		}
	}
	if c.last != nil {
		st.LastTerminationState.Terminated = terminated(pod, c.last)
	}
	switch {
	case c.current.running() && c.hooking:
		st.State.Waiting = waiting(c, pod)
	case c.current.running():
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: c.current.StartedAt.Truncate(time.Second)}}
	case c.current.ended():
		st.State.Terminated = terminated(pod, c.current)
		if w := pause(pod, s, spec, c, now); w != nil {
			st.LastTerminationState.Terminated, st.State.Terminated, st.State.Waiting = st.State.Terminated, nil, w
		}
	default:
		st.State.Waiting = waiting(c, pod)
	}
	if c.has != nil && c.current.running() {
		st.Resources, st.AllocatedResources = c.has.DeepCopy(), c.has.DeepCopy().Requests
	}
	begun := started(spec, c)
	st.Started = &begun
	st.Ready = begun && (spec.ReadinessProbe == nil || c.probeReady)
	if isInit(pod, c.name) && !sidecar(spec) {
		st.Ready = c.done()
	}
	return st
}

// pause says why a container that ended and is to be restarted is not yet, or
// nil.
func pause(pod *corev1.Pod, s *state, spec *corev1.Container, c *container, now time.Time) *corev1.ContainerStateWaiting {
	switch {
	case !again(pod, spec, c) || ending(pod, s) || over(pod, s):
		return nil
	case now.Before(c.again):
		return &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf(
			"back-off %s restarting failed container=%s pod=%s_%s(%s)", backOff(max(c.fails-1, 0)), c.name, pod.Name, pod.Namespace, pod.UID)}
	}
	if w := waiting(c, pod); c.config != nil || c.pullFail != nil {
		return w
	}
	return nil
}

func containerID(pod *corev1.Pod, r *run) string {
	if r.ID == "" {
		return ""
	}
	return idPrefix + string(pod.UID) + "/" + r.ID
}

// waiting says what a container waits for.
func waiting(c *container, pod *corev1.Pod) *corev1.ContainerStateWaiting {
	switch {
	case c.config != nil:
		return &corev1.ContainerStateWaiting{Reason: c.config.reason, Message: c.config.message}
	case c.pullFail != nil && c.pullFail.told:
		return &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: fmt.Sprintf(
			"Back-off pulling image %q: ErrImagePull: %s", imageOf(pod, c.name), c.pullFail.message)}
	case c.pullFail != nil:
		return &corev1.ContainerStateWaiting{Reason: c.pullFail.reason, Message: c.pullFail.message}
	case len(pod.Spec.InitContainers) > 0:
		return &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

func imageOf(pod *corev1.Pod, name string) string {
	for _, c := range everyContainer(pod) {
		if c.Name == name {
			return c.Image
		}
	}
	return ""
}

func terminated(pod *corev1.Pod, r *run) *corev1.ContainerStateTerminated {
	limit := maxMessages / max(len(pod.Spec.InitContainers)+len(pod.Spec.Containers), 1)
	return &corev1.ContainerStateTerminated{
		ExitCode: int32(r.ExitCode), Reason: r.reason, Message: cut(r.message, limit), //nolint:gosec // exit codes are 0-255
		StartedAt: metav1.Time{Time: r.StartedAt.Truncate(time.Second)}, FinishedAt: metav1.Time{Time: r.FinishedAt.Truncate(time.Second)},
		ContainerID: containerID(pod, r),
	}
}

// cut gives the beginning of a text, in whole characters.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}

// phase follows from the containers. A final phase stays, and none begins while
// anything runs.
func phase(pod *corev1.Pod, s *state, initialized bool) corev1.PodPhase {
	if final(pod.Status.Phase) {
		return pod.Status.Phase
	}
	dead := !s.anyRunning() && (ending(pod, s) || over(pod, s))
	never, bad := 0, 0
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		c := s.containers[spec.Name]
		switch {
		case c.current.ended() && c.current.ExitCode != 0 && (dead || !again(pod, spec, c)):
			bad++
		case c.current == nil && c.last == nil, c.hooking && c.last == nil:
			never++
		}
	}
	switch {
	case dead && (s.failed != nil || bad > 0 || never > 0 || initFailed(pod, s)):
		return corev1.PodFailed
	case dead:
		return corev1.PodSucceeded
	case !initialized || never > 0:
		return corev1.PodPending
	}
	return corev1.PodRunning
}

// conditions are those that the node writes.
func conditions(pod *corev1.Pod, s *state, st *corev1.PodStatus, initialized bool, now time.Time) []corev1.PodCondition {
	var unready, uninitialized []string
	for i := range st.InitContainerStatuses {
		c, spec := &st.InitContainerStatuses[i], &pod.Spec.InitContainers[i]
		if sidecar(spec) && !c.Ready {
			unready = append(unready, spec.Name)
		}
		if !c.Ready && !sidecar(spec) || sidecar(spec) && !*c.Started {
			uninitialized = append(uninitialized, spec.Name)
		}
	}
	for i := range st.ContainerStatuses {
		if !st.ContainerStatuses[i].Ready {
			unready = append(unready, pod.Spec.Containers[i].Name)
		}
	}
	ready := condition(corev1.ContainersReady, len(unready) == 0, "ContainersNotReady", "containers with unready status: ["+strings.Join(unready, " ")+"]")
	init := condition(corev1.PodInitialized, initialized, "ContainersNotInitialized", "containers with incomplete status: ["+strings.Join(uninitialized, " ")+"]")
	switch st.Phase {
	case corev1.PodFailed:
		ready = condition(corev1.ContainersReady, false, "PodFailed", "")
	case corev1.PodSucceeded:
		ready = condition(corev1.ContainersReady, false, "PodCompleted", "")
		init = corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, Reason: "PodCompleted"}
	}
	whole := ready
	whole.Type = corev1.PodReady
	if bad := gates(pod); ready.Status == corev1.ConditionTrue && len(bad) > 0 {
		whole = condition(corev1.PodReady, false, "ReadinessGatesNotReady", strings.Join(bad, ", "))
	}
	list := []corev1.PodCondition{condition(corev1.PodReadyToStartContainers, s.sandbox, "", ""), init, whole, ready}
	list = append(list, resizeConditions(pod, s)...)
	for i := range list {
		list[i].ObservedGeneration = pod.Generation
		list[i].LastTransitionTime = since(pod, s, list[i], now)
	}
	return list
}

// gates says what is wrong with the pod's readiness gates.
func gates(pod *corev1.Pod) []string {
	var bad []string
	for _, g := range pod.Spec.ReadinessGates {
		i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == g.ConditionType })
		switch {
		case i < 0:
			bad = append(bad, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case pod.Status.Conditions[i].Status != corev1.ConditionTrue:
			bad = append(bad, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, pod.Status.Conditions[i].Status))
		}
	}
	return bad
}

func condition(t corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
	if ok {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}

// since is when a condition took its status: as last reported, or as the API
// has it, or now.
func since(pod *corev1.Pod, s *state, c corev1.PodCondition, now time.Time) metav1.Time {
	for _, old := range slices.Concat(s.conditions, pod.Status.Conditions) {
		if old.Type == c.Type && old.Status == c.Status {
			return old.LastTransitionTime
		}
	}
	return metav1.Time{Time: now.Truncate(time.Second)}
}
