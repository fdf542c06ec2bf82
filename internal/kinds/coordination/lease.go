package coordination

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// Lease is the kind of leases.
func Lease() *api.Kind {
	return &api.Kind{
		Group: "coordination.k8s.io", Version: "v1", Kind: "Lease",
		Resource: "leases", Singular: "lease",
		CreateOnUpdate: true,
		Namespaced:     true,
		Verbs:          []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:            func() api.Object { return &coordinationv1.Lease{} },
		Validate:       api.Check(validateLease),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Holder", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(l *coordinationv1.Lease, now time.Time) []any {
			holder := ""
			if l.Spec.HolderIdentity != nil {
				holder = *l.Spec.HolderIdentity
			}
			return []any{l.Name, holder, api.Age(l.CreationTimestamp, now)}
		}),
		NeedsRevision: true,
	}
}

func validateLease(l *coordinationv1.Lease) field.ErrorList {
	var errs field.ErrorList
	s, path := &l.Spec, field.NewPath("spec")
	if d := s.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := s.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	strategic := s.Strategy != nil && *s.Strategy != ""
	switch {
	case strategic && *s.Strategy != coordinationv1.OldestEmulationVersion:
		errs = append(errs, field.NotSupported(path.Child("strategy"), *s.Strategy, []coordinationv1.CoordinatedLeaseStrategy{coordinationv1.OldestEmulationVersion}))
	case s.PreferredHolder != nil && *s.PreferredHolder != "" && !strategic:
		errs = append(errs, field.Forbidden(path.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}
