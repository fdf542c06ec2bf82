package resource

import (
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// DeviceClass is the kind of classes of devices.
func DeviceClass() *api.Kind {
	return api.WithSpec(&api.Kind{
		Group: resourcev1.GroupName, Version: "v1", Kind: "DeviceClass",
		Resource: "deviceclasses", Singular: "deviceclass",
		Verbs:               api.AllVerbs(),
		DeleteAnswersObject: true,
		New:                 func() api.Object { return &resourcev1.DeviceClass{} },
		Validate:            api.Check(validateClass),
		Columns:             []metav1.TableColumnDefinition{api.NameColumn(), api.AgeColumn()},
		Cells: api.Row(func(c *resourcev1.DeviceClass, now time.Time) []any {
			return []any{c.Name, api.Age(c.CreationTimestamp, now)}
		}),
	}, func(c *resourcev1.DeviceClass) any { return &c.Spec })
}

// ResourceClaim is the kind of claims of devices.
func ResourceClaim() *api.Kind {
	k := api.WithStatus(&api.Kind{
		Group: resourcev1.GroupName, Version: "v1", Kind: "ResourceClaim",
		Resource: "resourceclaims", Singular: "resourceclaim",
		Namespaced:          true,
		Verbs:               api.AllVerbs(),
		DeleteAnswersObject: true,
		New:                 func() api.Object { return &resourcev1.ResourceClaim{} },
		Default:             api.On(func(c *resourcev1.ResourceClaim) { defaultClaim(&c.Spec) }),
		Validate: api.Check(func(c *resourcev1.ResourceClaim) field.ErrorList {
			return validateClaim(&c.Spec, field.NewPath("spec"))
		}),
		ValidateUpdate: api.CheckPair(func(c, old *resourcev1.ResourceClaim) field.ErrorList {
			if equality.Semantic.DeepEqual(c.Spec, old.Spec) {
				return nil
			}
			return field.ErrorList{field.Invalid(field.NewPath("spec"), c.Spec, "field is immutable")}
		}),
		ValidateStatus: api.CheckPair(validateClaimStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("State", "What has happened to the claim: pending, allocated, reserved, deleted."),
			api.AgeColumn(),
		},
		Cells: api.Row(func(c *resourcev1.ResourceClaim, now time.Time) []any {
			return []any{c.Name, claimState(c), api.Age(c.CreationTimestamp, now)}
		}),
	}, func(c *resourcev1.ResourceClaim) *resourcev1.ResourceClaimSpec { return &c.Spec },
		func(c *resourcev1.ResourceClaim) *resourcev1.ResourceClaimStatus { return &c.Status })
	k.SpecOf = nil // the spec never changes
	return k
}

func claimState(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	if c.Status.Allocation != nil {
		states = append(states, "allocated")
	} else if c.DeletionTimestamp == nil {
		states = append(states, "pending")
	}
	if len(c.Status.ReservedFor) > 0 {
		states = append(states, "reserved")
	}
	return strings.Join(states, ",")
}

// ResourceClaimTemplate is the kind of what claims are made of for each pod.
func ResourceClaimTemplate() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Version: "v1", Kind: "ResourceClaimTemplate",
		Resource: "resourceclaimtemplates", Singular: "resourceclaimtemplate",
		Namespaced:          true,
		Verbs:               api.AllVerbs(),
		DeleteAnswersObject: true,
		New:                 func() api.Object { return &resourcev1.ResourceClaimTemplate{} },
		Default:             api.On(func(t *resourcev1.ResourceClaimTemplate) { defaultClaim(&t.Spec.Spec) }),
		Validate: api.Check(func(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
			return validateClaim(&t.Spec.Spec, field.NewPath("spec", "spec"))
		}),
		ValidateUpdate: api.CheckPair(func(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
			return validation.ValidateImmutableField(t.Spec, old.Spec, field.NewPath("spec"))
		}),
		Columns: []metav1.TableColumnDefinition{api.NameColumn(), api.AgeColumn()},
		Cells: api.Row(func(t *resourcev1.ResourceClaimTemplate, now time.Time) []any {
			return []any{t.Name, api.Age(t.CreationTimestamp, now)}
		}),
	}
}

// ResourceSlice is the kind of what devices there are.
func ResourceSlice() *api.Kind {
	doc := resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	return api.WithSpec(&api.Kind{
		Group: resourcev1.GroupName, Version: "v1", Kind: "ResourceSlice",
		Resource: "resourceslices", Singular: "resourceslice",
		Verbs:               api.AllVerbs(),
		DeleteAnswersObject: true,
		New:                 func() api.Object { return &resourcev1.ResourceSlice{} },
		Default: api.On(func(s *resourcev1.ResourceSlice) {
			for i := range s.Spec.Devices {
				for j := range s.Spec.Devices[i].Taints {
					if t := &s.Spec.Devices[i].Taints[j]; t.TimeAdded == nil && !s.CreationTimestamp.IsZero() {
						t.TimeAdded = s.CreationTimestamp.DeepCopy()
					}
				}
			}
		}),
		Validate:       api.Check(validateSlice),
		ValidateUpdate: api.CheckPair(validateSliceUpdate),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Node", doc["nodeName"]),
			api.TextColumn("Driver", doc["driver"]),
			api.TextColumn("Pool", doc["pool"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(s *resourcev1.ResourceSlice, now time.Time) []any {
			return []any{s.Name, nodeName(s), s.Spec.Driver, s.Spec.Pool.Name, api.Age(s.CreationTimestamp, now)}
		}),
		FieldNames: []string{"spec.nodeName", "spec.driver"},
		Fields: api.Of(func(s *resourcev1.ResourceSlice) map[string]string {
			return map[string]string{"spec.nodeName": nodeName(s), "spec.driver": s.Spec.Driver}
		}),
	}, func(s *resourcev1.ResourceSlice) any { return &s.Spec })
}

func nodeName(s *resourcev1.ResourceSlice) string {
	if s.Spec.NodeName == nil {
		return ""
	}
	return *s.Spec.NodeName
}

func defaultClaim(s *resourcev1.ResourceClaimSpec) {
	mode := func(m *resourcev1.DeviceAllocationMode, count *int64) {
		if *m == "" {
			*m = resourcev1.DeviceAllocationModeExactCount
		}
		if *m == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
	}
	tolerations := func(all []resourcev1.DeviceToleration) {
		for i := range all {
			if all[i].Operator == "" {
				all[i].Operator = resourcev1.DeviceTolerationOpEqual
			}
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			mode(&r.Exactly.AllocationMode, &r.Exactly.Count)
			tolerations(r.Exactly.Tolerations)
		}
		for j := range r.FirstAvailable {
			mode(&r.FirstAvailable[j].AllocationMode, &r.FirstAvailable[j].Count)
			tolerations(r.FirstAvailable[j].Tolerations)
		}
	}
}
