package networking

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
)

// clusterRange is the ServiceCIDR of the cluster's configuration.
const clusterRange = "kubernetes"

// IPAddress is the kind of addresses that are in use, named by themselves.
func IPAddress() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Version: "v1", Kind: "IPAddress",
		Resource: "ipaddresses", Singular: "ipaddress",
		ShortNames: []string{"ip"},
		Verbs:      api.AllVerbs(),
		New:        func() api.Object { return &networkingv1.IPAddress{} },
		ValidName: func(name string, _ bool) []string {
			ip, err := netip.ParseAddr(name)
			if err != nil {
				return []string{err.Error()}
			}
			if ip.String() != name {
				return []string{"must be a canonical format IP address"}
			}
			return nil
		},
		Validate: api.Check(func(a *networkingv1.IPAddress) field.ErrorList { return validateParent(a.Spec.ParentRef) }),
		ValidateUpdate: api.CheckPair(func(a, old *networkingv1.IPAddress) field.ErrorList {
			return immutable(a.Spec.ParentRef, old.Spec.ParentRef, field.NewPath("spec", "parentRef"))
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("ParentRef", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
		},
		Cells: api.Row(func(a *networkingv1.IPAddress, _ time.Time) []any {
			parent := api.CellNone
			if p := a.Spec.ParentRef; p != nil {
				parent = strings.ToLower(schema.GroupResource{Group: p.Group, Resource: p.Resource}.String())
				if p.Namespace != "" {
					parent += "/" + p.Namespace
				}
				parent += "/" + p.Name
			}
			return []any{a.Name, parent}
		}),
	}
}

func validateParent(p *networkingv1.ParentReference) field.ErrorList {
	at := field.NewPath("spec", "parentRef")
	if p == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if p.Group != "" { // that of Services is empty
		errs = invalid(at.Child("group"), p.Group, utilvalidation.IsDNS1123Subdomain(p.Group))
	}
	for _, f := range []struct {
		name, value string
		needed      bool
	}{{"resource", p.Resource, true}, {"name", p.Name, true}, {"namespace", p.Namespace, false}} {
		switch {
		case f.value != "":
			errs = append(errs, invalid(at.Child(f.name), f.value, path.IsValidPathSegmentName(f.value))...)
		case f.needed:
			errs = append(errs, field.Required(at.Child(f.name), ""))
		}
	}
	return errs
}

// ServiceCIDR is the kind of ranges out of which services get addresses. That
// of the cluster's configuration is named kubernetes; others are not used yet,
// and their status says so.
func ServiceCIDR() *api.Kind {
	k := api.WithStatus(&api.Kind{
		Group: networkingv1.GroupName, Version: "v1", Kind: "ServiceCIDR",
		Resource: "servicecidrs", Singular: "servicecidr",
		Verbs:          api.AllVerbs(),
		New:            func() api.Object { return &networkingv1.ServiceCIDR{} },
		Validate:       api.Check(validateServiceCIDR),
		ValidateUpdate: api.CheckPair(validateServiceCIDRUpdate),
		ValidateStatus: api.CheckPair(func(c, _ *networkingv1.ServiceCIDR) field.ErrorList {
			return metavalidation.ValidateConditions(c.Status.Conditions, field.NewPath("status", "conditions"))
		}),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("CIDRs", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]),
			api.AgeColumn(),
		},
		Cells: api.Row(func(c *networkingv1.ServiceCIDR, now time.Time) []any {
			return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), api.Age(c.CreationTimestamp, now)}
		}),
	}, func(c *networkingv1.ServiceCIDR) *networkingv1.ServiceCIDRSpec { return &c.Spec },
		func(c *networkingv1.ServiceCIDR) *networkingv1.ServiceCIDRStatus { return &c.Status })
	k.OnCreate = api.On(func(c *networkingv1.ServiceCIDR) {
		ready := metav1.Condition{
			Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Reason: "Ready",
			Message: "Kubernetes Service CIDR is ready", LastTransitionTime: c.CreationTimestamp,
		}
		if c.Name != clusterRange {
			ready.Status, ready.Reason = metav1.ConditionFalse, "NotUsed"
			ready.Message = "services get addresses only out of the range that the cluster was made with, which is the ServiceCIDR " + clusterRange
		}
		c.Status = networkingv1.ServiceCIDRStatus{Conditions: []metav1.Condition{ready}}
	})
	return k
}

func validateServiceCIDR(c *networkingv1.ServiceCIDR) field.ErrorList {
	at, cidrs := field.NewPath("spec", "cidrs"), c.Spec.CIDRs
	switch {
	case len(cidrs) == 0:
		return field.ErrorList{field.Required(at, "at least one CIDR required")}
	case len(cidrs) > 2:
		return field.ErrorList{field.Invalid(at, c.Spec, "may only hold up to 2 values")}
	}
	var errs field.ErrorList
	families := map[bool]bool{}
	for i, text := range cidrs {
		errs = append(errs, utilvalidation.IsValidCIDR(at.Index(i), text)...)
		if p, err := netip.ParsePrefix(text); err == nil {
			families[p.Addr().Is4()] = true
		}
	}
	if len(errs) == 0 && len(families) != len(cidrs) {
		errs = append(errs, field.Invalid(at, c.Spec, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96"))
	}
	return errs
}

// validateServiceCIDRUpdate lets a second family be added, and nothing else.
func validateServiceCIDRUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	at := field.NewPath("spec", "cidrs")
	if len(old.Spec.CIDRs) == 1 && len(c.Spec.CIDRs) == 2 {
		return immutable(c.Spec.CIDRs[0], old.Spec.CIDRs[0], at.Index(0))
	}
	if slices.Equal(c.Spec.CIDRs, old.Spec.CIDRs) {
		return nil
	}
	return immutable(c.Spec.CIDRs, old.Spec.CIDRs, at)
}
