package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Node is the kind of nodes.
func Node() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Node",
		Resource: "nodes", Singular: "node",
		ShortNames: []string{"no"},
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{
			{Name: "status", Verbs: []string{"get", "patch", "update"}},
		},
		New: func() api.Object { return &corev1.Node{} },
	}
}
