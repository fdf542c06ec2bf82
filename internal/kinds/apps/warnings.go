package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

// warnTemplate looks at a template that is new or may have changed.
func warnTemplate(meta, old *metav1.ObjectMeta, t *corev1.PodTemplateSpec) []string {
	if old != nil && old.Generation == meta.Generation {
		return nil
	}
	return podspec.Warnings(field.NewPath("spec", "template"), &t.ObjectMeta, &t.Spec)
}

func warnDeployment(d, old *appsv1.Deployment) []string {
	if old == nil {
		return append(podspec.NameWarnings(d.Name), warnTemplate(&d.ObjectMeta, nil, &d.Spec.Template)...)
	}
	return warnTemplate(&d.ObjectMeta, &old.ObjectMeta, &d.Spec.Template)
}

func warnReplicaSet(r, old *appsv1.ReplicaSet) []string {
	if old == nil {
		return append(podspec.NameWarnings(r.Name), warnTemplate(&r.ObjectMeta, nil, &r.Spec.Template)...)
	}
	return warnTemplate(&r.ObjectMeta, &old.ObjectMeta, &r.Spec.Template)
}

func warnDaemonSet(d, old *appsv1.DaemonSet) []string {
	if old == nil {
		return warnTemplate(&d.ObjectMeta, nil, &d.Spec.Template)
	}
	return warnTemplate(&d.ObjectMeta, &old.ObjectMeta, &d.Spec.Template)
}

func warnStatefulSet(s, old *appsv1.StatefulSet) []string {
	var was *metav1.ObjectMeta
	if old != nil {
		was = &old.ObjectMeta
	}
	out := warnTemplate(&s.ObjectMeta, was, &s.Spec.Template)
	for i := range s.Spec.VolumeClaimTemplates {
		out = append(out, podspec.ClaimWarnings(func() *field.Path {
			return field.NewPath("spec", "volumeClaimTemplates").Index(i)
		}, &s.Spec.VolumeClaimTemplates[i].Spec)...)
	}
	if n := s.Spec.RevisionHistoryLimit; n != nil && *n < 0 {
		out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return out
}
