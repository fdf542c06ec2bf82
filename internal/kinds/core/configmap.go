package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// ConfigMap is the kind of configmaps.
func ConfigMap() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "ConfigMap",
		Resource: "configmaps", Singular: "configmap",
		ShortNames: []string{"cm"},
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:        func() api.Object { return &corev1.ConfigMap{} },
	}
}
