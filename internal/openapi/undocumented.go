package openapi

import (
	"reflect"

	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// otherDocs describes types that do not say themselves what their fields are.
func otherDocs(t reflect.Type) map[string]string {
	const usage = "What was used: processor time per second over the window, and at its end the memory that cannot be dropped."
	times := map[string]string{
		"metadata":  "Standard object's metadata.",
		"timestamp": "The end of the window over which was measured.",
		"window":    "How long was measured, up to timestamp.",
	}
	switch t {
	case reflect.TypeFor[metricsv1beta1.NodeMetrics]():
		times[""], times["usage"] = "NodeMetrics says what a node uses.", usage
		return times
	case reflect.TypeFor[metricsv1beta1.PodMetrics]():
		times[""], times["containers"] = "PodMetrics says what the containers of a pod use.", "What the running containers use, over the same window."
		return times
	case reflect.TypeFor[metricsv1beta1.ContainerMetrics]():
		return map[string]string{
			"":     "ContainerMetrics says what one container uses.",
			"name": "The container's name in the pod.", "usage": usage,
		}
	}
	return nil
}
