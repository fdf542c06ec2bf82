package storage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	maxDriverName    = 63
	minTokenSeconds  = 10 * 60
	maxTokenSeconds  = 1 << 32
	minUpdateSeconds = 10
	unset            = "<unset>"
)

// invalid makes an error of each message.
func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

// CSIDriver is the kind of storage drivers.
func CSIDriver() *api.Kind {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: storagev1.GroupName, Version: "v1", Kind: "CSIDriver",
		Resource: "csidrivers", Singular: "csidriver",
		NeedsRevision: true,
		Verbs:         api.AllVerbs(),
		New:           func() api.Object { return &storagev1.CSIDriver{} },
		Default:       api.On(defaultDriver),
		Validate: api.Check(func(d *storagev1.CSIDriver) field.ErrorList {
			return append(validateDriverName(d.Name, field.NewPath("name")), validateDriver(&d.Spec, field.NewPath("spec"))...)
		}),
		ValidateUpdate: api.CheckPair(validateDriverUpdate),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			{Name: "AttachRequired", Type: "boolean", Description: doc["attachRequired"]},
			{Name: "PodInfoOnMount", Type: "boolean", Description: doc["podInfoOnMount"]},
			{Name: "StorageCapacity", Type: "boolean", Description: doc["storageCapacity"]},
			api.TextColumn("TokenRequests", doc["tokenRequests"]),
			{Name: "RequiresRepublish", Type: "boolean", Description: doc["requiresRepublish"]},
			api.TextColumn("Modes", doc["volumeLifecycleModes"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(d *storagev1.CSIDriver, now time.Time) []any {
			s := &d.Spec
			var modes, audiences []string
			for _, m := range s.VolumeLifecycleModes {
				modes = append(modes, string(m))
			}
			for _, t := range s.TokenRequests {
				audiences = append(audiences, t.Audience)
			}
			return []any{
				d.Name, isTrue(s.AttachRequired, true), isTrue(s.PodInfoOnMount, false), isTrue(s.StorageCapacity, false),
				orUnset(audiences), isTrue(s.RequiresRepublish, false), orNone(modes), api.Age(d.CreationTimestamp, now),
			}
		}),
	}
}

func isTrue(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

func orUnset(all []string) string {
	if len(all) == 0 {
		return unset
	}
	return strings.Join(all, ",")
}

func orNone(all []string) string {
	if len(all) == 0 {
		return api.CellNone
	}
	return strings.Join(all, ",")
}

func defaultDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	api.SetDefault(&s.AttachRequired, true)
	api.SetDefault(&s.PodInfoOnMount, false)
	api.SetDefault(&s.StorageCapacity, false)
	api.SetDefault(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	api.SetDefault(&s.RequiresRepublish, false)
	api.SetDefault(&s.SELinuxMount, false)
}

func validateDriverName(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > maxDriverName {
		errs = append(errs, field.TooLong(at, "", maxDriverName))
	}
	return append(errs, invalid(at, name, utilvalidation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

func validateDriver(s *storagev1.CSIDriverSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		is   *bool
	}{{"attachRequired", s.AttachRequired}, {"podInfoOnMount", s.PodInfoOnMount}, {"storageCapacity", s.StorageCapacity}} {
		if f.is == nil {
			errs = append(errs, field.Required(at.Child(f.name), ""))
		}
	}
	policies := []storagev1.FSGroupPolicy{storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy}
	if s.FSGroupPolicy != nil && !slices.Contains(policies, *s.FSGroupPolicy) {
		errs = append(errs, field.NotSupported(at.Child("fsGroupPolicy"), *s.FSGroupPolicy, policies))
	}
	audiences := map[string]bool{}
	for i, t := range s.TokenRequests {
		token := at.Child("tokenRequests").Index(i)
		if audiences[t.Audience] {
			errs = append(errs, field.Duplicate(token.Child("audience"), t.Audience))
		}
		audiences[t.Audience] = true
		if t.ExpirationSeconds == nil {
			continue
		}
		if *t.ExpirationSeconds < minTokenSeconds {
			errs = append(errs, field.Invalid(token.Child("expirationSeconds"), *t.ExpirationSeconds, "may not specify a duration less than 10 minutes"))
		}
		if *t.ExpirationSeconds > maxTokenSeconds {
			errs = append(errs, field.Invalid(token.Child("expirationSeconds"), *t.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	modes := []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral, storagev1.VolumeLifecyclePersistent}
	for _, m := range s.VolumeLifecycleModes {
		if !slices.Contains(modes, m) {
			errs = append(errs, field.NotSupported(at.Child("volumeLifecycleModes"), m, modes))
		}
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < minUpdateSeconds {
		errs = append(errs, field.Invalid(at.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds"))
	}
	return errs
}

func validateDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	at := field.NewPath("spec")
	errs := validation.ValidateImmutableField(d.Spec.AttachRequired, old.Spec.AttachRequired, at.Child("attachedRequired"))
	return append(errs, validation.ValidateImmutableField(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, at.Child("volumeLifecycleModes"))...)
}

// CSINode is the kind of what drivers say of a node.
func CSINode() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Version: "v1", Kind: "CSINode",
		Resource: "csinodes", Singular: "csinode",
		NeedsRevision:  true,
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &storagev1.CSINode{} },
		Validate:       api.Check(validateNode),
		ValidateUpdate: api.CheckPair(validateNodeUpdate),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Drivers", "How many drivers are on the node."),
			api.AgeColumn(),
		},
		Cells: api.Row(func(n *storagev1.CSINode, now time.Time) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), api.Age(n.CreationTimestamp, now)}
		}),
	}
}

func validateNode(n *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, d := range n.Spec.Drivers {
		at := field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, validateDriverName(d.Name, at.Child("name"))...)
		if d.NodeID == "" {
			errs = append(errs, field.Required(at.Child("nodeID"), d.NodeID))
		}
		if len(d.NodeID) > 192 {
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", 192)))
		}
		if d.Allocatable != nil && d.Allocatable.Count != nil && *d.Allocatable.Count < 0 {
			errs = append(errs, field.Invalid(at.Child("allocatable", "count"), *d.Allocatable.Count, "must be greater than or equal to 0"))
		}
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
		keys := map[string]bool{}
		for j, k := range d.TopologyKeys {
			if k == "" {
				errs = append(errs, field.Required(at.Child("topologyKeys"), k))
			}
			if keys[k] {
				errs = append(errs, field.Duplicate(at.Child("topologyKeys").Index(j), k))
			}
			keys[k] = true
			errs = append(errs, invalid(at.Child("topologyKeys"), k, utilvalidation.IsQualifiedName(k))...)
		}
	}
	return errs
}

// validateNodeUpdate lets drivers come and go, and what a node may attach
// change.
func validateNodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	for _, was := range old.Spec.Drivers {
		for _, is := range n.Spec.Drivers {
			if is.Name == was.Name && (is.NodeID != was.NodeID || !slices.Equal(is.TopologyKeys, was.TopologyKeys)) {
				errs = append(errs, field.Invalid(field.NewPath("CSINodeDriver"), is, "field is immutable"))
			}
		}
	}
	return errs
}
