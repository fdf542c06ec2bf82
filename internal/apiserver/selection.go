package apiserver

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// matcher is a checked selection.
type matcher struct {
	labels labels.Selector
	fields fields.Selector
	// name and namespace are the target's, if it has them.
	name, namespace string
}

// selection checks that the kind knows the fields.
func selection(k *api.Kind, t api.Target, sel api.Selection) (matcher, error) {
	m := matcher{labels: sel.Labels, fields: sel.Fields, name: t.Name, namespace: t.Namespace}
	if m.fields == nil {
		return m, nil
	}
	for _, r := range m.fields.Requirements() {
		if !knownField(k, r.Field) {
			if len(k.FieldNames) > 0 {
				return m, apierr.BadRequest("field label not supported: %s", r.Field)
			}
			return m, apierr.BadRequest("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", r.Field)
		}
	}
	var err error
	m.fields, err = storedSelection(k, m.fields)
	return m, err
}

func knownField(k *api.Kind, name string) bool {
	if name == "metadata.name" || name == "metadata.namespace" {
		return true
	}
	for _, f := range k.FieldNames {
		if f == name {
			return true
		}
	}
	return false
}

func (m matcher) everything() bool {
	return m.name == "" && (m.labels == nil || m.labels.Empty()) && (m.fields == nil || m.fields.Empty())
}

// exactName gives the name that an object must have, if there is one.
func (m matcher) exactName() (string, bool) {
	if m.name != "" {
		return m.name, true
	}
	name, ok := m.exact("metadata.name")
	return name, ok && name != ""
}

// exact gives the value a field must have, if it must have one.
func (m matcher) exact(name string) (string, bool) {
	if m.fields == nil {
		return "", false
	}
	return m.fields.RequiresExactMatch(name)
}

func (m matcher) matches(r *api.Record) bool {
	return (m.name == "" || r.Name == m.name) && (m.namespace == "" || r.Namespace == m.namespace) &&
		(m.labels == nil || m.labels.Matches(labels.Set(r.Index.Labels))) &&
		(m.fields == nil || m.fields.Matches(recordFields{r}))
}

// recordFields lets a field selector read a record.
type recordFields struct{ r *api.Record }

// Has implements fields.Fields.
func (f recordFields) Has(name string) bool {
	_, ok := f.r.Index.Fields[name]
	return ok || name == "metadata.name" || name == "metadata.namespace"
}

// Get implements fields.Fields.
func (f recordFields) Get(name string) string {
	switch name {
	case "metadata.name":
		return f.r.Name
	case "metadata.namespace":
		return f.r.Namespace
	}
	return f.r.Index.Fields[name]
}
