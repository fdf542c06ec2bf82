// Package metrics holds the kinds that say what nodes and pods use. They are
// not stored: the nodes are asked.
package metrics

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/wherry-project/wherry/internal/api"
)

// NodeMetrics is the kind of what nodes use.
func NodeMetrics() *api.Kind {
	return &api.Kind{
		Group: metricsv1beta1.GroupName, Version: "v1beta1", Kind: "NodeMetrics", Resource: "nodes",
		Verbs: []string{"get", "list"}, Virtual: true,
		New:     func() api.Object { return &metricsv1beta1.NodeMetrics{} },
		Columns: columns(),
		Cells: api.Row(func(m *metricsv1beta1.NodeMetrics, _ time.Time) []any {
			return []any{m.Name, amount(m.Usage, corev1.ResourceCPU), amount(m.Usage, corev1.ResourceMemory), m.Window.Duration.String()}
		}),
	}
}

// PodMetrics is the kind of what pods use.
func PodMetrics() *api.Kind {
	return &api.Kind{
		Group: metricsv1beta1.GroupName, Version: "v1beta1", Kind: "PodMetrics", Resource: "pods",
		Namespaced: true, Verbs: []string{"get", "list"}, Virtual: true,
		New:     func() api.Object { return &metricsv1beta1.PodMetrics{} },
		Columns: columns(),
		Cells: api.Row(func(m *metricsv1beta1.PodMetrics, _ time.Time) []any {
			sum := corev1.ResourceList{}
			for _, c := range m.Containers {
				for name, q := range c.Usage {
					total := sum[name]
					total.Add(q)
					sum[name] = total
				}
			}
			return []any{m.Name, amount(sum, corev1.ResourceCPU), amount(sum, corev1.ResourceMemory), m.Window.Duration.String()}
		}),
	}
}

func columns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.TextColumn("cpu", "Processor time used per second, averaged over the window."),
		api.TextColumn("memory", "Memory that cannot be dropped, at the end of the window."),
		api.TextColumn("Window", "How long was measured."),
	}
}

func amount(list corev1.ResourceList, name corev1.ResourceName) string {
	q := list[name]
	return q.String()
}
