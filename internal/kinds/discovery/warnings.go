package discovery

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

// warnSlice spares the addresses that a controller writes; they are right.
func warnSlice(s, old *discoveryv1.EndpointSlice) []string {
	var out []string
	if old == nil && s.AddressType == discoveryv1.AddressTypeFQDN {
		out = append(out, "spec.addressType: FQDN endpoints are deprecated")
	}
	switch s.Labels[discoveryv1.LabelManagedBy] {
	case "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io":
		return out
	}
	for i, e := range s.Endpoints {
		for j, ip := range e.Addresses {
			out = append(out, podspec.AddressWarnings(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), ip)...)
		}
	}
	return out
}
