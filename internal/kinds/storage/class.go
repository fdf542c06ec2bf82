package storage

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// The limits of the parameters of a class.
const (
	maxParameters     = 512
	maxParametersSize = 256 << 10
)

// The annotations that make a class the default one.
const (
	isDefault     = "storageclass.kubernetes.io/is-default-class"
	isDefaultBeta = "storageclass.beta.kubernetes.io/is-default-class"
)

// StorageClass is the kind of storage classes.
func StorageClass() *api.Kind {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return &api.Kind{
		Group: storagev1.GroupName, Version: "v1", Kind: "StorageClass",
		Resource: "storageclasses", Singular: "storageclass",
		Warn:       api.Warn(warnClass),
		ShortNames: []string{"sc"},
		Verbs:      api.AllVerbs(),
		New:        func() api.Object { return &storagev1.StorageClass{} },
		Default: api.On(func(c *storagev1.StorageClass) {
			api.SetDefault(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
			api.SetDefault(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
		}),
		Validate:       api.Check(validateClass),
		ValidateUpdate: api.CheckPair(validateClassUpdate),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Provisioner", doc["provisioner"]),
			api.TextColumn("ReclaimPolicy", doc["reclaimPolicy"]),
			api.TextColumn("VolumeBindingMode", doc["volumeBindingMode"]),
			{Name: "AllowVolumeExpansion", Type: "string", Description: doc["allowVolumeExpansion"]},
			api.AgeColumn(),
		},
		Cells: api.Row(func(c *storagev1.StorageClass, now time.Time) []any {
			name, reclaim, mode, grow := c.Name, corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingImmediate, false
			if c.Annotations[isDefault] == "true" || c.Annotations[isDefaultBeta] == "true" {
				name += " (default)"
			}
			if c.ReclaimPolicy != nil {
				reclaim = *c.ReclaimPolicy
			}
			if c.VolumeBindingMode != nil {
				mode = *c.VolumeBindingMode
			}
			if c.AllowVolumeExpansion != nil {
				grow = *c.AllowVolumeExpansion
			}
			return []any{name, c.Provisioner, string(reclaim), string(mode), grow, api.Age(c.CreationTimestamp, now)}
		}),
	}
}

func validateClass(c *storagev1.StorageClass) field.ErrorList {
	errs := validateProvisioner(c.Provisioner, field.NewPath("provisioner"))
	errs = append(errs, validateParameters(c.Parameters, true, field.NewPath("parameters"))...)
	policies := []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain}
	if c.ReclaimPolicy != nil && !slices.Contains(policies, *c.ReclaimPolicy) {
		errs = append(errs, field.NotSupported(field.NewPath("reclaimPolicy"), *c.ReclaimPolicy, policies))
	}
	modes := []storagev1.VolumeBindingMode{storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer}
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else if !slices.Contains(modes, *c.VolumeBindingMode) {
		errs = append(errs, field.NotSupported(field.NewPath("volumeBindingMode"), *c.VolumeBindingMode, modes))
	}
	return append(errs, validateTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func validateProvisioner(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, name)}
	}
	return invalid(at, name, utilvalidation.IsQualifiedName(strings.ToLower(name)))
}

func validateParameters(params map[string]string, mayBeEmpty bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(params) > maxParameters {
		errs = append(errs, field.TooLong(at, "Provisioner Parameters exceeded max allowed", maxParameters))
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(params)) {
		if key == "" {
			errs = append(errs, field.Invalid(at, key, "field can not be empty."))
		}
		size += len(key) + len(params[key])
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(at, "", maxParametersSize))
	}
	if len(params) == 0 && !mayBeEmpty {
		errs = append(errs, field.Required(at, "must contain at least one key/value pair"))
	}
	return errs
}

func validateTopologies(terms []corev1.TopologySelectorTerm, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range terms {
		keys := map[string]bool{}
		for j, e := range t.MatchLabelExpressions {
			expr := at.Index(i).Child("matchLabelExpressions").Index(j)
			if keys[e.Key] {
				errs = append(errs, field.Duplicate(expr.Child("key"), e.Key))
			}
			keys[e.Key] = true
			values := map[string]bool{}
			if len(e.Values) == 0 {
				errs = append(errs, field.Required(expr.Child("values"), ""))
			}
			for n, v := range e.Values {
				if values[v] {
					errs = append(errs, field.Duplicate(expr.Child("values").Index(n), v))
				}
				values[v] = true
			}
			errs = append(errs, metavalidation.ValidateLabelName(e.Key, expr.Child("key"))...)
		}
		for n := range i {
			if equality.Semantic.DeepEqual(terms[n], t) {
				errs = append(errs, field.Duplicate(at.Index(i).Child("matchLabelExpressions"), ""))
				break
			}
		}
	}
	return errs
}

func validateClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	var errs field.ErrorList
	if !maps.Equal(c.Parameters, old.Parameters) {
		errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
	}
	if c.Provisioner != old.Provisioner {
		errs = append(errs, field.Forbidden(field.NewPath("provisioner"), "updates to provisioner are forbidden."))
	}
	if !equality.Semantic.DeepEqual(c.ReclaimPolicy, old.ReclaimPolicy) {
		errs = append(errs, field.Forbidden(field.NewPath("reclaimPolicy"), "updates to reclaimPolicy are forbidden."))
	}
	return append(errs, validation.ValidateImmutableField(c.VolumeBindingMode, old.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
}

// VolumeAttributesClass is the kind of classes of changeable volume attributes.
func VolumeAttributesClass() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Version: "v1", Kind: "VolumeAttributesClass",
		Resource: "volumeattributesclasses", Singular: "volumeattributesclass",
		ShortNames: []string{"vac"},
		Verbs:      api.AllVerbs(),
		New:        func() api.Object { return &storagev1.VolumeAttributesClass{} },
		Validate: api.Check(func(c *storagev1.VolumeAttributesClass) field.ErrorList {
			errs := validateDriverName(c.DriverName, field.NewPath("driverName"))
			return append(errs, validateParameters(c.Parameters, false, field.NewPath("parameters"))...)
		}),
		ValidateUpdate: api.CheckPair(func(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
			var errs field.ErrorList
			if c.DriverName != old.DriverName {
				errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
			}
			if !maps.Equal(c.Parameters, old.Parameters) {
				errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
			}
			return errs
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("DriverName", storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(c *storagev1.VolumeAttributesClass, now time.Time) []any {
			return []any{c.Name, c.DriverName, api.Age(c.CreationTimestamp, now)}
		}),
	}
}
