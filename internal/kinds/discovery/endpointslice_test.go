package discovery_test

import (
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds/discovery"
)

func made(t *testing.T, k *api.Kind, text string) *discoveryv1.EndpointSlice {
	t.Helper()
	s := &discoveryv1.EndpointSlice{}
	if err := yaml.UnmarshalStrict([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	s.Namespace = "default"
	k.Default(s)
	return s
}

func slice(more string) string { return `{metadata: {name: s}, addressType: IPv4, ` + more + `}` }

func TestEndpointSlice(t *testing.T) {
	k := discovery.EndpointSlice()
	good := made(t, k, slice(`ports: [{port: 80}, {name: b, port: 81, protocol: UDP}], endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]`))
	if *good.Ports[0].Name != "" || *good.Ports[0].Protocol != "TCP" || *good.Ports[1].Protocol != "UDP" {
		t.Errorf("defaults are %v", good.Ports)
	}
	if errs := append(api.ValidateMeta(k, good), k.Validate(good)...); len(errs) > 0 {
		t.Error(errs)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"no type", `{metadata: {name: s}}`, "addressType: Required value"},
		{"type", `{metadata: {name: s}, addressType: MAC}`, `addressType: Unsupported value: "MAC": supported values: "FQDN", "IPv4", "IPv6"`},
		{"name", `{metadata: {name: S}, addressType: IPv4}`, `metadata.name: Invalid value: "S"`},
		{"no address", slice(`endpoints: [{addresses: []}]`), "endpoints[0].addresses: Required value: must contain at least 1 address"},
		{"address", slice(`endpoints: [{addresses: [x]}]`), `endpoints[0].addresses[0]: Invalid value: "x": must be a valid IP address`},
		{"family", slice(`endpoints: [{addresses: ["fd00::1"]}]`), `endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address`},
		{"loopback", slice(`endpoints: [{addresses: [127.0.0.1]}]`), `endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range`},
		{"domain", `{metadata: {name: s}, addressType: FQDN, endpoints: [{addresses: [a]}]}`, `endpoints[0].addresses[0]: Invalid value: "a": should be a domain with at least two segments separated by dots`},
		{"hostname", slice(`endpoints: [{addresses: [10.0.0.1], hostname: A}]`), `endpoints[0].hostname: Invalid value: "A"`},
		{"node", slice(`endpoints: [{addresses: [10.0.0.1], nodeName: A}]`), `endpoints[0].nodeName: Invalid value: "A"`},
		{"hint twice", slice(`endpoints: [{addresses: [10.0.0.1], hints: {forZones: [{name: a}, {name: a}]}}]`), `endpoints[0].hints.forZones[1].name: Duplicate value: "a"`},
		{"zone in topology", slice(`endpoints: [{addresses: [10.0.0.1], deprecatedTopology: {topology.kubernetes.io/zone: a}}]`), `endpoints[0].deprecatedTopology[topology.kubernetes.io/zone]: Invalid value: "topology.kubernetes.io/zone": deprecated`},
		{"port name twice", slice(`ports: [{port: 1}, {port: 2}]`), `ports[1].name: Duplicate value: ""`},
		{"port name", slice(`ports: [{name: A, port: 1}]`), `ports[0].name: Invalid value: "A"`},
		{"protocol", slice(`ports: [{port: 1, protocol: ICMP}]`), `ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`},
		{"port", slice(`ports: [{port: 0}]`), "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"},
		{"app protocol", slice(`ports: [{port: 1, appProtocol: a b}]`), `ports[0].appProtocol: Invalid value: "a b"`},
	} {
		s := made(t, k, tt.text)
		errs := append(api.ValidateMeta(k, s), k.Validate(s)...)
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, errs, tt.want)
		}
	}
	full := good.DeepCopy()
	for range 1000 {
		full.Endpoints = append(full.Endpoints, full.Endpoints[0])
	}
	if errs := k.Validate(full); len(errs) != 1 || errs[0].Error() != "endpoints: Too many: 1001: must have at most 1000 items" {
		t.Error(errs)
	}
	other := good.DeepCopy()
	other.AddressType = "IPv6"
	if errs := k.ValidateUpdate(other, good); len(errs) != 1 || errs[0].Field != "addressType" {
		t.Error(errs)
	}
}
