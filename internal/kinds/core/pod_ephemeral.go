package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// KeepForEphemeral makes obj what a write of /ephemeralcontainers may make of
// old: old with the ephemeral containers of obj, and with the resourceVersion
// that obj names.
func KeepForEphemeral(obj, old *corev1.Pod) {
	more := obj.Spec.EphemeralContainers
	api.KeepMeta(obj, old)
	obj.Spec = *old.Spec.DeepCopy()
	obj.Spec.EphemeralContainers = more
	obj.Status = *old.Status.DeepCopy()
}

// ValidateEphemeralUpdate checks a write of /ephemeralcontainers: containers may
// only be added. The pod's Validate runs as well; it checks the new ones.
func ValidateEphemeralUpdate(p, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	if _, ok := old.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		errs = append(errs, field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers"))
	}
	path, now := field.NewPath("spec", "ephemeralContainers"), map[string]*corev1.EphemeralContainer{}
	for i := range p.Spec.EphemeralContainers {
		now[p.Spec.EphemeralContainers[i].Name] = &p.Spec.EphemeralContainers[i]
	}
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		is, ok := now[was.Name]
		switch {
		case !ok:
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
		case !equality.Semantic.DeepEqual(was, is):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(was, is))))
		}
	}
	return errs
}
