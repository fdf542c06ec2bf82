package api

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// CellUnknown and CellNone are what tables print where there is nothing to say.
const (
	CellUnknown = "<unknown>"
	CellNone    = "<none>"
)

// NameColumn is the first column of nearly every table.
func NameColumn() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metaDoc("name")}
}

// AgeColumn is the column whose cells [Age] makes.
func AgeColumn() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Age", Type: "string", Description: metaDoc("creationTimestamp")}
}

func metaDoc(name string) string { return metav1.ObjectMeta{}.SwaggerDoc()[name] }

// TextColumn is a column of text.
func TextColumn(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

// NumberColumn is a column of whole numbers.
func NumberColumn(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

// Wide makes columns ones that only -o wide shows.
func Wide(columns ...metav1.TableColumnDefinition) []metav1.TableColumnDefinition {
	for i := range columns {
		columns[i].Priority = 1
	}
	return columns
}

// Age is the time since t as kubectl prints it, such as 5m10s or 3d.
func Age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return CellUnknown
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

// Row makes Cells out of a function that only gives the cells.
func Row[T Object](f func(obj T, now time.Time) []any) func(Object, time.Time) ([]any, []metav1.TableRowCondition) {
	return func(obj Object, now time.Time) ([]any, []metav1.TableRowCondition) { return f(obj.(T), now), nil }
}
