package podspec

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// AddressWarnings warns of an address in a form that is taken, but that others may
// read differently. What is no address is left to validation.
func AddressWarnings(at *field.Path, text string) []string {
	addr, err := netip.ParseAddr(text)
	switch {
	case err == nil && addr.Is4():
		return nil
	case err != nil || addr.Is4In6():
		meant, ok := lenient(text)
		if !ok {
			return nil
		}
		return []string{fmt.Sprintf("%s: non-standard IP address %q will be considered invalid in a future Kubernetes release: use %q", at, text, meant)}
	case addr.String() != text:
		return []string{fmt.Sprintf("%s: IPv6 address %q should be in RFC 5952 canonical format (%q)", at, text, addr)}
	}
	return nil
}

// lenient reads an address as Kubernetes does: with zeros before its numbers, or
// as an IPv6 address that holds one of IPv4, which is then what is meant.
func lenient(text string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Unmap(), true
	}
	parts := strings.Split(text, ".")
	for i, p := range parts {
		if p = strings.TrimLeft(p, "0"); p == "" && parts[i] != "" {
			p = "0"
		}
		parts[i] = p
	}
	addr, err := netip.ParseAddr(strings.Join(parts, "."))
	return addr, err == nil && addr.Is4()
}

// RangeWarnings is AddressWarnings for ranges, and warns of one that names an address
// within itself.
func RangeWarnings(at *field.Path, text string) []string {
	head, tail, _ := strings.Cut(text, "/")
	addr, ok := lenient(head)
	bits, err := strconv.Atoi(tail)
	if strings.Contains(head, ":") && addr.Is4() {
		bits -= 96
	}
	meant := netip.PrefixFrom(addr, bits)
	if !ok || err != nil || !meant.IsValid() {
		return nil
	}
	var out []string
	if meant != meant.Masked() {
		out = append(out, fmt.Sprintf("%s: CIDR value %q is ambiguous in this context (should be %q or %q?)", at, text, meant.Masked(), netip.PrefixFrom(addr, addr.BitLen())))
	}
	standard, err := netip.ParsePrefix(text)
	switch {
	case err != nil || standard.Addr().Is4In6():
		out = append(out, fmt.Sprintf("%s: non-standard CIDR value %q will be considered invalid in a future Kubernetes release: use %q", at, text, meant.Masked()))
	case len(out) == 0 && standard.Addr().Is6() && standard.String() != text:
		out = append(out, fmt.Sprintf("%s: IPv6 CIDR value %q should be in RFC 5952 canonical format (%q)", at, text, standard))
	}
	return out
}
