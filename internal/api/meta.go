package api

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateMeta checks the metadata of an object on create and update: its name
// by the kind's rule, labels, the size of annotations, owners, finalizers and
// managed fields. A name has been made of generateName before.
func ValidateMeta(k *Kind, obj Object) field.ErrorList {
	rule := k.ValidName
	if rule == nil {
		rule = validation.NameIsDNSSubdomain
	}
	errs := validation.ValidateObjectMetaAccessor(obj, k.Namespaced, rule, field.NewPath("metadata"))
	if !k.builtIn() {
		return errs
	}
	for i, f := range obj.GetFinalizers() {
		standard := f == string(corev1.FinalizerKubernetes) || f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
		if !standard && !strings.Contains(f, "/") {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "finalizers").Index(i), f, "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}

// builtIn reports whether a kind is one of Kubernetes' own, by its group.
func (k *Kind) builtIn() bool {
	return !strings.Contains(k.Group, ".") || strings.HasSuffix(k.Group, ".k8s.io")
}

// ValidateMetaUpdate checks that name, namespace, uid and the times of creation
// and deletion stay, that the generation does not go back, and that an object
// that is being deleted gets no new finalizers. ValidateMeta runs as well.
func ValidateMetaUpdate(obj, old Object) field.ErrorList {
	path := field.NewPath("metadata")
	var errs field.ErrorList
	if old.GetDeletionTimestamp() != nil {
		errs = validation.ValidateNoNewFinalizers(obj.GetFinalizers(), old.GetFinalizers(), path.Child("finalizers"))
	}
	if obj.GetGeneration() < old.GetGeneration() {
		errs = append(errs, field.Invalid(path.Child("generation"), obj.GetGeneration(), "must not be decremented"))
	}
	for _, f := range []struct {
		name    string
		is, was any
	}{
		{"name", obj.GetName(), old.GetName()},
		{"namespace", obj.GetNamespace(), old.GetNamespace()},
		{"uid", obj.GetUID(), old.GetUID()},
		{"creationTimestamp", obj.GetCreationTimestamp(), old.GetCreationTimestamp()},
		{"deletionTimestamp", obj.GetDeletionTimestamp(), old.GetDeletionTimestamp()},
		{"deletionGracePeriodSeconds", obj.GetDeletionGracePeriodSeconds(), old.GetDeletionGracePeriodSeconds()},
	} {
		errs = append(errs, validation.ValidateImmutableField(f.is, f.was, path.Child(f.name))...)
	}
	return errs
}

// KeepMeta gives obj the metadata of old, but for what a write of /status may
// change: resourceVersion and managedFields. Nothing of old is shared, so that
// defaults may write into obj.
func KeepMeta(obj, old Object) {
	obj.SetLabels(maps.Clone(old.GetLabels()))
	obj.SetAnnotations(maps.Clone(old.GetAnnotations()))
	obj.SetFinalizers(slices.Clone(old.GetFinalizers()))
	owners := slices.Clone(old.GetOwnerReferences())
	for i := range owners {
		owners[i] = *owners[i].DeepCopy()
	}
	obj.SetOwnerReferences(owners)
	obj.SetGeneration(old.GetGeneration())
	obj.SetGenerateName(old.GetGenerateName())
	obj.SetSelfLink("")
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp().DeepCopy())
	var grace *int64
	if g := old.GetDeletionGracePeriodSeconds(); g != nil {
		seconds := *g
		grace = &seconds
	}
	obj.SetDeletionGracePeriodSeconds(grace)
}
