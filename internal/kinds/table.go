// Package kinds is the one table of all kinds that Wherry serves.
package kinds

import (
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds/apps"
	"github.com/wherry-project/wherry/internal/kinds/coordination"
	"github.com/wherry-project/wherry/internal/kinds/core"
	"github.com/wherry-project/wherry/internal/kinds/discovery"
	"github.com/wherry-project/wherry/internal/kinds/events"
	"github.com/wherry-project/wherry/internal/kinds/rbac"
)

// Table makes the table of all kinds. Discovery lists them in its order.
func Table() *api.Kinds {
	return api.NewKinds(
		core.ComponentStatus(),
		core.ConfigMap(),
		core.Endpoints(),
		core.Event(),
		core.LimitRange(),
		core.Namespace(),
		core.Node(),
		core.PersistentVolumeClaim(),
		core.PersistentVolume(),
		core.Pod(),
		core.PodTemplate(),
		core.ReplicationController(),
		core.ResourceQuota(),
		core.Secret(),
		core.ServiceAccount(),
		core.Service(),
		apps.Deployment(),
		apps.ReplicaSet(),
		coordination.Lease(),
		discovery.EndpointSlice(),
		events.Event(),
		rbac.ClusterRoleBinding(),
		rbac.ClusterRole(),
		rbac.RoleBinding(),
		rbac.Role(),
	)
}
