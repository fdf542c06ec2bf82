package discovery

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// shown is how many ports or endpoints a table's cell lists.
const shown = 3

// EndpointSlice is the kind of endpoint slices.
func EndpointSlice() *api.Kind {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return &api.Kind{
		Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice",
		Resource: "endpointslices", Singular: "endpointslice",
		Warn:       api.Warn(warnSlice),
		Namespaced: true,
		Verbs:      []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		New:        func() api.Object { return &discoveryv1.EndpointSlice{} },
		Default:    api.On(defaultSlice),
		SpecOf: api.Of(func(s *discoveryv1.EndpointSlice) any {
			return []any{s.Endpoints, s.Ports, s.AddressType, s.Labels}
		}),
		Validate: api.Check(validateSlice),
		ValidateUpdate: api.CheckPair(func(s, old *discoveryv1.EndpointSlice) field.ErrorList {
			return validation.ValidateImmutableField(s.AddressType, old.AddressType, field.NewPath("addressType"))
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("AddressType", doc["addressType"]),
			api.TextColumn("Ports", doc["ports"]),
			api.TextColumn("Endpoints", doc["endpoints"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(s *discoveryv1.EndpointSlice, now time.Time) []any {
			return []any{s.Name, string(s.AddressType), portsCell(s.Ports), endpointsCell(s.Endpoints), api.Age(s.CreationTimestamp, now)}
		}),
	}
}

func defaultSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		if s.Ports[i].Name == nil {
			name := ""
			s.Ports[i].Name = &name
		}
		if s.Ports[i].Protocol == nil {
			tcp := corev1.ProtocolTCP
			s.Ports[i].Protocol = &tcp
		}
	}
}

func portsCell(ports []discoveryv1.EndpointPort) string {
	if len(ports) == 0 {
		return "<unset>"
	}
	var out []string
	for _, p := range ports {
		text := "*"
		if p.Port != nil {
			text = fmt.Sprint(*p.Port)
		}
		if p.Name != nil && *p.Name != "" && p.Port == nil {
			text = *p.Name
		}
		out = append(out, text)
	}
	return firstOf(out)
}

func endpointsCell(endpoints []discoveryv1.Endpoint) string {
	var out []string
	for i := range endpoints {
		out = append(out, endpoints[i].Addresses...)
	}
	if len(out) == 0 {
		return "<unset>"
	}
	return firstOf(out)
}

// firstOf lists the first few and tells how many more there are.
func firstOf(all []string) string {
	if len(all) <= shown {
		return strings.Join(all, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(all[:shown], ","), len(all)-shown)
}
