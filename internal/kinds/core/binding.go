package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Binding is the kind of what assigns a pod to a node, posted to a namespace. It
// is not stored; pods/binding is the newer way.
func Binding() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Binding",
		Resource: "bindings", Singular: "binding",
		Namespaced: true,
		Virtual:    true,
		Verbs:      []string{"create"},
		New:        func() api.Object { return &corev1.Binding{} },
	}
}
