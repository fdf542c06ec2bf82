package networking

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

const classAnnotation = "kubernetes.io/ingress.class"

func warnIngress(i, old *networkingv1.Ingress) []string {
	if _, set := i.Annotations[classAnnotation]; !set || old != nil || i.Spec.IngressClassName != nil {
		return nil
	}
	return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", classAnnotation)}
}

func warnPolicy(p, old *networkingv1.NetworkPolicy) []string {
	var out []string
	if old == nil {
		out = append(out, "NetworkPolicy is kept, but not enforced yet: it restricts no traffic")
	}
	peers := func(at *field.Path, list []networkingv1.NetworkPolicyPeer) {
		for i, peer := range list {
			if peer.IPBlock == nil {
				continue
			}
			at := at.Index(i).Child("ipBlock")
			out = append(out, podspec.RangeWarnings(at.Child("cidr"), peer.IPBlock.CIDR)...)
			for j, cidr := range peer.IPBlock.Except {
				out = append(out, podspec.RangeWarnings(at.Child("except").Index(j), cidr)...)
			}
		}
	}
	for i, rule := range p.Spec.Ingress {
		peers(field.NewPath("spec", "ingress").Index(i).Child("from"), rule.From)
	}
	for i, rule := range p.Spec.Egress {
		peers(field.NewPath("spec", "egress").Index(i).Child("to"), rule.To)
	}
	return out
}
