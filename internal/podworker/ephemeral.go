package podworker

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/runtime"
)

// Ephemeral containers are added to a pod that runs, for somebody who looks
// into it. They start whatever the others do, run once, and count neither for
// the pod's phase nor for its readiness.

// ephemeral gives the ephemeral containers of a pod as containers.
func ephemeral(pod *corev1.Pod) []*corev1.Container {
	var out []*corev1.Container
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		out = append(out, &c)
	}
	return out
}

// everyContainer are all containers of a pod, the ephemeral ones last.
func everyContainer(pod *corev1.Pod) []*corev1.Container {
	return append(allContainers(pod), ephemeral(pod)...)
}

// isEphemeral reports whether a container is an ephemeral one.
func isEphemeral(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}

// join makes an ephemeral container share the process namespace of its target.
func (w *Worker) join(spec *corev1.Container, cfg *runtime.ContainerConfig) error {
	for i := range w.pod.Spec.EphemeralContainers {
		e := &w.pod.Spec.EphemeralContainers[i]
		if e.Name != spec.Name || e.TargetContainerName == "" {
			continue
		}
		c := w.state.containers[e.TargetContainerName]
		if c == nil || !c.current.running() {
			return fmt.Errorf("unable to find target container %q", e.TargetContainerName)
		}
		cfg.PIDOf = c.current.ID
	}
	return nil
}
