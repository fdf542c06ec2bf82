package apps

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// StatefulSet is the kind of stateful sets.
func StatefulSet() *api.Kind {
	return &api.Kind{
		Group: "apps", Version: "v1", Kind: "StatefulSet",
		Resource: "statefulsets", Singular: "statefulset",
		Warn:         api.Warn(warnStatefulSet),
		ShortNames:   []string{"sts"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        allVerbs(),
		Subresources: scaled(),
		// The names of its pods, which are host names, begin with its own.
		ValidName: validation.NameIsDNSLabel,
		New:       func() api.Object { return &appsv1.StatefulSet{} },
		Default:   api.On(defaultStatefulSet),
		OnDecode:  api.On(nameClaimKind),
		OnCreate:  api.On(func(s *appsv1.StatefulSet) { s.Status = appsv1.StatefulSetStatus{} }),
		OnUpdate:  api.OnPair(func(s, old *appsv1.StatefulSet) { s.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(s, old *appsv1.StatefulSet) {
			api.KeepMeta(s, old)
			s.Spec = *old.Spec.DeepCopy()
		}),
		SpecOf:         api.Of(func(s *appsv1.StatefulSet) any { return &s.Spec }),
		Validate:       api.Check(validateStatefulSet),
		ValidateUpdate: api.CheckPair(validateStatefulSetUpdate),
		ValidateStatus: api.CheckPair(validateStatefulSetStatus),
		Columns: append([]metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Ready", "How many pods are ready, out of those wanted."),
			api.AgeColumn(),
		}, templateColumns("")[:2]...),
		Cells: api.Row(func(s *appsv1.StatefulSet, now time.Time) []any {
			t := &s.Spec.Template.Spec
			return []any{
				s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, number(s.Spec.Replicas)), api.Age(s.CreationTimestamp, now),
				podspec.ContainerNames(t), podspec.Images(t),
			}
		}),
		Scale: &api.Scale{
			Get: func(obj api.Object) (autoscalingv1.ScaleSpec, autoscalingv1.ScaleStatus) {
				s := obj.(*appsv1.StatefulSet)
				return scaleOf(s.Spec.Replicas, s.Status.Replicas, s.Spec.Selector)
			},
			Set: func(obj api.Object, n int32) { obj.(*appsv1.StatefulSet).Spec.Replicas = &n },
		},
	}
}

// nameClaimKind says of the claim templates what they are; an object's bytes do
// not.
func nameClaimKind(s *appsv1.StatefulSet) {
	for i := range s.Spec.VolumeClaimTemplates {
		s.Spec.VolumeClaimTemplates[i].TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}
	}
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	spec := &s.Spec
	setPtr(&spec.Replicas, 1)
	setPtr(&spec.RevisionHistoryLimit, defaultHistory)
	if spec.PodManagementPolicy == "" {
		spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	u := &spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
		setPtr(&u.RollingUpdate.Partition, 0)
	}
	if spec.PersistentVolumeClaimRetentionPolicy == nil {
		spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{}
	}
	for _, p := range []*appsv1.PersistentVolumeClaimRetentionPolicyType{
		&spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, &spec.PersistentVolumeClaimRetentionPolicy.WhenScaled,
	} {
		if *p == "" {
			*p = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
	}
	nameClaimKind(s)
	for i := range spec.VolumeClaimTemplates {
		podspec.DefaultClaim(&spec.VolumeClaimTemplates[i])
	}
	podspec.DefaultTemplate(&spec.Template)
}
