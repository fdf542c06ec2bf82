package apiextensions

import (
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

const defaultPort = 443

// CustomResourceDefinition is the kind of definitions of custom resources. What
// they define is not served yet, and their status says so.
func CustomResourceDefinition() *api.Kind {
	k := api.WithStatus(&api.Kind{
		Group: apiextensionsv1.GroupName, Version: "v1", Kind: "CustomResourceDefinition",
		Resource: "customresourcedefinitions", Singular: "customresourcedefinition",
		ShortNames:     []string{"crd", "crds"},
		Categories:     []string{"api-extensions"},
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &apiextensionsv1.CustomResourceDefinition{} },
		Default:        api.On(defaultDefinition),
		Validate:       api.Check(validateDefinition),
		ValidateUpdate: api.CheckPair(validateDefinitionUpdate),
		NeedsRevision:  true,
	}, func(d *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionSpec {
		return &d.Spec
	},
		func(d *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionStatus {
			return &d.Status
		})
	k.OnCreate = api.On(firstStatus)
	return k
}

func defaultDefinition(d *apiextensionsv1.CustomResourceDefinition) {
	s := &d.Spec
	if s.Names.Singular == "" {
		s.Names.Singular = strings.ToLower(s.Names.Kind)
	}
	if s.Names.ListKind == "" && s.Names.Kind != "" {
		s.Names.ListKind = s.Names.Kind + "List"
	}
	if s.Conversion == nil {
		s.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	}
	if w := s.Conversion.Webhook; w != nil && w.ClientConfig != nil && w.ClientConfig.Service != nil {
		api.SetDefault(&w.ClientConfig.Service.Port, defaultPort)
	}
	// Clients expect lists, not null.
	if d.Status.Conditions == nil {
		d.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{}
	}
	if d.Status.StoredVersions == nil {
		d.Status.StoredVersions = []string{}
	}
}

// firstStatus accepts the names, and says that the resources are not there.
func firstStatus(d *apiextensionsv1.CustomResourceDefinition) {
	at := metav1.Time{Time: d.CreationTimestamp.Time}
	d.Status = apiextensionsv1.CustomResourceDefinitionStatus{
		Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{
			{
				Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: at,
				Reason: "NoConflicts", Message: "no conflicts found",
			},
			{
				Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, LastTransitionTime: at,
				Reason: "NotServed", Message: "custom resources are not served yet by this version: the definition is stored, its objects cannot be made",
			},
		},
		AcceptedNames: *d.Spec.Names.DeepCopy(),
	}
	for _, v := range d.Spec.Versions {
		if v.Storage {
			d.Status.StoredVersions = append(d.Status.StoredVersions, v.Name)
		}
	}
}
