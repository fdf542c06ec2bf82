package core

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

// maxDriverName is how long the name of a storage driver may be.
const maxDriverName = 63

func validateVolume(v *corev1.PersistentVolume) field.ErrorList {
	s, at := &v.Spec, field.NewPath("spec")
	c := &serviceCheck{}
	if len(s.AccessModes) == 0 {
		c.add(field.Required(at.Child("accessModes"), ""))
	}
	c.add(podspec.ValidateAccessModes(s.AccessModes, at.Child("accessModes"))...)
	c.add(validateCapacity(s.Capacity, at.Child("capacity"))...)
	policies := []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain}
	if p := s.PersistentVolumeReclaimPolicy; p != "" && !slices.Contains(policies, p) {
		c.add(field.NotSupported(at.Child("persistentVolumeReclaimPolicy"), p, policies))
	}
	if n := s.NodeAffinity; n != nil {
		if n.Required == nil {
			c.add(field.Required(at.Child("nodeAffinity", "required"), "must specify required node constraints"))
		} else {
			c.add(podspec.ValidateNodeSelector(n.Required, at.Child("nodeAffinity", "required"))...)
		}
	}
	c.add(validateVolumeSource(s, at)...)
	if s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		c.add(field.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	c.subdomain(s.StorageClassName, at.Child("storageClassName"))
	if m := s.VolumeMode; m != nil && *m != corev1.PersistentVolumeBlock && *m != corev1.PersistentVolumeFilesystem {
		c.add(field.NotSupported(at.Child("volumeMode"), *m, []corev1.PersistentVolumeMode{corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem}))
	}
	if n := s.VolumeAttributesClassName; n != nil {
		if *n == "" {
			c.add(field.Required(at.Child("volumeAttributesClassName"), "an empty string is disallowed"))
		}
		c.subdomain(*n, at.Child("volumeAttributesClassName"))
		if s.CSI == nil {
			c.add(field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return c.errs
}

// subdomain checks the name of another object, if one is given.
func (v *serviceCheck) subdomain(name string, at *field.Path) {
	if name == "" {
		return
	}
	for _, msg := range validation.NameIsDNSSubdomain(name, false) {
		v.invalid(at, name, msg)
	}
}

func validateCapacity(l corev1.ResourceList, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(l) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if _, ok := l[corev1.ResourceStorage]; !ok || len(l) > 1 {
		errs = append(errs, field.NotSupported(at, l, []string{string(corev1.ResourceStorage)}))
	}
	for _, name := range podspec.ResourceNames(l) {
		if q := l[name]; q.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), q.String(), "must be greater than zero"))
		}
	}
	return errs
}

// validateVolumeSource demands one source, and checks those that are in use.
func validateVolumeSource(s *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	set := volumeSources(&s.PersistentVolumeSource)
	if len(set) == 0 {
		return field.ErrorList{field.Required(at, "must specify a volume type")}
	}
	c := &serviceCheck{}
	for _, name := range set[1:] {
		c.add(field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
	}
	if s.HostPath != nil {
		c.add(podspec.ValidateHostPath(s.HostPath, at.Child("hostPath"))...)
	}
	if s.NFS != nil {
		c.add(podspec.ValidateNFS(s.NFS, at.Child("nfs"))...)
	}
	if l := s.Local; l != nil {
		if l.Path == "" {
			c.add(field.Required(at.Child("local", "path"), ""))
		} else {
			c.add(podspec.ValidateNoBacksteps(l.Path, at.Child("local", "path"))...)
		}
		if s.NodeAffinity == nil {
			c.add(field.Required(at.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
	}
	if s.CSI != nil {
		c.csi(s.CSI, at.Child("csi"))
	}
	return c.errs
}

// volumeSources lists the JSON names of the sources that are given, in the
// order of the type.
func volumeSources(s *corev1.PersistentVolumeSource) []string {
	var out []string
	val := reflect.ValueOf(s).Elem()
	for i := range val.NumField() {
		if !val.Field(i).IsNil() {
			name, _, _ := strings.Cut(val.Type().Field(i).Tag.Get("json"), ",")
			out = append(out, name)
		}
	}
	return out
}

func (v *serviceCheck) csi(s *corev1.CSIPersistentVolumeSource, at *field.Path) {
	v.driver(s.Driver, at.Child("driver"))
	if s.VolumeHandle == "" {
		v.add(field.Required(at.Child("volumeHandle"), ""))
	}
	for _, r := range []struct {
		name string
		of   *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", s.ControllerPublishSecretRef}, {"controllerExpandSecretRef", s.ControllerExpandSecretRef},
		{"nodePublishSecretRef", s.NodePublishSecretRef}, {"nodeExpandSecretRef", s.NodeExpandSecretRef},
	} {
		if r.of == nil {
			continue
		}
		if r.of.Name == "" {
			v.add(field.Required(at.Child(r.name, "name"), ""))
		}
		if r.of.Namespace == "" {
			v.add(field.Required(at.Child(r.name, "namespace"), ""))
		}
	}
}

func (v *serviceCheck) driver(name string, at *field.Path) {
	if name == "" {
		v.add(field.Required(at, ""))
		return
	}
	if len(name) > maxDriverName {
		v.add(field.TooLong(at, name, maxDriverName))
	}
	for _, msg := range utilvalidation.IsDNS1123Subdomain(strings.ToLower(name)) {
		v.invalid(at, name, msg)
	}
}

// validateVolumeUpdate keeps the source, the mode, and to what nodes the volume
// is tied.
func validateVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	var errs field.ErrorList
	is := v.Spec.PersistentVolumeSource.DeepCopy()
	if c, had := is.CSI, old.Spec.CSI; c != nil && had != nil && had.ControllerExpandSecretRef == nil {
		c.ControllerExpandSecretRef = nil // it may be added later
	}
	if !equality.Semantic.DeepEqual(*is, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v", diff.Diff(old.Spec.PersistentVolumeSource, *is))))
	}
	errs = append(errs, validation.ValidateImmutableField(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Spec.NodeAffinity != nil && !equality.Semantic.DeepEqual(v.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity, "field is immutable, except for updating from beta label to GA"))
	}
	return errs
}
