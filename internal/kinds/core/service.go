package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Service is the kind of services.
func Service() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Service",
		Resource: "services", Singular: "service",
		ShortNames: []string{"svc"},
		Categories: []string{"all"},
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{
			{Name: "status", Verbs: []string{"get", "patch", "update"}},
		},
		New:                 func() api.Object { return &corev1.Service{} },
		DeleteAnswersObject: true,
	}
}
