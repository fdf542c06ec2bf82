package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Namespace is the kind of namespaces.
func Namespace() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Namespace",
		Resource: "namespaces", Singular: "namespace",
		ShortNames: []string{"ns"},
		Verbs:      []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{
			{Name: "status", Verbs: []string{"get", "patch", "update"}},
			{Name: "finalize", Verbs: []string{"update"}},
		},
		New: func() api.Object { return &corev1.Namespace{} },
	}
}
