// Package kinds is the one table of all kinds that Wherry serves.
package kinds

import (
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds/apps"
	"github.com/wherry-project/wherry/internal/kinds/authentication"
	"github.com/wherry-project/wherry/internal/kinds/authorization"
	"github.com/wherry-project/wherry/internal/kinds/autoscaling"
	"github.com/wherry-project/wherry/internal/kinds/batch"
	"github.com/wherry-project/wherry/internal/kinds/coordination"
	"github.com/wherry-project/wherry/internal/kinds/core"
	"github.com/wherry-project/wherry/internal/kinds/discovery"
	"github.com/wherry-project/wherry/internal/kinds/events"
	"github.com/wherry-project/wherry/internal/kinds/metrics"
	"github.com/wherry-project/wherry/internal/kinds/networking"
	"github.com/wherry-project/wherry/internal/kinds/node"
	"github.com/wherry-project/wherry/internal/kinds/policy"
	"github.com/wherry-project/wherry/internal/kinds/rbac"
	"github.com/wherry-project/wherry/internal/kinds/scheduling"
	"github.com/wherry-project/wherry/internal/kinds/storage"
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
		apps.ControllerRevision(),
		apps.DaemonSet(),
		apps.Deployment(),
		apps.ReplicaSet(),
		apps.StatefulSet(),
		batch.CronJob(),
		batch.Job(),
		autoscaling.HorizontalPodAutoscaler(),
		autoscaling.HorizontalPodAutoscalerV1(),
		policy.PodDisruptionBudget(),
		coordination.Lease(),
		discovery.EndpointSlice(),
		events.Event(),
		authentication.SelfSubjectReview(),
		authentication.TokenReview(),
		authorization.LocalSubjectAccessReview(),
		authorization.SelfSubjectAccessReview(),
		authorization.SelfSubjectRulesReview(),
		authorization.SubjectAccessReview(),
		metrics.NodeMetrics(),
		metrics.PodMetrics(),
		networking.IngressClass(),
		networking.Ingress(),
		networking.IPAddress(),
		networking.NetworkPolicy(),
		networking.ServiceCIDR(),
		node.RuntimeClass(),
		rbac.ClusterRoleBinding(),
		rbac.ClusterRole(),
		rbac.RoleBinding(),
		rbac.Role(),
		scheduling.PriorityClass(),
		storage.CSIDriver(),
		storage.CSINode(),
		storage.CSIStorageCapacity(),
		storage.StorageClass(),
		storage.VolumeAttachment(),
		storage.VolumeAttributesClass(),
	)
}
