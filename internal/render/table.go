package render

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
)

// columns are a kind's own, or those of a kind that has none.
func columns(k *api.Kind) []metav1.TableColumnDefinition {
	if len(k.Columns) > 0 {
		return k.Columns
	}
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	}
}

// scaleColumns are those of /scale.
func scaleColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		{Name: "Desired", Type: "integer", Description: "Number of desired replicas."},
		{Name: "Available", Type: "integer", Description: "Number of replicas that are there."},
		{Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	}
}

// row makes the row of an object; rec is its record, if it has one.
func (r *Renderer) row(f Form, k *api.Kind, obj api.Object, rec *api.Record) (metav1.TableRow, error) {
	var out metav1.TableRow
	if k.Cells != nil {
		out.Cells, out.Conditions = k.Cells(obj, r.now())
	} else {
		out.Cells = []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}
	}
	switch f.Include {
	case string(metav1.IncludeNone):
	case string(metav1.IncludeObject):
		out.Object = runtime.RawExtension{Object: obj}
	default:
		p, err := r.valuePartial(f, api.Value{Record: rec, Object: obj})
		if err != nil {
			return out, err
		}
		out.Object = runtime.RawExtension{Object: p}
	}
	return out, nil
}

// table makes a table without rows.
func (f Form) table(columns []metav1.TableColumnDefinition, revision string) *metav1.Table {
	t := &metav1.Table{TypeMeta: f.meta(Table), ColumnDefinitions: columns, Rows: []metav1.TableRow{}}
	t.ResourceVersion = revision
	if f.NoHeaders {
		t.ColumnDefinitions = nil
	}
	return t
}

// valueTable makes the table of one object.
func (r *Renderer) valueTable(f Form, k *api.Kind, v api.Value) (*metav1.Table, error) {
	obj, err := r.objectOf(v)
	if err != nil {
		return nil, err
	}
	if t, ok := scaleTable(f, obj, r.now()); ok {
		return t, nil
	}
	object, ok := obj.(api.Object)
	if !ok {
		return statusTable(f, obj), nil
	}
	row, err := r.row(f, k, object, v.Record)
	if err != nil {
		return nil, err
	}
	t := f.table(columns(k), object.GetResourceVersion())
	t.Rows = append(t.Rows, row)
	return t, nil
}

// listTable makes the table of a page.
func (r *Renderer) listTable(f Form, p *api.Page) (*metav1.Table, error) {
	t := f.table(columns(p.Kind), revisionOf(p))
	t.Continue, t.RemainingItemCount = p.Continue, p.Remaining
	for _, rec := range p.Records {
		obj, err := r.decode(rec)
		if err != nil {
			return nil, err
		}
		row, err := r.row(f, p.Kind, obj, rec)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
}
