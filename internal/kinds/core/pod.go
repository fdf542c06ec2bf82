package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
)

// Pod is the kind of pods.
func Pod() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Pod",
		Resource: "pods", Singular: "pod",
		ShortNames: []string{"po"},
		Categories: []string{"all"},
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{
			{Name: "attach", Kind: "PodAttachOptions", Verbs: []string{"create", "get"}},
			{Name: "binding", Kind: "Binding", New: func() runtime.Object { return &corev1.Binding{} }, Verbs: []string{"create"}},
			{Name: "exec", Kind: "PodExecOptions", Verbs: []string{"create", "get"}},
			{Name: "log", Verbs: []string{"get"}},
			{Name: "portforward", Kind: "PodPortForwardOptions", Verbs: []string{"create", "get"}},
			{Name: "status", Verbs: []string{"get", "patch", "update"}},
		},
		New:                 func() api.Object { return &corev1.Pod{} },
		DeleteAnswersObject: true,
	}
}
