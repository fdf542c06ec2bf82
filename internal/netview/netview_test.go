package netview

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/network"
	"github.com/wherry-project/wherry/internal/svcproxy"
)

var update = flag.Bool("update", false, "write the golden files anew")

// load puts the objects of a file into a view.
func load(t *testing.T, v *View, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(string(b), "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case "Service":
			v.PutService(parse[corev1.Service](t, doc))
		case "EndpointSlice":
			v.PutSlice(parse[discoveryv1.EndpointSlice](t, doc))
		case "Node":
			v.PutNode(parse[corev1.Node](t, doc))
		case "Namespace":
			v.PutNamespace(parse[corev1.Namespace](t, doc).Name)
		case "Pod":
			v.PutPod(parse[corev1.Pod](t, doc))
		default:
			t.Fatalf("kind %q", kind.Kind)
		}
	}
}

func parse[T any](t *testing.T, doc string) *T {
	t.Helper()
	o := new(T)
	if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
		t.Fatal(err)
	}
	return o
}

// text tells a proxy configuration in lines.
func text(c svcproxy.Config) string {
	var b strings.Builder
	for _, s := range c.Services {
		fmt.Fprintf(&b, "service %s %v external %v affinity %v local %v/%v\n", s.Name, s.ClusterIPs, s.ExternalIPs, s.Affinity, s.InternalLocal, s.ExternalLocal)
		for _, p := range s.Ports {
			fmt.Fprintf(&b, "  %v %d node %d -> %v\n", p.Protocol, p.Port, p.NodePort, p.Endpoints)
		}
	}
	for _, h := range c.HostPorts {
		fmt.Fprintf(&b, "host port %v %v:%d -> %v for %s\n", h.Protocol, h.Address, h.Port, h.Endpoint, h.Name)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	v := New("n1")
	load(t, v, "testdata/cluster.yaml")
	got := text(v.Proxy(svcproxy.Config{}))
	net, ok := v.Network(network.Config{Masquerade: true})
	got += fmt.Sprintf("network %v %v masquerade %v\n", ok, net.PodCIDRs, net.Masquerade)
	for _, p := range net.Peers {
		got += fmt.Sprintf("  peer %s %v %v\n", p.Name, p.Address, p.PodCIDRs)
	}
	for _, e := range v.ServiceEnv("demo", true) {
		got += "env " + e.Name + "=" + e.Value + "\n"
	}
	const golden = "testdata/cluster.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("became (see -update):\n%s", got)
	}
	only := v.ServiceEnv("demo", false)
	if len(only) == 0 || !strings.HasPrefix(only[0].Name, "KUBERNETES_") || !strings.HasPrefix(only[len(only)-1].Name, "KUBERNETES_") {
		t.Errorf("without links: %v", only)
	}
}

func service(name, ip string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name}}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = ip, []string{ip}
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}
	return s
}

// slice is a slice of a service with endpoints; a leading - is not ready, a
// leading ~ ends and still serves.
func slice(name, owner string, addresses ...string) *discoveryv1.EndpointSlice {
	port, proto, portName := int32(8080), corev1.ProtocolTCP, "http"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "demo", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: owner}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &proto}},
	}
	yes, no := true, false
	for _, a := range addresses {
		e := discoveryv1.Endpoint{Addresses: []string{strings.TrimLeft(a, "-~")}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}
		switch a[0] {
		case '-':
			e.Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &no}
		case '~':
			e.Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func TestEndpoints(t *testing.T) {
	tests := []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		{"none", nil, "[]"},
		{"sorted", []*discoveryv1.EndpointSlice{slice("x", "web", "10.1.0.2"), slice("y", "web", "10.1.0.1")}, "[10.1.0.1:8080 10.1.0.2:8080]"},
		{"not ready", []*discoveryv1.EndpointSlice{slice("x", "web", "-10.1.0.2", "10.1.0.3", "~10.1.0.4")}, "[10.1.0.3:8080]"},
		{"ending ones at last", []*discoveryv1.EndpointSlice{slice("x", "web", "-10.1.0.2", "~10.1.0.4")}, "[10.1.0.4:8080]"},
		{"another service's", []*discoveryv1.EndpointSlice{slice("x", "other", "10.1.0.2")}, "[]"},
		{"nobody's", []*discoveryv1.EndpointSlice{slice("x", "", "10.1.0.2")}, "[]"},
		{"no address", []*discoveryv1.EndpointSlice{slice("x", "web", "nonsense")}, "[]"},
	}
	for _, tt := range tests {
		v := New("n1")
		v.PutService(service("web", "10.96.0.5"))
		for _, s := range tt.slices {
			v.PutSlice(s)
		}
		if got := fmt.Sprint(v.Proxy(svcproxy.Config{}).Services[0].Ports[0].Endpoints); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Whatever comes and goes, a view is like a fresh one of the same objects.
func TestViewFollows(t *testing.T) {
	v := New("n1")
	steps := []struct {
		name string
		do   func()
		want string // endpoints by service
	}{
		{"service", func() { v.PutService(service("web", "10.96.0.5")) }, "demo/web []"},
		{"slice", func() { v.PutSlice(slice("x", "web", "10.1.0.1")) }, "demo/web [10.1.0.1:8080]"},
		{"slice changes", func() { v.PutSlice(slice("x", "web", "10.1.0.2")) }, "demo/web [10.1.0.2:8080]"},
		{"second slice", func() { v.PutSlice(slice("y", "web", "10.1.0.3")) }, "demo/web [10.1.0.2:8080 10.1.0.3:8080]"},
		{"slice of a service to come", func() { v.PutSlice(slice("z", "app", "10.1.0.4")) }, "demo/web [10.1.0.2:8080 10.1.0.3:8080]"},
		{"which comes", func() { v.PutService(service("app", "10.96.0.6")) }, "demo/app [10.1.0.4:8080] demo/web [10.1.0.2:8080 10.1.0.3:8080]"},
		{"slice changes its owner", func() { v.PutSlice(slice("y", "app", "10.1.0.3")) }, "demo/app [10.1.0.3:8080 10.1.0.4:8080] demo/web [10.1.0.2:8080]"},
		{"slice goes", func() { v.DeleteSlice("demo", "x") }, "demo/app [10.1.0.3:8080 10.1.0.4:8080] demo/web []"},
		{"unknown slice goes", func() { v.DeleteSlice("demo", "x") }, "demo/app [10.1.0.3:8080 10.1.0.4:8080] demo/web []"},
		{"service goes", func() { v.DeleteService("demo", "app") }, "demo/web []"},
		{"and comes back", func() { v.PutService(service("app", "10.96.0.6")) }, "demo/app [10.1.0.3:8080 10.1.0.4:8080] demo/web []"},
		{"all go", func() { v.Reset() }, ""},
		{"slice first", func() { v.PutSlice(slice("x", "web", "10.1.0.1")); v.PutService(service("web", "10.96.0.5")) }, "demo/web [10.1.0.1:8080]"},
	}
	for _, st := range steps {
		st.do()
		var got []string
		for _, s := range v.Proxy(svcproxy.Config{}).Services {
			got = append(got, fmt.Sprintf("%s %v", s.Name, s.Ports[0].Endpoints))
		}
		if text := strings.Join(got, " "); text != st.want {
			t.Errorf("%s: %q, want %q", st.name, text, st.want)
		}
	}
}

// What did not change is the same slice, so that svcproxy need not compare it.
func TestUnchangedServicesAreShared(t *testing.T) {
	v := New("n1")
	v.PutService(service("a", "10.96.0.5"))
	v.PutSlice(slice("x", "a", "10.1.0.1"))
	v.PutService(service("b", "10.96.0.6"))
	one := v.Proxy(svcproxy.Config{})
	v.PutSlice(slice("y", "b", "10.1.0.2"))
	two := v.Proxy(svcproxy.Config{})
	if &one.Services[0].Ports[0] != &two.Services[0].Ports[0] || &one.Services[1].Ports[0] == &two.Services[1].Ports[0] {
		t.Error("not what changed was made anew")
	}
}

func TestRecords(t *testing.T) {
	v := New("n1")
	v.PutNamespace("demo")
	v.PutService(service("web", "10.96.0.5"))
	first := v.Records()
	if v.Records() != first {
		t.Error("records are made anew though nothing changed")
	}
	v.PutSlice(slice("x", "web", "10.1.0.1"))
	second := v.Records()
	if second == first {
		t.Error("records did not follow")
	}
	v.DeleteNamespace("demo")
	v.DeleteService("demo", "web")
	if v.Records() == second {
		t.Error("records did not follow")
	}
	head := service("head", corev1.ClusterIPNone)
	if got := v.record(head); !got.Headless || len(got.ClusterIPs) != 0 {
		t.Errorf("headless: %+v", got)
	}
	name := service("name", "")
	name.Spec.Type, name.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.test"
	if got := v.record(name); got.ExternalName != "example.test" || got.Ports != nil {
		t.Errorf("external name: %+v", got)
	}
	host := "db-0"
	s := slice("x", "head", "10.1.0.1", "-10.1.0.2")
	s.Endpoints[0].Hostname = &host
	v.PutSlice(s)
	got := v.record(head)
	if len(got.Endpoints) != 2 || got.Endpoints[0].Hostname != "db-0" || !got.Endpoints[0].Ready || got.Endpoints[1].Ready || got.Endpoints[0].Ports[0].Port != 8080 {
		t.Errorf("endpoints: %+v", got.Endpoints)
	}
}

func TestNetworkFollowsNodes(t *testing.T) {
	node := func(name, ip, cidr string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Spec.PodCIDR = cidr
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}
		return n
	}
	v := New("n1")
	if _, ok := v.Network(network.Config{}); ok {
		t.Error("a network without a node")
	}
	if !v.PutNode(node("n1", "10.0.0.1", "")) {
		t.Error("a new node does not concern the network")
	}
	if _, ok := v.Network(network.Config{}); ok {
		t.Error("a network without a range")
	}
	for _, tt := range []struct {
		node     *corev1.Node
		concerns bool
	}{
		{node("n1", "10.0.0.1", "10.244.0.0/24"), true}, {node("n1", "10.0.0.1", "10.244.0.0/24"), false},
		{node("n2", "10.0.0.2", ""), true}, {node("n2", "10.0.0.2", "10.244.1.0/24"), true}, {node("n2", "10.0.0.3", "10.244.1.0/24"), true},
		{node("n3", "nonsense", "10.244.2.0/24"), true},
	} {
		if got := v.PutNode(tt.node); got != tt.concerns {
			t.Errorf("%s: concerns %v, want %v", tt.node.Name, got, tt.concerns)
		}
	}
	cfg, ok := v.Network(network.Config{Peers: []network.Peer{{Name: "old"}}})
	if !ok || len(cfg.Peers) != 1 || cfg.Peers[0].Address != netip.MustParseAddr("10.0.0.3") {
		t.Errorf("%+v, %v", cfg, ok)
	}
	v.DeleteNode("n2")
	if cfg, _ := v.Network(network.Config{}); len(cfg.Peers) != 0 {
		t.Errorf("%+v", cfg)
	}
}

func TestHostPortsConcern(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "p"}}
	v := New("n1")
	if v.PutPod(p) || v.DeletePod("demo", "p") || v.DeletePod("demo", "none") {
		t.Error("a pod without host ports concerns them")
	}
	with := p.DeepCopy()
	with.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 80, ContainerPort: 8080}}}}
	if !v.PutPod(with) || !v.PutPod(p) || !v.PutPod(with) || !v.DeletePod("demo", "p") {
		t.Error("a pod with host ports does not concern them")
	}
}

func BenchmarkSlices(b *testing.B) {
	v := New("n1")
	for n := range 10000 {
		name := fmt.Sprintf("s%d", n)
		v.PutService(service(name, "10.96.0.5"))
		v.PutSlice(slice(name+"-x", name, "10.1.0.1"))
	}
	for b.Loop() {
		v.PutSlice(slice("s5-x", "s5", "10.1.0.2"))
		v.Proxy(svcproxy.Config{})
	}
}
