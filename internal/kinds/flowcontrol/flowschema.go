package flowcontrol

import (
	"fmt"
	"slices"
	"strings"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	exempt            = "exempt"
	defaultPrecedence = 1000
	maxPrecedence     = 10000
	wildcard          = "*"
)

// FlowSchema is the kind of rules that put requests into priority levels.
func FlowSchema() *api.Kind {
	doc := flowv1.FlowSchemaSpec{}.SwaggerDoc()
	return api.WithStatus(&api.Kind{
		Group: flowv1.GroupName, Version: "v1", Kind: "FlowSchema",
		Resource: "flowschemas", Singular: "flowschema",
		Verbs: api.AllVerbs(),
		New:   func() api.Object { return &flowv1.FlowSchema{} },
		Default: api.On(func(f *flowv1.FlowSchema) {
			if f.Spec.MatchingPrecedence == 0 {
				f.Spec.MatchingPrecedence = defaultPrecedence
			}
		}),
		Validate: api.Check(validateFlowSchema),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("PriorityLevel", doc["priorityLevelConfiguration"]),
			api.NumberColumn("MatchingPrecedence", doc["matchingPrecedence"]),
			api.TextColumn("DistinguisherMethod", flowv1.FlowDistinguisherMethod{}.SwaggerDoc()["type"]),
			api.AgeColumn(),
			api.TextColumn("MissingPL", "Whether the priority level that is named is not there."),
		},
		Cells: api.Row(func(f *flowv1.FlowSchema, now time.Time) []any {
			method, missing := api.CellNone, "?"
			if f.Spec.DistinguisherMethod != nil {
				method = string(f.Spec.DistinguisherMethod.Type)
			}
			for _, c := range f.Status.Conditions {
				if c.Type == flowv1.FlowSchemaConditionDangling {
					missing = string(c.Status)
				}
			}
			return []any{
				f.Name, f.Spec.PriorityLevelConfiguration.Name, int64(f.Spec.MatchingPrecedence), method,
				api.Age(f.CreationTimestamp, now), missing,
			}
		}),
	}, func(f *flowv1.FlowSchema) *flowv1.FlowSchemaSpec { return &f.Spec },
		func(f *flowv1.FlowSchema) *flowv1.FlowSchemaStatus { return &f.Status })
}

// invalid makes an error of each message.
func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

func validateFlowSchema(f *flowv1.FlowSchema) field.ErrorList {
	var errs field.ErrorList
	s, at := &f.Spec, field.NewPath("spec")
	order := at.Child("matchingPrecedence")
	if s.MatchingPrecedence <= 0 {
		errs = append(errs, field.Invalid(order, s.MatchingPrecedence, "must be a positive value"))
	}
	if s.MatchingPrecedence > maxPrecedence {
		errs = append(errs, field.Invalid(order, s.MatchingPrecedence, fmt.Sprintf("must not be greater than %v", maxPrecedence)))
	}
	if s.MatchingPrecedence == 1 && f.Name != exempt {
		errs = append(errs, field.Invalid(order, s.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	methods := []flowv1.FlowDistinguisherMethodType{flowv1.FlowDistinguisherMethodByNamespaceType, flowv1.FlowDistinguisherMethodByUserType}
	if m := s.DistinguisherMethod; m != nil && !slices.Contains(methods, m.Type) {
		errs = append(errs, field.NotSupported(at.Child("distinguisherMethod", "type"), m.Type, methods))
	}
	level := at.Child("priorityLevelConfiguration", "name")
	if name := s.PriorityLevelConfiguration.Name; name == "" {
		errs = append(errs, field.Required(level, "must reference a priority level"))
	} else {
		errs = append(errs, invalid(level, name, validation.NameIsDNSSubdomain(name, false))...)
	}
	for i := range s.Rules {
		errs = append(errs, validateRules(&s.Rules[i], at.Child("rules").Index(i))...)
	}
	return errs
}

func validateRules(r *flowv1.PolicyRulesWithSubjects, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(at.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateSubject(&r.Subjects[i], at.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(at, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateResourceRule(&r.ResourceRules[i], at.Child("resourceRules").Index(i))...)
	}
	for i, n := range r.NonResourceRules {
		one := at.Child("nonResourceRules").Index(i)
		errs = append(errs, validateVerbs(n.Verbs, one.Child("verbs"))...)
		errs = append(errs, validateSet(n.NonResourceURLs, one.Child("nonResourceURLs"), "nonResourceURLs must contain at least one value", "non-resource URLs")...)
	}
	return errs
}

func validateSubject(s *flowv1.Subject, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	known := false
	for _, k := range []struct {
		kind flowv1.SubjectKind
		name string
		set  bool
	}{
		{flowv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil},
		{flowv1.SubjectKindUser, "user", s.User != nil},
		{flowv1.SubjectKindGroup, "group", s.Group != nil},
	} {
		switch {
		case s.Kind == k.kind && !k.set:
			errs = append(errs, field.Required(at.Child(k.name), fmt.Sprintf("%s is required when subject kind is '%s'", k.name, k.kind)))
		case s.Kind != k.kind && k.set:
			errs = append(errs, field.Forbidden(at.Child(k.name), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", k.name, k.kind)))
		}
		known = known || s.Kind == k.kind
	}
	if !known {
		return append(errs, field.NotSupported(at.Child("kind"), s.Kind, []flowv1.SubjectKind{flowv1.SubjectKindGroup, flowv1.SubjectKindServiceAccount, flowv1.SubjectKindUser}))
	}
	if s.Kind == flowv1.SubjectKindUser && s.User != nil && s.User.Name == "" {
		errs = append(errs, field.Required(at.Child("user", "name"), ""))
	}
	if s.Kind == flowv1.SubjectKindGroup && s.Group != nil && s.Group.Name == "" {
		errs = append(errs, field.Required(at.Child("group", "name"), ""))
	}
	if a := s.ServiceAccount; s.Kind == flowv1.SubjectKindServiceAccount && a != nil {
		if a.Name == "" {
			errs = append(errs, field.Required(at.Child("serviceAccount", "name"), ""))
		} else if a.Name != wildcard {
			errs = append(errs, invalid(at.Child("serviceAccount", "name"), a.Name, validation.ValidateServiceAccountName(a.Name, false))...)
		}
		if a.Namespace == "" {
			errs = append(errs, field.Required(at.Child("serviceAccount", "namespace"), "must specify namespace for service account"))
		} else {
			errs = append(errs, invalid(at.Child("serviceAccount", "namespace"), a.Namespace, validation.ValidateNamespaceName(a.Namespace, false))...)
		}
	}
	return errs
}

func validateVerbs(verbs []string, at *field.Path) field.ErrorList {
	errs := validateSet(verbs, at, "verbs must contain at least one value", "verbs")
	known := []string{"connect", "create", "delete", "deletecollection", "get", "head", "list", "options", "patch", "post", "proxy", "put", "update", "watch"}
	for _, v := range verbs {
		if v != wildcard && !slices.Contains(known, strings.ToLower(v)) {
			errs = append(errs, field.NotSupported(at, v, known))
		}
	}
	return errs
}

// validateSet demands values, and that * stands alone.
func validateSet(values []string, at *field.Path, need, what string) field.ErrorList {
	if len(values) == 0 {
		return field.ErrorList{field.Required(at, need)}
	}
	if len(values) > 1 && slices.Contains(values, wildcard) {
		return field.ErrorList{field.Invalid(at, values, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

func validateResourceRule(r *flowv1.ResourcePolicyRule, at *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, at.Child("verbs"))
	errs = append(errs, validateSet(r.APIGroups, at.Child("apiGroups"), "resource rules must supply at least one api group", "api groups")...)
	errs = append(errs, validateSet(r.Resources, at.Child("resources"), "resource rules must supply at least one resource", "resources")...)
	namespaces := at.Child("namespaces")
	if len(r.Namespaces) == 0 {
		if !r.ClusterScope {
			errs = append(errs, field.Required(namespaces, "resource rules that are not cluster scoped must supply at least one namespace"))
		}
		return errs
	}
	if slices.Contains(r.Namespaces, wildcard) {
		return append(errs, validateSet(r.Namespaces, namespaces, "", "namespaces")...)
	}
	for i, n := range r.Namespaces {
		errs = append(errs, invalid(namespaces.Index(i), n, validation.ValidateNamespaceName(n, false))...)
	}
	return errs
}
