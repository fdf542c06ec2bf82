package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of a pod's own resolver configuration.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

func (v *checker) dnsConfig(path *field.Path) {
	c := v.spec.DNSConfig
	if v.spec.DNSPolicy == corev1.DNSNone {
		if c == nil {
			v.add(field.Required(path, "must provide `dnsConfig` when `dnsPolicy` is None"))
			return
		}
		if len(c.Nameservers) == 0 {
			v.add(field.Required(path.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"))
			return
		}
	}
	if c == nil {
		return
	}
	if len(c.Nameservers) > maxNameservers {
		v.invalid(path.Child("nameservers"), c.Nameservers, "must not have more than %d nameservers", maxNameservers)
	}
	for i, ns := range c.Nameservers {
		v.add(validation.IsValidIPForLegacyField(path.Child("nameservers").Index(i), ns, false, nil)...)
	}
	at := path.Child("searches")
	if len(c.Searches) > maxSearches {
		v.invalid(at, c.Searches, "must not have more than %d search paths", maxSearches)
	}
	if len(strings.Join(c.Searches, " ")) > maxSearchChars {
		v.invalid(at, c.Searches, "must not have more than %d characters (including spaces) in the search list", maxSearchChars)
	}
	for i, s := range c.Searches {
		if s == "." {
			continue
		}
		v.msgs(at.Index(i), s, validation.IsDNS1123SubdomainWithUnderscore(strings.TrimSuffix(s, ".")))
	}
	for i, o := range c.Options {
		if o.Name == "" {
			v.add(field.Required(path.Child("options").Index(i), "must not be empty"))
		}
	}
}
