package resource

import (
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of claims and slices.
const (
	maxSelectors  = 32
	maxRequests   = 32
	maxSubs       = 8
	maxDevices    = 128
	maxReserved   = 256
	maxDriverName = 63
)

// invalid makes an error of each message.
func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

func validateClass(c *resourcev1.DeviceClass) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateSelectors(c.Spec.Selectors, at.Child("selectors"))
	for i := range c.Spec.Config {
		errs = append(errs, validateConfiguration(&c.Spec.Config[i].DeviceConfiguration, at.Child("config").Index(i))...)
	}
	if n := c.Spec.ExtendedResourceName; n != nil {
		errs = append(errs, invalid(at.Child("extendedResourceName"), *n, utilvalidation.IsQualifiedName(*n))...)
	}
	return errs
}

func validateSelectors(all []resourcev1.DeviceSelector, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(all) > maxSelectors {
		errs = append(errs, field.TooMany(at, len(all), maxSelectors))
	}
	for i, s := range all {
		if s.CEL == nil {
			errs = append(errs, field.Required(at.Index(i).Child("cel"), ""))
		} else if strings.TrimSpace(s.CEL.Expression) == "" {
			errs = append(errs, field.Required(at.Index(i).Child("cel", "expression"), ""))
		}
	}
	return errs
}

func validateConfiguration(c *resourcev1.DeviceConfiguration, at *field.Path) field.ErrorList {
	if c.Opaque == nil {
		return field.ErrorList{field.Required(at.Child("opaque"), "")}
	}
	errs := validateDriver(c.Opaque.Driver, at.Child("opaque", "driver"))
	if len(c.Opaque.Parameters.Raw) == 0 {
		errs = append(errs, field.Required(at.Child("opaque", "parameters"), ""))
	}
	return errs
}

func validateDriver(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > maxDriverName {
		errs = append(errs, field.TooLong(at, "", maxDriverName))
	}
	return append(errs, invalid(at, name, utilvalidation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

func validateLabel(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return invalid(at, name, utilvalidation.IsDNS1123Label(name))
}

func validateClaim(s *resourcev1.ResourceClaimSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	devices, seen := at.Child("devices"), map[string]bool{}
	if len(s.Devices.Requests) > maxRequests {
		errs = append(errs, field.TooMany(devices.Child("requests"), len(s.Devices.Requests), maxRequests))
	}
	for i := range s.Devices.Requests {
		r, one := &s.Devices.Requests[i], devices.Child("requests").Index(i)
		errs = append(errs, validateLabel(r.Name, one.Child("name"))...)
		if r.Name != "" && seen[r.Name] {
			errs = append(errs, field.Duplicate(one.Child("name"), r.Name))
		}
		seen[r.Name] = true
		errs = append(errs, validateRequest(r, one)...)
		for _, sub := range r.FirstAvailable {
			seen[r.Name+"/"+sub.Name] = true
		}
	}
	for i, c := range s.Devices.Constraints {
		one := devices.Child("constraints").Index(i)
		errs = append(errs, validateNamed(c.Requests, seen, one.Child("requests"))...)
		if c.MatchAttribute == nil && c.DistinctAttribute == nil {
			errs = append(errs, field.Required(one.Child("matchAttribute"), ""))
		}
	}
	for i := range s.Devices.Config {
		one := devices.Child("config").Index(i)
		errs = append(errs, validateNamed(s.Devices.Config[i].Requests, seen, one.Child("requests"))...)
		errs = append(errs, validateConfiguration(&s.Devices.Config[i].DeviceConfiguration, one)...)
	}
	return errs
}

// validateNamed checks that the requests named are there.
func validateNamed(names []string, known map[string]bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, n := range names {
		if !known[n] {
			errs = append(errs, field.Invalid(at.Index(i), n, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
		if slices.Contains(names[:i], n) {
			errs = append(errs, field.Duplicate(at.Index(i), n))
		}
	}
	return errs
}

func validateRequest(r *resourcev1.DeviceRequest, at *field.Path) field.ErrorList {
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return field.ErrorList{field.Required(at, "exactly one of `exactly` or `firstAvailable` is required")}
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return field.ErrorList{field.Invalid(at, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set")}
	case r.Exactly != nil:
		e := r.Exactly
		return validateWish(e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, at.Child("exactly"))
	}
	var errs field.ErrorList
	if len(r.FirstAvailable) > maxSubs {
		errs = append(errs, field.TooMany(at.Child("firstAvailable"), len(r.FirstAvailable), maxSubs))
	}
	seen := map[string]bool{}
	for i := range r.FirstAvailable {
		s, one := &r.FirstAvailable[i], at.Child("firstAvailable").Index(i)
		errs = append(errs, validateLabel(s.Name, one.Child("name"))...)
		if seen[s.Name] {
			errs = append(errs, field.Duplicate(one.Child("name"), s.Name))
		}
		seen[s.Name] = true
		errs = append(errs, validateWish(s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, one)...)
	}
	return errs
}

// validateWish checks which devices a request asks for, and how many.
func validateWish(class string, selectors []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if class == "" {
		errs = append(errs, field.Required(at.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, invalid(at.Child("deviceClassName"), class, validation.NameIsDNSSubdomain(class, false))...)
	}
	errs = append(errs, validateSelectors(selectors, at.Child("selectors"))...)
	switch mode {
	case resourcev1.DeviceAllocationModeAll:
		if count != 0 {
			errs = append(errs, field.Invalid(at.Child("count"), count, "must not be specified when allocationMode is 'All'"))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if count <= 0 {
			errs = append(errs, field.Invalid(at.Child("count"), count, "must be greater than zero"))
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("allocationMode"), mode, []resourcev1.DeviceAllocationMode{
			resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount,
		}))
	}
	return errs
}

func validateClaimStatus(c, _ *resourcev1.ResourceClaim) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("status", "reservedFor")
	if len(c.Status.ReservedFor) > maxReserved {
		errs = append(errs, field.TooMany(at, len(c.Status.ReservedFor), maxReserved))
	}
	if len(c.Status.ReservedFor) > 0 && c.Status.Allocation == nil {
		errs = append(errs, field.Forbidden(at, "may not be specified when `allocated` is not set"))
	}
	seen := map[string]bool{}
	for i, r := range c.Status.ReservedFor {
		one := at.Index(i)
		for _, f := range []struct{ name, is string }{{"resource", r.Resource}, {"name", r.Name}, {"uid", string(r.UID)}} {
			if f.is == "" {
				errs = append(errs, field.Required(one.Child(f.name), ""))
			}
		}
		if seen[string(r.UID)] {
			errs = append(errs, field.Duplicate(one.Child("uid"), r.UID))
		}
		seen[string(r.UID)] = true
	}
	return errs
}

func validateSlice(s *resourcev1.ResourceSlice) field.ErrorList {
	p, at := &s.Spec, field.NewPath("spec")
	errs := validateDriver(p.Driver, at.Child("driver"))
	pool := at.Child("pool")
	if p.Pool.Name == "" {
		errs = append(errs, field.Required(pool.Child("name"), ""))
	} else {
		for _, part := range strings.Split(p.Pool.Name, "/") {
			errs = append(errs, invalid(pool.Child("name"), part, utilvalidation.IsDNS1123Subdomain(part))...)
		}
	}
	if p.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(pool.Child("resourceSliceCount"), p.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	if p.Pool.Generation < 0 {
		errs = append(errs, field.Invalid(pool.Child("generation"), p.Pool.Generation, "must be greater than or equal to zero"))
	}
	places := 0
	for _, set := range []bool{p.NodeName != nil, p.NodeSelector != nil, p.AllNodes != nil && *p.AllNodes, p.PerDeviceNodeSelection != nil && *p.PerDeviceNodeSelection} {
		if set {
			places++
		}
	}
	const which = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	if places == 0 {
		errs = append(errs, field.Required(at, which))
	} else if places > 1 {
		errs = append(errs, field.Invalid(at, nil, which+", but multiple fields are set"))
	}
	if p.NodeName != nil {
		errs = append(errs, invalid(at.Child("nodeName"), *p.NodeName, validation.NameIsDNSSubdomain(*p.NodeName, false))...)
	}
	if len(p.Devices) > maxDevices {
		errs = append(errs, field.TooMany(at.Child("devices"), len(p.Devices), maxDevices))
	}
	seen := map[string]bool{}
	for i := range p.Devices {
		d, one := &p.Devices[i], at.Child("devices").Index(i)
		errs = append(errs, validateLabel(d.Name, one.Child("name"))...)
		if d.Name != "" && seen[d.Name] {
			errs = append(errs, field.Duplicate(one.Child("name"), d.Name))
		}
		seen[d.Name] = true
		errs = append(errs, validateTaints(d.Taints, one.Child("taints"))...)
	}
	return errs
}

func validateTaints(all []resourcev1.DeviceTaint, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	effects := []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}
	for i, t := range all {
		one := at.Index(i)
		errs = append(errs, metavalidation.ValidateLabelName(t.Key, one.Child("key"))...)
		errs = append(errs, invalid(one.Child("value"), t.Value, utilvalidation.IsValidLabelValue(t.Value))...)
		if t.Effect == "" {
			errs = append(errs, field.Required(one.Child("effect"), ""))
		} else if !slices.Contains(effects, t.Effect) {
			errs = append(errs, field.NotSupported(one.Child("effect"), t.Effect, effects))
		}
	}
	return errs
}

func validateSliceUpdate(s, old *resourcev1.ResourceSlice) field.ErrorList {
	at := field.NewPath("spec")
	var errs field.ErrorList
	for _, f := range []struct {
		at      *field.Path
		is, was any
	}{
		{at.Child("nodeName"), s.Spec.NodeName, old.Spec.NodeName},
		{at.Child("driver"), s.Spec.Driver, old.Spec.Driver},
		{at.Child("pool", "name"), s.Spec.Pool.Name, old.Spec.Pool.Name},
	} {
		errs = append(errs, validation.ValidateImmutableField(f.is, f.was, f.at)...)
	}
	return errs
}
