package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// ServiceAccount is the kind of serviceaccounts.
func ServiceAccount() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "ServiceAccount",
		Resource: "serviceaccounts", Singular: "serviceaccount",
		ShortNames:          []string{"sa"},
		Namespaced:          true,
		Verbs:               []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:                 func() api.Object { return &corev1.ServiceAccount{} },
		DeleteAnswersObject: true,
	}
}
