package discovery

import (
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// EndpointSlice is the kind of endpointslices.
func EndpointSlice() *api.Kind {
	return &api.Kind{
		Group:   "discovery.k8s.io",
		Version: "v1", Kind: "EndpointSlice",
		Resource: "endpointslices", Singular: "endpointslice",
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:        func() api.Object { return &discoveryv1.EndpointSlice{} },
	}
}
