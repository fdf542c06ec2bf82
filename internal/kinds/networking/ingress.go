package networking

import (
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// shownHosts is how many hosts of an ingress a table shows.
const shownHosts = 3

// Ingress is the kind of ingresses.
func Ingress() *api.Kind {
	spec := networkingv1.IngressSpec{}.SwaggerDoc()
	return api.WithStatus(&api.Kind{
		Group: networkingv1.GroupName, Version: "v1", Kind: "Ingress",
		Resource: "ingresses", Singular: "ingress",
		Warn:           api.Warn(warnIngress),
		ShortNames:     []string{"ing"},
		Namespaced:     true,
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &networkingv1.Ingress{} },
		Validate:       api.Check(validateIngress),
		ValidateStatus: api.CheckPair(validateIngressStatus),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Class", spec["ingressClassName"]),
			api.TextColumn("Hosts", "The hosts that the rules are for."),
			api.TextColumn("Address", networkingv1.IngressStatus{}.SwaggerDoc()["loadBalancer"]),
			api.TextColumn("Ports", "The ports on which the hosts answer."),
			api.AgeColumn(),
		},
		Cells: api.Row(func(i *networkingv1.Ingress, now time.Time) []any {
			class, ports := api.CellNone, "80"
			if i.Spec.IngressClassName != nil {
				class = *i.Spec.IngressClassName
			}
			if len(i.Spec.TLS) > 0 {
				ports = "80, 443"
			}
			return []any{i.Name, class, hosts(i.Spec.Rules), addresses(i.Status.LoadBalancer.Ingress), ports, api.Age(i.CreationTimestamp, now)}
		}),
	}, func(i *networkingv1.Ingress) *networkingv1.IngressSpec { return &i.Spec },
		func(i *networkingv1.Ingress) *networkingv1.IngressStatus { return &i.Status })
}

func hosts(rules []networkingv1.IngressRule) string {
	var all []string
	for _, r := range rules {
		if len(all) == shownHosts {
			return strings.Join(all, ",") + " + " + more(rules)
		}
		if r.Host != "" {
			all = append(all, r.Host)
		}
	}
	if len(all) == 0 {
		return "*"
	}
	return strings.Join(all, ",")
}

func more(rules []networkingv1.IngressRule) string {
	return itoa(len(rules)-shownHosts) + " more..."
}

func addresses(all []networkingv1.IngressLoadBalancerIngress) string {
	var out []string
	for _, a := range all {
		text := a.IP
		if text == "" {
			text = a.Hostname
		}
		if text != "" && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// IngressClass is the kind of ingress classes.
func IngressClass() *api.Kind {
	spec := networkingv1.IngressClassSpec{}.SwaggerDoc()
	return api.WithSpec(&api.Kind{
		Group: networkingv1.GroupName, Version: "v1", Kind: "IngressClass",
		Resource: "ingressclasses", Singular: "ingressclass",
		Verbs: api.AllVerbs(),
		New:   func() api.Object { return &networkingv1.IngressClass{} },
		Default: api.On(func(c *networkingv1.IngressClass) {
			if c.Spec.Parameters != nil {
				api.SetDefault(&c.Spec.Parameters.Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		}),
		Validate: api.Check(validateIngressClass),
		ValidateUpdate: api.CheckPair(func(c, old *networkingv1.IngressClass) field.ErrorList {
			return immutable(c.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller"))
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Controller", spec["controller"]),
			api.TextColumn("Parameters", spec["parameters"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(c *networkingv1.IngressClass, now time.Time) []any {
			params := api.CellNone
			if p := c.Spec.Parameters; p != nil {
				params = p.Kind
				if p.APIGroup != nil {
					params += "." + *p.APIGroup
				}
				params += "/" + p.Name
			}
			return []any{c.Name, c.Spec.Controller, params, api.Age(c.CreationTimestamp, now)}
		}),
	}, func(c *networkingv1.IngressClass) any { return &c.Spec })
}
