package storage

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	maxAttachMetadata = 256 << 10
	maxAttachMessage  = 1024
)

// VolumeAttachment is the kind of volumes that are, or shall be, at a node.
func VolumeAttachment() *api.Kind {
	spec := storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	k := api.WithStatus(&api.Kind{
		Group: storagev1.GroupName, Version: "v1", Kind: "VolumeAttachment",
		Resource: "volumeattachments", Singular: "volumeattachment",
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &storagev1.VolumeAttachment{} },
		Validate:      api.Check(validateAttachment),
		ValidateUpdate: api.CheckPair(func(a, old *storagev1.VolumeAttachment) field.ErrorList {
			if equality.Semantic.DeepEqual(a.Spec, old.Spec) {
				return nil
			}
			return field.ErrorList{field.Invalid(field.NewPath("spec"), a.Spec, "field is immutable")}
		}),
		ValidateStatus: api.CheckPair(func(a, _ *storagev1.VolumeAttachment) field.ErrorList {
			return validateAttachStatus(&a.Status)
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			{Name: "Attacher", Type: "string", Format: "name", Description: spec["attacher"]},
			api.TextColumn("PV", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
			api.TextColumn("Node", spec["nodeName"]),
			{Name: "Attached", Type: "boolean", Description: storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]},
			api.AgeColumn(),
		},
		Cells: api.Row(func(a *storagev1.VolumeAttachment, now time.Time) []any {
			volume := ""
			if a.Spec.Source.PersistentVolumeName != nil {
				volume = *a.Spec.Source.PersistentVolumeName
			}
			return []any{a.Name, a.Spec.Attacher, volume, a.Spec.NodeName, a.Status.Attached, api.Age(a.CreationTimestamp, now)}
		}),
	}, func(a *storagev1.VolumeAttachment) *storagev1.VolumeAttachmentSpec { return &a.Spec },
		func(a *storagev1.VolumeAttachment) *storagev1.VolumeAttachmentStatus { return &a.Status })
	k.SpecOf = nil // the spec never changes
	return k
}

func validateAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateDriverName(a.Spec.Attacher, at.Child("attacher"))
	source, inline, name := at.Child("source"), a.Spec.Source.InlineVolumeSpec, a.Spec.Source.PersistentVolumeName
	switch {
	case inline == nil && name == nil:
		errs = append(errs, field.Required(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case inline != nil && name != nil:
		errs = append(errs, field.Forbidden(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case name != nil && *name == "":
		errs = append(errs, field.Required(source.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
	case name != nil:
		errs = append(errs, invalid(source.Child("persistentVolumeName"), *name, validation.NameIsDNSSubdomain(*name, false))...)
	case inline.CSI == nil:
		errs = append(errs, field.Required(source.Child("inlineVolumeSpec"), "must specify a CSI volume"))
	}
	if a.Spec.NodeName == "" {
		errs = append(errs, field.Required(at.Child("nodeName"), ""))
	} else {
		errs = append(errs, invalid(at.Child("nodeName"), a.Spec.NodeName, validation.NameIsDNSSubdomain(a.Spec.NodeName, false))...)
	}
	return errs
}

func validateAttachStatus(s *storagev1.VolumeAttachmentStatus) field.ErrorList {
	at := field.NewPath("status")
	var errs field.ErrorList
	size := 0
	for k, v := range s.AttachmentMetadata {
		size += len(k) + len(v)
	}
	if size > maxAttachMetadata {
		errs = append(errs, field.TooLong(at.Child("attachmentMetadata"), "", maxAttachMetadata))
	}
	for _, f := range []struct {
		name string
		is   *storagev1.VolumeError
	}{{"attachError", s.AttachError}, {"detachError", s.DetachError}} {
		if f.is != nil && len(f.is.Message) > maxAttachMessage {
			errs = append(errs, field.TooLong(at.Child(f.name, "message"), "", maxAttachMessage))
		}
	}
	return errs
}

// CSIStorageCapacity is the kind of what a driver has left in a place.
func CSIStorageCapacity() *api.Kind {
	doc := storagev1.CSIStorageCapacity{}.SwaggerDoc()
	return &api.Kind{
		Group: storagev1.GroupName, Version: "v1", Kind: "CSIStorageCapacity",
		Resource: "csistoragecapacities", Singular: "csistoragecapacity",
		Warn:          api.Warn(warnCapacity),
		NeedsRevision: true,
		Namespaced:    true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &storagev1.CSIStorageCapacity{} },
		Validate:      api.Check(validateCapacity),
		ValidateUpdate: api.CheckPair(func(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
			errs := validation.ValidateImmutableField(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))
			return append(errs, validation.ValidateImmutableField(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("StorageClassName", doc["storageClassName"]),
			api.TextColumn("Capacity", doc["capacity"]),
		},
		Cells: api.Row(func(c *storagev1.CSIStorageCapacity, _ time.Time) []any {
			capacity := unset
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		}),
	}
}

func validateCapacity(c *storagev1.CSIStorageCapacity) field.ErrorList {
	var errs field.ErrorList
	if c.NodeTopology != nil {
		errs = metavalidation.ValidateLabelSelector(c.NodeTopology, metavalidation.LabelSelectorValidationOptions{}, field.NewPath("nodeTopology"))
	}
	if c.StorageClassName == "" {
		errs = append(errs, field.Required(field.NewPath("storageClassName"), ""))
	} else {
		errs = append(errs, invalid(field.NewPath("storageClassName"), c.StorageClassName, utilvalidation.IsDNS1123Subdomain(c.StorageClassName))...)
	}
	for _, f := range []struct {
		name string
		is   *resource.Quantity
	}{{"capacity", c.Capacity}, {"maximumVolumeSize", c.MaximumVolumeSize}} {
		if f.is != nil && f.is.Sign() < 0 {
			errs = append(errs, field.Invalid(field.NewPath(f.name), f.is.String(), validation.IsNegativeErrorMsg))
		}
	}
	return errs
}
