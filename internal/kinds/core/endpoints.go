package core

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// maxShown is how many endpoints a table names.
const maxShown = 3

// Endpoints is the kind of endpoints, the older form of endpoint slices.
func Endpoints() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Endpoints",
		Resource: "endpoints", Singular: "endpoints",
		Deprecated:     "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
		Warn:           api.Warn(warnEndpoints),
		CreateOnUpdate: true,
		ShortNames:     []string{"ep"},
		Namespaced:     true,
		Verbs:          allVerbs(),
		New:            func() api.Object { return &corev1.Endpoints{} },
		Default: api.On(func(e *corev1.Endpoints) {
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					setText(&e.Subsets[i].Ports[j].Protocol, corev1.ProtocolTCP)
				}
			}
		}),
		ValidateCreate: api.Check(func(e *corev1.Endpoints) field.ErrorList { return validateSubsets(e.Subsets) }),
		Validate:       api.Check(validateEndpoints),
		ValidateUpdate: api.CheckPair(func(e, old *corev1.Endpoints) field.ErrorList {
			if equality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
				return nil // what was once allowed may stay
			}
			return validateSubsets(e.Subsets)
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Endpoints", corev1.Endpoints{}.SwaggerDoc()["subsets"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(e *corev1.Endpoints, now time.Time) []any {
			return []any{e.Name, endpointList(e.Subsets), api.Age(e.CreationTimestamp, now)}
		}),
	}
}

// endpointList names the first addresses, each with each port.
func endpointList(subsets []corev1.EndpointSubset) string {
	if len(subsets) == 0 {
		return api.CellNone
	}
	var all []string
	for i := range subsets {
		s := &subsets[i]
		for _, a := range s.Addresses {
			if len(s.Ports) == 0 {
				all = append(all, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				all = append(all, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	if len(all) > maxShown {
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:maxShown], ","), len(all)-maxShown)
	}
	return strings.Join(all, ",")
}

func validateEndpoints(e *corev1.Endpoints) field.ErrorList {
	at, ok := e.Annotations[corev1.EndpointsLastChangeTriggerTime]
	if !ok {
		return nil
	}
	if _, err := time.Parse(time.RFC3339Nano, at); err != nil {
		return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.EndpointsLastChangeTriggerTime), at, err.Error())}
	}
	return nil
}

func validateSubsets(subsets []corev1.EndpointSubset) field.ErrorList {
	var errs field.ErrorList
	for i := range subsets {
		s, path := &subsets[i], field.NewPath("subsets").Index(i)
		if len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(path, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, validateEndpoint(&s.Addresses[j], path.Child("addresses").Index(j))...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, validateEndpoint(&s.NotReadyAddresses[j], path.Child("notReadyAddresses").Index(j))...)
		}
		for j := range s.Ports {
			errs = append(errs, validateEndpointPort(&s.Ports[j], len(s.Ports) > 1, path.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateEndpoint(a *corev1.EndpointAddress, path *field.Path) field.ErrorList {
	v := &serviceCheck{}
	if errs := utilvalidation.IsValidIPForLegacyField(path.Child("ip"), a.IP, false, nil); len(errs) > 0 {
		v.add(errs...)
	} else {
		v.outside(a.IP, path.Child("ip"))
	}
	if a.Hostname != "" {
		for _, msg := range utilvalidation.IsDNS1123Label(a.Hostname) {
			v.invalid(path.Child("hostname"), a.Hostname, msg)
		}
	}
	if a.NodeName != nil {
		for _, msg := range validation.NameIsDNSSubdomain(*a.NodeName, false) {
			v.invalid(path.Child("nodeName"), *a.NodeName, msg)
		}
	}
	return v.errs
}

func validateEndpointPort(p *corev1.EndpointPort, named bool, path *field.Path) field.ErrorList {
	v := &serviceCheck{}
	if named && p.Name == "" {
		v.add(field.Required(path.Child("name"), ""))
	} else if p.Name != "" {
		for _, msg := range utilvalidation.IsDNS1123Label(p.Name) {
			v.invalid(path.Child("name"), p.Name, msg)
		}
	}
	for _, msg := range utilvalidation.IsValidPortNum(int(p.Port)) {
		v.invalid(path.Child("port"), p.Port, msg)
	}
	v.protocol(p.Protocol, path.Child("protocol"))
	if p.AppProtocol != nil {
		for _, msg := range utilvalidation.IsQualifiedName(*p.AppProtocol) {
			v.invalid(path.Child("appProtocol"), *p.AppProtocol, msg)
		}
	}
	return v.errs
}
