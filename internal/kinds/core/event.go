package core

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// The longest texts of an event in the newer form, which names its reporter.
const (
	maxEventText = 128
	maxEventNote = 1024
)

// Event is the kind of events.
func Event() *api.Kind {
	doc := corev1.Event{}.SwaggerDoc()
	return &api.Kind{
		Version: "v1", Kind: "Event",
		Resource: "events", Singular: "event",
		CreateOnUpdate: true,
		ShortNames:     []string{"ev"},
		Namespaced:     true,
		Verbs:          allVerbs(),
		New:            func() api.Object { return &corev1.Event{} },
		Validate:       api.Check(validateEvent),
		Columns: append([]metav1.TableColumnDefinition{
			api.TextColumn("Last Seen", doc["lastTimestamp"]),
			api.TextColumn("Type", doc["type"]),
			api.TextColumn("Reason", doc["reason"]),
			api.TextColumn("Object", doc["involvedObject"]),
			wideText("Subobject", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
			wideText("Source", doc["source"]),
			api.TextColumn("Message", doc["message"]),
			wideText("First Seen", doc["firstTimestamp"]),
			wideText("Count", doc["count"]),
		}, metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: api.NameColumn().Description}),
		Cells:      api.Row(eventCells),
		FieldNames: eventFields(),
		Fields:     api.Of(eventValues),
	}
}

func wideText(name, description string) metav1.TableColumnDefinition {
	c := api.TextColumn(name, description)
	c.Priority = 1
	return c
}

func eventFields() []string {
	return []string{
		"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
		"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
		"reason", "reportingComponent", "source", "type",
	}
}

func eventValues(e *corev1.Event) map[string]string {
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	return map[string]string{
		"involvedObject.kind":            e.InvolvedObject.Kind,
		"involvedObject.namespace":       e.InvolvedObject.Namespace,
		"involvedObject.name":            e.InvolvedObject.Name,
		"involvedObject.uid":             string(e.InvolvedObject.UID),
		"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         source,
		"type":                           e.Type,
	}
}

func eventCells(e *corev1.Event, now time.Time) []any {
	first, last := e.FirstTimestamp, e.LastTimestamp
	if first.IsZero() {
		first = metav1.Time(e.EventTime)
	}
	count := int64(1)
	switch {
	case e.Series != nil:
		last, count = metav1.Time(e.Series.LastObservedTime), int64(e.Series.Count)
	case e.Count != 0:
		count = int64(e.Count)
	}
	seen := api.Age(first, now)
	if !last.IsZero() {
		seen = duration.HumanDuration(now.Sub(last.Time))
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	component, host := e.Source.Component, e.Source.Host
	if component == "" {
		component = e.ReportingController
	}
	if host == "" {
		host = e.ReportingInstance
	}
	source := []string{component}
	if host != "" {
		source = append(source, host)
	}
	return []any{
		seen, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, strings.Join(source, ", "),
		strings.TrimSpace(e.Message), api.Age(first, now), count, e.Name,
	}
}

// validateEvent checks the namespace, and of events in the newer form, which
// have an eventTime, all that makes them readable.
func validateEvent(e *corev1.Event) field.ErrorList {
	errs := validateEventNamespace(e)
	if e.EventTime.IsZero() {
		return errs
	}
	if e.ReportingController == "" {
		errs = append(errs, field.Required(field.NewPath("reportingController"), ""))
	}
	for _, msg := range utilvalidation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(field.NewPath("reportingController"), e.ReportingController, msg))
	}
	for _, f := range []struct{ name, text string }{
		{"reportingInstance", e.ReportingInstance}, {"action", e.Action}, {"reason", e.Reason},
	} {
		if f.text == "" {
			errs = append(errs, field.Required(field.NewPath(f.name), ""))
		}
		if len(f.text) > maxEventText {
			errs = append(errs, field.Invalid(field.NewPath(f.name), "", fmt.Sprintf("can have at most %d characters", maxEventText)))
		}
	}
	if len(e.Message) > maxEventNote {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %d characters", maxEventNote)))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), e.Type, `has invalid value: must be "Normal" or "Warning"`))
	}
	if e.Series != nil {
		if e.Series.Count < 2 {
			errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
		}
		if e.Series.LastObservedTime.IsZero() {
			errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
		}
	}
	return errs
}

// validateEventNamespace demands that an event lies where its object does; of
// an object without namespace, in default.
func validateEventNamespace(e *corev1.Event) field.ErrorList {
	path, at := field.NewPath("involvedObject", "namespace"), e.InvolvedObject.Namespace
	if at == "" && (e.Namespace == metav1.NamespaceDefault || (e.Namespace == metav1.NamespaceSystem && !e.EventTime.IsZero())) {
		return nil
	}
	if at != e.Namespace {
		return field.ErrorList{field.Invalid(path, at, "does not match event.namespace")}
	}
	return nil
}
