package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Secret is the kind of secrets.
func Secret() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Secret",
		Resource: "secrets", Singular: "secret",
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:        func() api.Object { return &corev1.Secret{} },
	}
}
