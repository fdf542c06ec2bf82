package bootstrap

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/kinds/apiregistration"
	"github.com/wherry-project/wherry/internal/kinds/scheduling"
)

// fixtures are what clients look for besides the namespaces and roles: the
// classes of priority that every cluster has, the groups that are served, and
// the range of services.
func fixtures(cfg Config) []api.Object {
	var all []api.Object
	for _, c := range scheduling.BuiltIn() {
		all = append(all, c)
	}
	seen := map[string]bool{}
	for _, k := range cfg.Kinds.All() {
		if seen[k.APIVersion()] {
			continue
		}
		seen[k.APIVersion()] = true
		all = append(all, apiregistration.Local(k.Group, k.Version, kinds.Priority(k.Group), kinds.VersionPriority(k.Group, k.Version)))
	}
	return append(all, &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{cfg.Alloc.ServiceRange().String()}},
	})
}
