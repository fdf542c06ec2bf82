package coordination

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Lease is the kind of leases.
func Lease() *api.Kind {
	return &api.Kind{
		Group:   "coordination.k8s.io",
		Version: "v1", Kind: "Lease",
		Resource: "leases", Singular: "lease",
		Namespaced:    true,
		Verbs:         []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:           func() api.Object { return &coordinationv1.Lease{} },
		NeedsRevision: true,
	}
}
