package networking

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// NetworkPolicy is the kind of network policies.
func NetworkPolicy() *api.Kind {
	return api.WithSpec(&api.Kind{
		Group: networkingv1.GroupName, Version: "v1", Kind: "NetworkPolicy",
		Resource: "networkpolicies", Singular: "networkpolicy",
		Warn:       api.Warn(warnPolicy),
		ShortNames: []string{"netpol"},
		Namespaced: true,
		Verbs:      api.AllVerbs(),
		New:        func() api.Object { return &networkingv1.NetworkPolicy{} },
		Default:    api.On(defaultPolicy),
		Validate:   api.Check(validatePolicy),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Pod-Selector", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(p *networkingv1.NetworkPolicy, now time.Time) []any {
			return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), api.Age(p.CreationTimestamp, now)}
		}),
	}, func(p *networkingv1.NetworkPolicy) any { return &p.Spec })
}

func defaultPolicy(p *networkingv1.NetworkPolicy) {
	for i := range p.Spec.Ingress {
		defaultPorts(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		defaultPorts(p.Spec.Egress[i].Ports)
	}
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

func defaultPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		api.SetDefault(&ports[i].Protocol, corev1.ProtocolTCP)
	}
}

func validatePolicy(p *networkingv1.NetworkPolicy) field.ErrorList {
	s, at := &p.Spec, field.NewPath("spec")
	errs := validateSelector(&s.PodSelector, at.Child("podSelector"))
	for i, r := range s.Ingress {
		rule := at.Child("ingress").Index(i)
		errs = append(errs, validatePorts(r.Ports, rule.Child("ports"))...)
		errs = append(errs, validatePeers(r.From, rule.Child("from"))...)
	}
	for i, r := range s.Egress {
		rule := at.Child("egress").Index(i)
		errs = append(errs, validatePorts(r.Ports, rule.Child("ports"))...)
		errs = append(errs, validatePeers(r.To, rule.Child("to"))...)
	}
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress}
	if len(s.PolicyTypes) > len(types) {
		return append(errs, field.Invalid(at.Child("policyTypes"), s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range s.PolicyTypes {
		if !slices.Contains(types, t) {
			errs = append(errs, field.NotSupported(at.Child("policyTypes").Index(i), t, types))
		}
	}
	return errs
}

func validateSelector(s *metav1.LabelSelector, at *field.Path) field.ErrorList {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at)
}

func validatePorts(ports []networkingv1.NetworkPolicyPort, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range ports {
		errs = append(errs, validatePort(&ports[i], at.Index(i))...)
	}
	return errs
}

func validatePort(p *networkingv1.NetworkPolicyPort, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	protocols := []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
	if p.Protocol != nil && !slices.Contains(protocols, *p.Protocol) {
		errs = append(errs, field.NotSupported(at.Child("protocol"), *p.Protocol, protocols))
	}
	port, end := at.Child("port"), at.Child("endPort")
	switch {
	case p.Port == nil && p.EndPort != nil:
		errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
	case p.Port == nil:
	case p.Port.Type == intstr.Int:
		errs = append(errs, invalid(port, p.Port.IntVal, utilvalidation.IsValidPortNum(int(p.Port.IntVal)))...)
		if p.EndPort != nil {
			if *p.EndPort < p.Port.IntVal {
				errs = append(errs, field.Invalid(end, p.Port.IntVal, "must be greater than or equal to `port`"))
			}
			errs = append(errs, invalid(end, *p.EndPort, utilvalidation.IsValidPortNum(int(*p.EndPort)))...)
		}
	default:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, invalid(port, p.Port.StrVal, utilvalidation.IsValidPortName(p.Port.StrVal))...)
	}
	return errs
}

func validatePeers(peers []networkingv1.NetworkPolicyPeer, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range peers {
		peer := at.Index(i)
		if p.PodSelector != nil {
			errs = append(errs, validateSelector(p.PodSelector, peer.Child("podSelector"))...)
		}
		if p.NamespaceSelector != nil {
			errs = append(errs, validateSelector(p.NamespaceSelector, peer.Child("namespaceSelector"))...)
		}
		selects := p.PodSelector != nil || p.NamespaceSelector != nil
		if p.IPBlock != nil {
			errs = append(errs, validateBlock(p.IPBlock, peer.Child("ipBlock"))...)
			if selects {
				errs = append(errs, field.Forbidden(peer, "may not specify both ipBlock and another peer"))
			}
		} else if !selects {
			errs = append(errs, field.Required(peer, "must specify a peer"))
		}
	}
	return errs
}

func validateBlock(b *networkingv1.IPBlock, at *field.Path) field.ErrorList {
	cidr := at.Child("cidr")
	if b.CIDR == "" {
		return field.ErrorList{field.Required(cidr, "")}
	}
	errs := utilvalidation.IsValidCIDRForLegacyField(cidr, b.CIDR, false, nil)
	whole, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return errs
	}
	for i, text := range b.Except {
		except := at.Child("except").Index(i)
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(except, text, false, nil)...)
		part, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		if !whole.Contains(part.Addr()) || whole.Bits() >= part.Bits() {
			errs = append(errs, field.Invalid(except, text, fmt.Sprintf("must be a strict subset of `cidr`: %q", b.CIDR)))
		}
	}
	return errs
}
