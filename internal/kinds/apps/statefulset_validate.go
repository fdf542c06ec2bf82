package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

func validateStatefulSet(set *appsv1.StatefulSet) field.ErrorList {
	s, path := &set.Spec, field.NewPath("spec")
	var errs field.ErrorList
	switch p := s.PodManagementPolicy; p {
	case "":
		errs = append(errs, field.Required(path.Child("podManagementPolicy"), ""))
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		errs = append(errs, field.Invalid(path.Child("podManagementPolicy"), p,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	errs = append(errs, validateSetStrategy(&s.UpdateStrategy, path.Child("updateStrategy"))...)
	errs = append(errs, validateRetention(s.PersistentVolumeClaimRetentionPolicy, path.Child("persistentVolumeClaimRetentionPolicy"))...)
	errs = append(errs, notNegative(path,
		named{"replicas", int64(number(s.Replicas))}, named{"minReadySeconds", int64(s.MinReadySeconds)},
		named{"revisionHistoryLimit", int64(number(s.RevisionHistoryLimit))},
	)...)
	if o := s.Ordinals; o != nil {
		errs = append(errs, notNegative(path.Child("ordinals"), named{"start", int64(o.Start)})...)
	}
	if s.ServiceName != "" {
		for _, msg := range utilvalidation.IsDNS1123Subdomain(s.ServiceName) {
			errs = append(errs, field.Invalid(path.Child("serviceName"), s.ServiceName, msg))
		}
	}
	errs = append(errs, validateClaimTemplates(s.VolumeClaimTemplates, path.Child("volumeClaimTemplates"))...)
	selector, more := validateSelector(s.Selector, "statefulset", path.Child("selector"))
	errs = append(errs, more...)
	return append(errs, validateSetTemplate(s, selector, path.Child("template"))...)
}

func validateSetStrategy(u *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch u.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(path.Child("rollingUpdate"), u.RollingUpdate,
				fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
	default:
		return field.ErrorList{field.Invalid(path, *u,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))}
	}
	r := u.RollingUpdate
	if r == nil {
		return nil
	}
	path = path.Child("rollingUpdate")
	errs := notNegative(path, named{"partition", int64(number(r.Partition))})
	if r.MaxUnavailable != nil {
		at := path.Child("maxUnavailable")
		errs = append(errs, validatePart(*r.MaxUnavailable, at)...)
		if amount(*r.MaxUnavailable) == 0 {
			errs = append(errs, field.Invalid(at, *r.MaxUnavailable, "cannot be 0"))
		}
		errs = append(errs, notOverAll(*r.MaxUnavailable, at)...)
	}
	return errs
}

func validateRetention(p *appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	var errs field.ErrorList
	for _, w := range []struct {
		name string
		is   appsv1.PersistentVolumeClaimRetentionPolicyType
	}{{"whenDeleted", p.WhenDeleted}, {"whenScaled", p.WhenScaled}} {
		if w.is != appsv1.RetainPersistentVolumeClaimRetentionPolicyType && w.is != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			errs = append(errs, field.NotSupported(path.Child(w.name), w.is, []appsv1.PersistentVolumeClaimRetentionPolicyType{
				appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
			}))
		}
	}
	return errs
}

func validateClaimTemplates(claims []corev1.PersistentVolumeClaim, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range claims {
		c, at := &claims[i], path.Index(i)
		name := at.Child("metadata", "name")
		if c.Name == "" {
			errs = append(errs, field.Required(name, ""))
		} else {
			for _, msg := range utilvalidation.IsDNS1123Label(c.Name) {
				errs = append(errs, field.Invalid(name, c.Name, msg))
			}
		}
		if seen[c.Name] {
			errs = append(errs, field.Duplicate(name, c.Name))
		}
		seen[c.Name] = true
		errs = append(errs, podspec.ValidateClaimSpec(&c.Spec, at.Child("spec"))...)
	}
	return errs
}

// validateSetTemplate checks the template as its pods will be: with a volume
// for each claim, which takes the place of one of the same name.
func validateSetTemplate(s *appsv1.StatefulSetSpec, selector labels.Selector, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	t := s.Template
	if selector != nil && !selector.Empty() && !selector.Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	has := map[string]bool{}
	for i := range t.Spec.Volumes {
		has[t.Spec.Volumes[i].Name] = true
	}
	t.Spec.Volumes = t.Spec.Volumes[:len(t.Spec.Volumes):len(t.Spec.Volumes)]
	for i := range s.VolumeClaimTemplates {
		name := s.VolumeClaimTemplates[i].Name
		if has[name] || len(utilvalidation.IsDNS1123Label(name)) > 0 {
			continue
		}
		has[name] = true
		t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
		}})
	}
	errs = append(errs, podspec.ValidateTemplate(&t, path)...)
	return append(errs, keptRunning(&t, "StatefulSet", path)...)
}

func validateStatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	is := s.Spec
	is.Replicas, is.Template, is.UpdateStrategy, is.MinReadySeconds = old.Spec.Replicas, old.Spec.Template, old.Spec.UpdateStrategy, old.Spec.MinReadySeconds
	is.Ordinals, is.RevisionHistoryLimit = old.Spec.Ordinals, old.Spec.RevisionHistoryLimit
	is.PersistentVolumeClaimRetentionPolicy = old.Spec.PersistentVolumeClaimRetentionPolicy
	if equality.Semantic.DeepEqual(is, old.Spec) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "+
		"'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")}
}

func validateStatefulSetStatus(set, old *appsv1.StatefulSet) field.ErrorList {
	s, path := &set.Status, field.NewPath("status")
	parts := []named{
		{"readyReplicas", int64(s.ReadyReplicas)}, {"currentReplicas", int64(s.CurrentReplicas)},
		{"updatedReplicas", int64(s.UpdatedReplicas)}, {"availableReplicas", int64(s.AvailableReplicas)},
	}
	errs := notNegative(path, append([]named{
		{"replicas", int64(s.Replicas)}, {"observedGeneration", s.ObservedGeneration}, {"collisionCount", int64(number(s.CollisionCount))},
	}, parts...)...)
	for _, n := range parts {
		if n.value > int64(s.Replicas) {
			errs = append(errs, field.Invalid(path.Child(n.name), n.value, "cannot be greater than status.replicas"))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than status.readyReplicas"))
	}
	return append(errs, validateCollisions(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}
