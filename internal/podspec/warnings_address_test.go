package podspec_test

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

func TestWarnOfAddresses(t *testing.T) {
	at := field.NewPath("a")
	const (
		old  = ` will be considered invalid in a future Kubernetes release: use `
		ip   = `a: non-standard IP address `
		cidr = `a: non-standard CIDR value `
	)
	for text, want := range map[string]string{
		"1.2.3.4": "", "::1": "", "fd00::1:2": "", "no address": "", "": "", "01.2.3": "", "1.2.3.0x4": "",
		"010.002.003.000": ip + `"010.002.003.000"` + old + `"10.2.3.0"`,
		"::ffff:1.2.3.4":  ip + `"::ffff:1.2.3.4"` + old + `"1.2.3.4"`,
		"FD00::1":         `a: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")`,
		"fd00:0::1":       `a: IPv6 address "fd00:0::1" should be in RFC 5952 canonical format ("fd00::1")`,
	} {
		if got := podspec.AddressWarnings(at, text); !slices.Equal(got, some(want)) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string][]string{
		"10.0.0.0/8": nil, "fd00::/64": nil, "x": nil, "1.2.3.4": nil, "1.2.3.4/33": nil,
		"10.1.2.3/8":          {`a: CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)`},
		"010.0.0.0/8":         {cidr + `"010.0.0.0/8"` + old + `"10.0.0.0/8"`},
		"::ffff:10.0.0.0/104": {cidr + `"::ffff:10.0.0.0/104"` + old + `"10.0.0.0/8"`},
		"fd00:0::/64":         {`a: IPv6 CIDR value "fd00:0::/64" should be in RFC 5952 canonical format ("fd00::/64")`},
		"fd00::1/64":          {`a: CIDR value "fd00::1/64" is ambiguous in this context (should be "fd00::/64" or "fd00::1/128"?)`},
	} {
		if got := podspec.RangeWarnings(at, text); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func some(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}
