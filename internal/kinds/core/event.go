package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Event is the kind of events.
func Event() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Event",
		Resource: "events", Singular: "event",
		ShortNames: []string{"ev"},
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:        func() api.Object { return &corev1.Event{} },
	}
}
