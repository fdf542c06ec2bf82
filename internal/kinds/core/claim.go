package core

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// PersistentVolumeClaim is the kind of claims for persistent volumes.
func PersistentVolumeClaim() *api.Kind {
	spec, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	return &api.Kind{
		Version: "v1", Kind: "PersistentVolumeClaim",
		Resource: "persistentvolumeclaims", Singular: "persistentvolumeclaim",
		Warn:         api.Warn(warnClaim),
		ShortNames:   []string{"pvc"},
		Namespaced:   true,
		Verbs:        allVerbs(),
		Subresources: []api.Subresource{{Name: "status", Verbs: statusVerbs()}},
		New:          func() api.Object { return &corev1.PersistentVolumeClaim{} },
		Default:      api.On(podspec.DefaultClaim),
		OnCreate: api.On(func(c *corev1.PersistentVolumeClaim) {
			c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
			agreeDataSources(&c.Spec)
		}),
		OnUpdate: api.OnPair(func(c, old *corev1.PersistentVolumeClaim) {
			c.Status = *old.Status.DeepCopy()
			agreeDataSources(&c.Spec)
		}),
		OnStatus: api.OnPair(func(c, old *corev1.PersistentVolumeClaim) {
			api.KeepMeta(c, old)
			c.Spec = *old.Spec.DeepCopy()
		}),
		Validate: api.Check(func(c *corev1.PersistentVolumeClaim) field.ErrorList {
			return podspec.ValidateClaimSpec(&c.Spec, field.NewPath("spec"))
		}),
		ValidateUpdate: api.CheckPair(validateClaimUpdate),
		ValidateStatus: api.CheckPair(validateClaimStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Status", status["phase"]),
			api.TextColumn("Volume", spec["volumeName"]),
			api.TextColumn("Capacity", status["capacity"]),
			api.TextColumn("Access Modes", status["accessModes"]),
			api.TextColumn("StorageClass", spec["storageClassName"]),
			api.TextColumn("VolumeAttributesClass", "The class of attributes that the claim asks for."),
			api.AgeColumn(),
			wideText("VolumeMode", spec["volumeMode"]),
		},
		Cells:               api.Row(claimCells),
		DeleteAnswersObject: true,
	}
}

// agreeDataSources makes the older and the newer field for a claim's content
// agree, and drops from the older one what it never could name.
func agreeDataSources(s *corev1.PersistentVolumeClaimSpec) {
	if d := s.DataSource; d != nil && s.DataSourceRef == nil {
		snapshot := d.Kind == "VolumeSnapshot" && d.APIGroup != nil && *d.APIGroup == "snapshot.storage.k8s.io"
		claim := d.Kind == "PersistentVolumeClaim" && (d.APIGroup == nil || *d.APIGroup == "")
		if !snapshot && !claim && d.Kind != "" && d.Name != "" && d.APIGroup != nil {
			s.DataSource = nil
			return
		}
		c := d.DeepCopy()
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: c.APIGroup, Kind: c.Kind, Name: c.Name}
		return
	}
	if r := s.DataSourceRef; r != nil && s.DataSource == nil && (r.Namespace == nil || *r.Namespace == "") {
		c := r.DeepCopy()
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: c.APIGroup, Kind: c.Kind, Name: c.Name}
	}
}

func claimCells(c *corev1.PersistentVolumeClaim, now time.Time) []any {
	capacity, access := "", ""
	if c.Spec.VolumeName != "" {
		capacity, access = amountOf(c.Status.Capacity), modes(c.Status.AccessModes)
	}
	class, ok := c.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	return []any{
		c.Name, phase(string(c.Status.Phase), c.DeletionTimestamp), c.Spec.VolumeName, capacity, access, class,
		orUnset(c.Spec.VolumeAttributesClassName), api.Age(c.CreationTimestamp, now), orUnset(c.Spec.VolumeMode),
	}
}

// validateClaimUpdate lets a claim be bound once and be given a class once, and
// lets a bound one grow; the rest of its spec stays as it was created.
func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	spec, was := field.NewPath("spec"), &old.Spec
	is := c.Spec.DeepCopy()
	bound := old.Status.Phase == corev1.ClaimBound
	if was.VolumeName == "" {
		is.VolumeName = ""
	}
	_, annotated := old.Annotations[corev1.BetaStorageClassAnnotation]
	if was.StorageClassName == nil && is.StorageClassName != nil && (!annotated || *is.StorageClassName == old.Annotations[corev1.BetaStorageClassAnnotation]) {
		is.StorageClassName = nil
	}
	size, had := is.Resources.Requests[corev1.ResourceStorage], was.Resources.Requests[corev1.ResourceStorage]
	if bound && is.Resources.Requests != nil {
		is.Resources.Requests[corev1.ResourceStorage] = had
	}
	if bound {
		is.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(*is, *was) {
		errs = append(errs, field.Forbidden(spec,
			fmt.Sprintf("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v", diff.Diff(*was, *is))))
	}
	if has := old.Status.Capacity[corev1.ResourceStorage]; size.Cmp(had) < 0 && size.Cmp(has) <= 0 {
		errs = append(errs, field.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, validation.ValidateImmutableField(c.Spec.VolumeMode, was.VolumeMode, field.NewPath("volumeMode"))...)
	if was.VolumeAttributesClassName != nil && c.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(spec.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

func validateClaimStatus(c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	if len(c.Status.AllocatedResources) > 0 {
		path = path.Child("allocatedResources")
		for _, name := range podspec.ResourceNames(c.Status.AllocatedResources) {
			errs = append(errs, podspec.ValidateResourceName(name, path.Key(string(name)))...)
			errs = append(errs, podspec.ValidateQuantity(name, c.Status.AllocatedResources[name], path.Key(string(name)))...)
		}
		return errs
	}
	for _, name := range podspec.ResourceNames(c.Status.Capacity) {
		if q := c.Status.Capacity[name]; q.Sign() < 0 {
			errs = append(errs, field.Invalid(path.Child("capacity").Key(string(name)), q.String(), "must be a valid resource quantity"))
		}
	}
	return errs
}
