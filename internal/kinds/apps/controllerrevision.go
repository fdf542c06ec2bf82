package apps

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// ControllerRevision is the kind of former states of daemon sets and stateful
// sets.
func ControllerRevision() *api.Kind {
	return &api.Kind{
		Group: "apps", Version: "v1", Kind: "ControllerRevision",
		Resource: "controllerrevisions", Singular: "controllerrevision",
		Namespaced: true,
		Verbs:      allVerbs(),
		New:        func() api.Object { return &appsv1.ControllerRevision{} },
		Validate:   api.Check(validateRevision),
		ValidateUpdate: api.CheckPair(func(r, old *appsv1.ControllerRevision) field.ErrorList {
			return validation.ValidateImmutableField(r.Data, old.Data, field.NewPath("data"))
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Controller", "Of whom this is a former state."),
			api.NumberColumn("Revision", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(r *appsv1.ControllerRevision, now time.Time) []any {
			return []any{r.Name, controllerOf(r), r.Revision, api.Age(r.CreationTimestamp, now)}
		}),
	}
}

func controllerOf(obj metav1.Object) string {
	ref := metav1.GetControllerOf(obj)
	if ref == nil {
		return api.CellNone
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return ref.Name
	}
	return strings.ToLower(gv.WithKind(ref.Kind).GroupKind().String()) + "/" + ref.Name
}

func validateRevision(r *appsv1.ControllerRevision) field.ErrorList {
	var errs field.ErrorList
	data := field.NewPath("data")
	switch raw := bytes.TrimSpace(r.Data.Raw); {
	case len(raw) == 0 && r.Data.Object == nil:
		errs = append(errs, field.Required(data, "data is mandatory"))
	case len(raw) > 0 && !json.Valid(raw):
		errs = append(errs, field.Invalid(data, "<value omitted>", "must be valid JSON"))
	}
	return append(errs, notNegative(nil, named{"revision", r.Revision})...)
}
