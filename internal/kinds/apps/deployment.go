package apps

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// What a deployment gets where it says nothing.
const (
	defaultHistory  = 10
	defaultProgress = 600
	defaultPart     = "25%"
)

// Deployment is the kind of deployments.
func Deployment() *api.Kind {
	status := appsv1.DeploymentStatus{}.SwaggerDoc()
	return &api.Kind{
		Group: "apps", Version: "v1", Kind: "Deployment",
		Resource: "deployments", Singular: "deployment",
		Warn:         api.Warn(warnDeployment),
		ShortNames:   []string{"deploy"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        allVerbs(),
		Subresources: scaled(),
		New:          func() api.Object { return &appsv1.Deployment{} },
		Default:      api.On(defaultDeployment),
		OnCreate:     api.On(func(d *appsv1.Deployment) { d.Status = appsv1.DeploymentStatus{} }),
		OnUpdate: api.OnPair(func(d, old *appsv1.Deployment) {
			d.Status = *old.Status.DeepCopy()
		}),
		OnStatus: api.OnPair(func(d, old *appsv1.Deployment) {
			api.KeepMeta(d, old)
			d.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:         api.Of(func(d *appsv1.Deployment) any { return &d.Spec }),
		Validate:       api.Check(validateDeployment),
		ValidateUpdate: api.CheckPair(validateDeploymentUpdate),
		ValidateStatus: api.CheckPair(validateDeploymentStatus),
		Columns: append([]metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Ready", "How many pods are ready, out of those wanted."),
			api.TextColumn("Up-to-date", status["updatedReplicas"]),
			api.TextColumn("Available", status["availableReplicas"]),
			api.AgeColumn(),
		}, templateColumns(appsv1.DeploymentSpec{}.SwaggerDoc()["selector"])...),
		Cells: api.Row(func(d *appsv1.Deployment, now time.Time) []any {
			s := &d.Spec.Template.Spec
			return []any{
				d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, number(d.Spec.Replicas)),
				int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), api.Age(d.CreationTimestamp, now),
				podspec.ContainerNames(s), podspec.Images(s), metav1.FormatLabelSelector(d.Spec.Selector),
			}
		}),
		Scale: &api.Scale{
			Get: func(obj api.Object) (autoscalingv1.ScaleSpec, autoscalingv1.ScaleStatus) {
				d := obj.(*appsv1.Deployment)
				return scaleOf(d.Spec.Replicas, d.Status.Replicas, d.Spec.Selector)
			},
			Set: func(obj api.Object, n int32) { obj.(*appsv1.Deployment).Spec.Replicas = &n },
		},
	}
}

func defaultDeployment(d *appsv1.Deployment) {
	s := &d.Spec
	setPtr(&s.Replicas, 1)
	setPtr(&s.RevisionHistoryLimit, defaultHistory)
	setPtr(&s.ProgressDeadlineSeconds, defaultProgress)
	if s.Strategy.Type == "" {
		s.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if s.Strategy.RollingUpdate == nil {
			s.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		setPtr(&s.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString(defaultPart))
		setPtr(&s.Strategy.RollingUpdate.MaxSurge, intstr.FromString(defaultPart))
	}
	podspec.DefaultTemplate(&s.Template)
}

func setPtr[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}

func number(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}
