package api

import (
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateMeta checks the metadata of an object that is created: its name by
// the kind's rule, labels, the size of annotations, owners, finalizers and
// managed fields. A name has been made of generateName before.
func ValidateMeta(k *Kind, obj Object) field.ErrorList {
	rule := k.ValidName
	if rule == nil {
		rule = validation.NameIsDNSSubdomain
	}
	return validation.ValidateObjectMetaAccessor(obj, k.Namespaced, rule, field.NewPath("metadata"))
}

// ValidateMetaUpdate checks the metadata of an object that takes the place of
// old: what ValidateMeta checks but the name, and that name, namespace, uid and
// the times of creation and deletion stay. Finalizers of an object that is
// being deleted may only be removed.
func ValidateMetaUpdate(obj, old Object) field.ErrorList {
	path := field.NewPath("metadata")
	errs := validation.ValidateObjectMetaAccessorUpdate(obj, old, path)
	return append(errs, validation.ValidateFinalizers(obj.GetFinalizers(), path.Child("finalizers"))...)
}
