package podworker

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/runtime"
)

const (
	firstResize = time.Second
	// lastResize is the longest pause before a resize is tried again, be it
	// that it failed or that the node has no room for it.
	lastResize = 30 * time.Second
)

// asked are cpu and memory of a container's resources, which may change while
// it runs.
func asked(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	pick := func(l corev1.ResourceList) corev1.ResourceList {
		out := corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			if q, ok := l[name]; ok {
				out[name] = q
			}
		}
		return out
	}
	return corev1.ResourceRequirements{Requests: pick(r.Requests), Limits: pick(r.Limits)}
}

// resized reports whether a running container has other resources than its spec
// asks for.
func resized(spec *corev1.Container, c *container) bool {
	return c.current.running() && c.has != nil && !equality.Semantic.DeepEqual(asked(spec.Resources), asked(*c.has))
}

// restartsFor reports whether the container is to be restarted for the
// resources that its spec asks for.
func restartsFor(spec *corev1.Container, has corev1.ResourceRequirements) bool {
	for _, p := range spec.ResizePolicy {
		if p.RestartPolicy != corev1.RestartContainer {
			continue
		}
		is, was := spec.Resources.Requests[p.ResourceName], has.Requests[p.ResourceName]
		if !is.Equal(was) {
			return true
		}
		is, was = spec.Resources.Limits[p.ResourceName], has.Limits[p.ResourceName]
		if !is.Equal(was) {
			return true
		}
	}
	return false
}

// resizeStep is the next step of a running container's resize, if one is due.
func resizeStep(spec *corev1.Container, c *container, s *state, now time.Time) (step, bool) {
	if !resized(spec, c) || c.stopping != nil {
		return step{}, false
	}
	if s.resize != nil && now.Before(s.resize.again) {
		return step{kind: waitFor, delay: s.resize.again.Sub(now)}, true
	}
	return step{kind: resize, container: c.name}, true
}

// resize gives a running container the resources that its spec asks for.
func (w *Worker) resize(ctx context.Context, c *container) error {
	spec := w.spec(c.name)
	if w.node.Fits != nil {
		if reason, message := w.node.Fits(w.pod); reason != "" {
			w.state.resize = worse(w.state.resize, reason, message, firstResize, lastResize)
			return nil
		}
	}
	if restartsFor(spec, *c.has) {
		w.state.resize = nil
		c.kill = &kill{message: fmt.Sprintf("Container %s resize requires restart", c.name)}
		return nil
	}
	pod, whole, part := string(w.pod.UID), podLimits(w.pod), limits(spec.Resources)
	// The pod's limits make room first and are drawn in last. Where one grows
	// and another shrinks, the larger of both stands meanwhile.
	first, old := whole, limitsOf(w.pod, &w.state)
	if old.Memory > first.Memory && first.Memory > 0 {
		first.Memory = 0
	}
	if old.CPUQuota > first.CPUQuota && first.CPUQuota > 0 {
		first.CPUQuota, first.CPUPeriod = 0, 0
	}
	err := w.node.Runtime.UpdateSandbox(ctx, pod, first)
	if err == nil {
		err = w.node.Runtime.UpdateContainer(ctx, pod, c.current.ID, part)
	}
	if err == nil && (first.Memory != whole.Memory || first.CPUQuota != whole.CPUQuota) {
		err = w.node.Runtime.UpdateSandbox(ctx, pod, whole)
	}
	if err != nil {
		w.state.resize = worse(w.state.resize, corev1.PodReasonError, fmt.Sprintf("resize container %s: %v", c.name, err), firstResize, lastResize)
		w.event(corev1.EventTypeWarning, "ResizeError", w.state.resize.message)
		return err
	}
	w.state.resize = nil
	has := *spec.Resources.DeepCopy()
	c.has = &has
	w.event(corev1.EventTypeNormal, "ResizeCompleted", "Resized container "+c.name)
	return nil
}

// resizeConditions say what of a resize is not done yet.
func resizeConditions(pod *corev1.Pod, s *state) []corev1.PodCondition {
	due := false
	for _, spec := range allContainers(pod) {
		due = due || resized(spec, s.containers[spec.Name])
	}
	switch {
	case !due:
		return nil
	case s.resize != nil && s.resize.reason != corev1.PodReasonError:
		return []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: s.resize.reason, Message: s.resize.message}}
	case s.resize != nil:
		return []corev1.PodCondition{{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, Reason: s.resize.reason, Message: s.resize.message}}
	}
	return []corev1.PodCondition{{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}}
}

// limitsOf are the limits of the whole pod as its containers are now.
func limitsOf(pod *corev1.Pod, s *state) runtime.Resources {
	now := pod.DeepCopy()
	for _, spec := range allContainers(now) {
		if c := s.containers[spec.Name]; c != nil && c.has != nil {
			spec.Resources = *c.has
		}
	}
	return podLimits(now)
}
