package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
)

// ReplicaSet is the kind of replicasets.
func ReplicaSet() *api.Kind {
	return &api.Kind{
		Group:   "apps",
		Version: "v1", Kind: "ReplicaSet",
		Resource: "replicasets", Singular: "replicaset",
		ShortNames: []string{"rs"},
		Categories: []string{"all"},
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		Subresources: []api.Subresource{
			{Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale", New: func() runtime.Object { return &autoscalingv1.Scale{} }, Verbs: []string{"get", "patch", "update"}},
			{Name: "status", Verbs: []string{"get", "patch", "update"}},
		},
		New: func() api.Object { return &appsv1.ReplicaSet{} },
	}
}
