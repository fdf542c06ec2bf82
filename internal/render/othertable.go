package render

import (
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
)

// scaleTable makes the table of a Scale, if obj is one.
func scaleTable(f Form, obj runtime.Object, now time.Time) (*metav1.Table, bool) {
	s, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return nil, false
	}
	age := "<unknown>"
	if !s.CreationTimestamp.IsZero() {
		age = duration.HumanDuration(now.Sub(s.CreationTimestamp.Time))
	}
	t := f.table(scaleColumns(), s.ResourceVersion)
	row := metav1.TableRow{Cells: []any{s.Name, s.Spec.Replicas, s.Status.Replicas, age}}
	switch f.Include {
	case string(metav1.IncludeNone):
	case string(metav1.IncludeObject):
		row.Object.Object = s
	default:
		row.Object.Object = &metav1.PartialObjectMetadata{TypeMeta: f.meta(Partial), ObjectMeta: s.ObjectMeta}
	}
	t.Rows = append(t.Rows, row)
	return t, true
}

// statusTable makes the table of a Status, or an empty one.
func statusTable(f Form, obj runtime.Object) *metav1.Table {
	t := f.table([]metav1.TableColumnDefinition{
		{Name: "Status", Type: "string"}, {Name: "Reason", Type: "string"}, {Name: "Message", Type: "string"},
	}, "")
	if s, ok := obj.(*metav1.Status); ok {
		t.Rows = append(t.Rows, metav1.TableRow{Cells: []any{s.Status, string(s.Reason), s.Message}})
	}
	return t
}
