package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// ComponentStatus is the kind that says how the parts of the control plane are.
// It is not stored.
func ComponentStatus() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "ComponentStatus",
		Resource: "componentstatuses", Singular: "componentstatus",
		Deprecated: "v1 ComponentStatus is deprecated in v1.19+",
		ShortNames: []string{"cs"},
		Virtual:    true,
		Verbs:      []string{"get", "list"},
		New:        func() api.Object { return &corev1.ComponentStatus{} },
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Status", "Whether the part is healthy."),
			api.TextColumn("Message", "What the part said of itself."),
			api.TextColumn("Error", "Why nothing was heard of it."),
		},
		Cells: api.Row(func(c *corev1.ComponentStatus, _ time.Time) []any {
			status, message, failed := "Unknown", "", ""
			for _, cond := range c.Conditions {
				if cond.Type != corev1.ComponentHealthy {
					continue
				}
				if status = "Unhealthy"; cond.Status == corev1.ConditionTrue {
					status = "Healthy"
				}
				message, failed = cond.Message, cond.Error
				break
			}
			return []any{c.Name, status, message, failed}
		}),
	}
}
