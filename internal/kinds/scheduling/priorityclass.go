package scheduling

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	// HighestUserPriority is the highest value of a class that users may make.
	HighestUserPriority = 1000000000
	// SystemPrefix begins the names of the built-in classes.
	SystemPrefix = "system-"
)

// BuiltIn are the classes that every cluster has, as they are made at bootstrap.
func BuiltIn() []*schedulingv1.PriorityClass {
	class := func(name string, value int32, text string) *schedulingv1.PriorityClass {
		c := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: text}
		defaultClass(c)
		return c
	}
	return []*schedulingv1.PriorityClass{
		class("system-cluster-critical", 2*HighestUserPriority,
			"Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
		class("system-node-critical", 2*HighestUserPriority+1000,
			"Used for system critical pods that must not be moved from their current node."),
	}
}

// PriorityClass is the kind of priority classes.
func PriorityClass() *api.Kind {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return &api.Kind{
		Group: schedulingv1.GroupName, Version: "v1", Kind: "PriorityClass",
		Resource: "priorityclasses", Singular: "priorityclass",
		ShortNames:     []string{"pc"},
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &schedulingv1.PriorityClass{} },
		Default:        api.On(defaultClass),
		SpecOf:         func(api.Object) any { return nil }, // the generation stays 1
		Validate:       api.Check(validateClass),
		ValidateUpdate: api.CheckPair(validateClassUpdate),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.NumberColumn("Value", doc["value"]),
			{Name: "Global-Default", Type: "boolean", Description: doc["globalDefault"]},
			api.AgeColumn(),
			api.TextColumn("PreemptionPolicy", doc["preemptionPolicy"]),
		},
		Cells: api.Row(func(c *schedulingv1.PriorityClass, now time.Time) []any {
			policy := corev1.PreemptLowerPriority
			if c.PreemptionPolicy != nil {
				policy = *c.PreemptionPolicy
			}
			return []any{c.Name, int64(c.Value), c.GlobalDefault, api.Age(c.CreationTimestamp, now), string(policy)}
		}),
	}
}

func defaultClass(c *schedulingv1.PriorityClass) {
	api.SetDefault(&c.PreemptionPolicy, corev1.PreemptLowerPriority)
}

func validateClass(c *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(c.Name, SystemPrefix) {
		if !isBuiltIn(c) {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), fmt.Sprintf(
				"priority class names with '%s' prefix are reserved for system use only. error: %s is not a known system priority class", SystemPrefix, c.Name)))
		}
	} else if c.Value > HighestUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUserPriority)))
	}
	policies := []corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever}
	switch p := c.PreemptionPolicy; {
	case p == nil || *p == corev1.PreemptLowerPriority || *p == corev1.PreemptNever:
	case *p == "":
		errs = append(errs, field.Required(field.NewPath("preemptionPolicy"), ""))
	default:
		errs = append(errs, field.NotSupported(field.NewPath("preemptionPolicy"), *p, policies))
	}
	return errs
}

// isBuiltIn reports whether a class is what the server itself makes.
func isBuiltIn(c *schedulingv1.PriorityClass) bool {
	for _, b := range BuiltIn() {
		if c.Name == b.Name {
			return c.Value == b.Value && !c.GlobalDefault
		}
	}
	return false
}

func validateClassUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if c.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, validation.ValidateImmutableField(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
