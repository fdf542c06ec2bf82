package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ContainerNames lists the names of the app containers.
func ContainerNames(s *corev1.PodSpec) string {
	return join(s, func(c *corev1.Container) string { return c.Name })
}

// Images lists the images of the app containers.
func Images(s *corev1.PodSpec) string {
	return join(s, func(c *corev1.Container) string { return c.Image })
}

func join(s *corev1.PodSpec, of func(*corev1.Container) string) string {
	out := make([]string, len(s.Containers))
	for i := range s.Containers {
		out[i] = of(&s.Containers[i])
	}
	return strings.Join(out, ",")
}
