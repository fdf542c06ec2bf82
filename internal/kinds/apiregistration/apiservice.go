package apiregistration

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/wherry-project/wherry/internal/api"
)

const (
	group              = "apiregistration.k8s.io"
	defaultPort        = 443
	maxGroupPriority   = 20000
	maxVersionPriority = 1000
	// managedLabel marks the APIServices that the server makes.
	managedLabel = "kube-aggregator.kubernetes.io/automanaged"
)

// APIService is the kind of groups and versions that are served, by this server
// itself or by another.
func APIService() *api.Kind {
	return &api.Kind{
		Group: group, Version: "v1", Kind: "APIService",
		Resource: "apiservices", Singular: "apiservice",
		NeedsRevision: true,
		Categories:    []string{"api-extensions"},
		Verbs:         api.AllVerbs(),
		Subresources:  api.StatusOnly(),
		New:           func() api.Object { return &apiregv1.APIService{} },
		Default: api.On(func(s *apiregv1.APIService) {
			if s.Spec.Service != nil {
				api.SetDefault(&s.Spec.Service.Port, defaultPort)
			}
		}),
		OnCreate: api.On(func(s *apiregv1.APIService) {
			s.Status = apiregv1.APIServiceStatus{Conditions: []apiregv1.APIServiceCondition{available(s, s.CreationTimestamp)}}
		}),
		OnUpdate: api.OnPair(func(s, old *apiregv1.APIService) { s.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(s, old *apiregv1.APIService) {
			api.KeepMeta(s, old)
			s.Spec = *old.Spec.DeepCopy()
		}),
		ValidName: path.ValidatePathSegmentName,
		Validate:  api.Check(validateService),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Service", "The service that serves the group, or Local."),
			api.TextColumn("Available", "Whether the group can be used."),
			api.AgeColumn(),
		},
		Cells: api.Row(func(s *apiregv1.APIService, now time.Time) []any {
			service := "Local"
			if s.Spec.Service != nil {
				service = s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
			}
			state := "Unknown"
			for _, c := range s.Status.Conditions {
				if c.Type != apiregv1.Available {
					continue
				}
				if state = string(c.Status); c.Status != apiregv1.ConditionTrue {
					state = fmt.Sprintf("%s (%s)", c.Status, c.Reason)
				}
			}
			return []any{s.Name, service, state, api.Age(s.CreationTimestamp, now)}
		}),
	}
}

// available says whether a group can be used. Other servers are not asked yet.
func available(s *apiregv1.APIService, at metav1.Time) apiregv1.APIServiceCondition {
	c := apiregv1.APIServiceCondition{
		Type: apiregv1.Available, Status: apiregv1.ConditionTrue, LastTransitionTime: at,
		Reason: "Local", Message: "Local APIServices are always available",
	}
	if s.Spec.Service != nil {
		c.Status, c.Reason = apiregv1.ConditionFalse, "AggregationNotServed"
		c.Message = fmt.Sprintf("this server does not pass requests on to other API servers yet: %s/%s is not asked", s.Spec.Service.Namespace, s.Spec.Service.Name)
	}
	return c
}

// Local gives the APIService of a group and version that this server serves.
func Local(groupName, version string, groupPriority, versionPriority int32) *apiregv1.APIService {
	return &apiregv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: version + "." + groupName, Labels: map[string]string{managedLabel: "onstart"}},
		Spec:       apiregv1.APIServiceSpec{Group: groupName, Version: version, GroupPriorityMinimum: groupPriority, VersionPriority: versionPriority},
	}
}

func validateService(s *apiregv1.APIService) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("spec")
	if want := s.Spec.Version + "." + s.Spec.Group; s.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), s.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", want)))
	}
	if s.Spec.Group == "" && s.Spec.Version != "v1" {
		errs = append(errs, field.Required(at.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
	}
	if s.Spec.Group != "" {
		for _, msg := range validation.IsDNS1123Subdomain(s.Spec.Group) {
			errs = append(errs, field.Invalid(at.Child("group"), s.Spec.Group, msg))
		}
	}
	for _, msg := range validation.IsDNS1035Label(s.Spec.Version) {
		errs = append(errs, field.Invalid(at.Child("version"), s.Spec.Version, msg))
	}
	if p := s.Spec.GroupPriorityMinimum; p <= 0 || p > maxGroupPriority {
		errs = append(errs, field.Invalid(at.Child("groupPriorityMinimum"), p, "must be positive and less than 20000"))
	}
	if p := s.Spec.VersionPriority; p <= 0 || p > maxVersionPriority {
		errs = append(errs, field.Invalid(at.Child("versionPriority"), p, "must be positive and less than 1000"))
	}
	ref := s.Spec.Service
	if ref == nil {
		if n := len(s.Spec.CABundle); n > 0 {
			errs = append(errs, field.Invalid(at.Child("caBundle"), fmt.Sprintf("%d bytes", n), "local APIServices may not have a caBundle"))
		}
		if s.Spec.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), true, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	if ref.Namespace == "" {
		errs = append(errs, field.Required(at.Child("service", "namespace"), ""))
	}
	if ref.Name == "" {
		errs = append(errs, field.Required(at.Child("service", "name"), ""))
	}
	if ref.Port != nil {
		if bad := validation.IsValidPortNum(int(*ref.Port)); bad != nil {
			errs = append(errs, field.Invalid(at.Child("service", "port"), *ref.Port, "port is not valid: "+strings.Join(bad, ",")))
		}
	}
	if s.Spec.InsecureSkipTLSVerify && len(s.Spec.CABundle) > 0 {
		errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present"))
	}
	return errs
}
