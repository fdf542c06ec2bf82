package node

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// RuntimeClass is the kind of runtime classes.
func RuntimeClass() *api.Kind {
	return &api.Kind{
		Group: nodev1.GroupName, Version: "v1", Kind: "RuntimeClass",
		Resource: "runtimeclasses", Singular: "runtimeclass",
		Warn:           api.Warn(warnClass),
		CreateOnUpdate: true,
		NeedsRevision:  true,
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &nodev1.RuntimeClass{} },
		Default:        api.On(defaultTolerations),
		Validate: api.Check(func(c *nodev1.RuntimeClass) field.ErrorList {
			errs := validateHandler(c.Handler)
			errs = append(errs, validateOverhead(c.Overhead)...)
			return append(errs, validateScheduling(c.Scheduling)...)
		}),
		ValidateUpdate: api.CheckPair(func(c, old *nodev1.RuntimeClass) field.ErrorList {
			return validation.ValidateImmutableField(c.Handler, old.Handler, field.NewPath("handler"))
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Handler", nodev1.RuntimeClass{}.SwaggerDoc()["handler"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(c *nodev1.RuntimeClass, now time.Time) []any {
			return []any{c.Name, c.Handler, api.Age(c.CreationTimestamp, now)}
		}),
	}
}

func defaultTolerations(c *nodev1.RuntimeClass) {
	if c.Scheduling == nil {
		return
	}
	for i := range c.Scheduling.Tolerations {
		if t := &c.Scheduling.Tolerations[i]; t.Operator == "" {
			t.Operator = corev1.TolerationOpEqual
		}
	}
}

func validateHandler(handler string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range utilvalidation.IsDNS1123Label(handler) {
		errs = append(errs, field.Invalid(field.NewPath("handler"), handler, msg))
	}
	return errs
}

func validateOverhead(o *nodev1.Overhead) field.ErrorList {
	if o == nil {
		return nil
	}
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(o.PodFixed)) {
		errs = append(errs, podspec.ValidateQuantity(name, o.PodFixed[name], field.NewPath("overhead", "podFixed").Key(string(name)))...)
	}
	return errs
}

func validateScheduling(s *nodev1.Scheduling) field.ErrorList {
	if s == nil {
		return nil
	}
	at := field.NewPath("scheduling")
	errs := metavalidation.ValidateLabels(s.NodeSelector, at.Child("nodeSelector"))
	errs = append(errs, podspec.ValidateTolerations(s.Tolerations, at.Child("tolerations"))...)
	for i := range s.Tolerations {
		for j := range i {
			if s.Tolerations[i].MatchToleration(&s.Tolerations[j]) {
				errs = append(errs, field.Duplicate(at.Child("tolerations").Index(i), s.Tolerations[i]))
				break
			}
		}
	}
	return errs
}
