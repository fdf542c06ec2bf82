package alloc

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

func config() Config {
	return Config{
		Services: netip.MustParsePrefix("10.96.0.0/24"), Pods: netip.MustParsePrefix("10.244.0.0/22"), NodeBits: 24,
		FirstPort: 30000, LastPort: 30099, DNS: netip.MustParseAddr("10.96.0.10"),
	}
}

func service(name string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "a", Protocol: corev1.ProtocolTCP, Port: 80}},
	}}
	if change != nil {
		change(s)
	}
	return s
}

// bed is an allocator over a state that keeps what was taken.
type bed struct {
	t  *testing.T
	a  *Allocator
	st *store.Local
}

func newBed(t *testing.T) bed {
	t.Helper()
	if err := config().Validate(); err != nil {
		t.Fatal(err)
	}
	return bed{t, New(config()), store.NewLocal(api.NewCodec(kinds.Table(), 0))}
}

func (b bed) snapshot() *store.Snapshot {
	b.t.Helper()
	s, err := b.st.Snapshot(b.t.Context(), store.At{Level: store.Any})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b bed) commit(changes []store.Change) {
	b.t.Helper()
	if len(changes) == 0 {
		return
	}
	if _, err := b.st.Commit(b.t.Context(), store.Command{Changes: changes}); err != nil {
		b.t.Fatalf("commit what was allocated: %v", err)
	}
}

func (b bed) service(s, old *corev1.Service) error {
	b.t.Helper()
	changes, errs := b.a.Service(b.snapshot(), s, old)
	if len(errs) > 0 {
		return errs.ToAggregate()
	}
	b.commit(changes)
	return nil
}

func TestAddressesAreUniqueUntilTheRangeIsFull(t *testing.T) {
	b := newBed(t)
	taken := map[string]string{}
	for i := range 300 {
		s := service(fmt.Sprintf("s%d", i), nil)
		err := b.service(s, nil)
		if err != nil {
			// .0, .1 (default/kubernetes), .10 (DNS) and .255 are not given out.
			if i < 250 || !strings.Contains(err.Error(), "range 10.96.0.0/24 is full") {
				t.Fatalf("service %d: %v", i, err)
			}
			return
		}
		if was, ok := taken[s.Spec.ClusterIP]; ok {
			t.Fatalf("%s was given to %s and to %s", s.Spec.ClusterIP, was, s.Name)
		}
		if s.Spec.ClusterIP == "10.96.0.10" || s.Spec.ClusterIP == "10.96.0.1" || s.Spec.ClusterIP == "10.96.0.0" {
			t.Fatalf("%s is reserved and was given out", s.Spec.ClusterIP)
		}
		if i < 200 && netip.MustParseAddr(s.Spec.ClusterIP).As4()[3] < 16 {
			t.Fatalf("%s is of the lower band while the upper one is free", s.Spec.ClusterIP)
		}
		taken[s.Spec.ClusterIP] = s.Name
	}
	t.Fatal("a range of 256 gave 300 addresses")
}

func TestServiceRefusals(t *testing.T) {
	b := newBed(t)
	if err := b.service(service("first", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.20" }), nil); err != nil {
		t.Fatal(err)
	}
	if err := b.service(service("port", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = 30050
	}), nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*corev1.Service)
		want   string
	}{
		"taken address":   {func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.20" }, "spec.clusterIPs: Invalid value: [\"10.96.0.20\"]: failed to allocate IP 10.96.0.20: provided IP is already allocated"},
		"outside address": {func(s *corev1.Service) { s.Spec.ClusterIP = "10.97.0.20" }, "the provided IP (10.97.0.20) is not in the valid range"},
		"no address":      {func(s *corev1.Service) { s.Spec.ClusterIP = "x" }, "must be a valid IP address"},
		"taken port": {func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports[0].NodePort = 30050
		}, "spec.ports[0].nodePort: Invalid value: 30050: provided port is already allocated"},
		"outside port": {func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports[0].NodePort = 80
		}, "The range of valid ports is 30000-30099"},
	} {
		if err := b.service(service("bad", c.change), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

func TestTypeChangesTakeAndFree(t *testing.T) {
	b := newBed(t)
	s := service("web", nil)
	if err := b.service(s, nil); err != nil {
		t.Fatal(err)
	}
	open := s.DeepCopy()
	open.Spec.Type = corev1.ServiceTypeNodePort
	open.Spec.Ports = append(open.Spec.Ports, corev1.ServicePort{Name: "b", Protocol: corev1.ProtocolUDP, Port: 80})
	if err := b.service(open, s); err != nil {
		t.Fatal(err)
	}
	if p := open.Spec.Ports; p[0].NodePort == 0 || p[0].NodePort != p[1].NodePort {
		t.Errorf("node ports %d and %d of one port number; want the same", p[0].NodePort, p[1].NodePort)
	}
	if open.Spec.ClusterIP != s.Spec.ClusterIP {
		t.Errorf("the address changed from %s to %s", s.Spec.ClusterIP, open.Spec.ClusterIP)
	}
	closed := open.DeepCopy()
	closed.Spec.Type = corev1.ServiceTypeClusterIP
	if err := b.service(closed, open); err != nil {
		t.Fatal(err)
	}
	other := service("other", func(o *corev1.Service) {
		o.Spec.Type = corev1.ServiceTypeNodePort
		o.Spec.Ports[0].NodePort = open.Spec.Ports[0].NodePort
	})
	if err := b.service(other, nil); err != nil {
		t.Errorf("a port that was freed is not given again: %v", err)
	}
	b.commit(b.a.Release(closed))
	again := service("again", func(o *corev1.Service) { o.Spec.ClusterIP = closed.Spec.ClusterIP })
	if err := b.service(again, nil); err != nil {
		t.Errorf("an address that was freed is not given again: %v", err)
	}
}

func TestTwoWritersCannotBeGivenTheSame(t *testing.T) {
	b := newBed(t)
	snap := b.snapshot() // both look at the same state
	one, two := service("one", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.30" }), service("two", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.30" })
	c1, errs1 := b.a.Service(snap, one, nil)
	c2, errs2 := b.a.Service(snap, two, nil)
	if len(errs1)+len(errs2) > 0 {
		t.Fatal(errs1, errs2)
	}
	b.commit(c1)
	if _, err := b.st.Commit(t.Context(), store.Command{Changes: c2}); err == nil {
		t.Error("one address was committed twice")
	}
}

func TestNodeRanges(t *testing.T) {
	b := newBed(t)
	seen := map[string]bool{}
	for i := range 4 {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}
		changes, errs := b.a.Node(b.snapshot(), n)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		b.commit(changes)
		if seen[n.Spec.PodCIDR] || !strings.HasPrefix(n.Spec.PodCIDR, "10.244.") {
			t.Errorf("node %d got %q", i, n.Spec.PodCIDR)
		}
		seen[n.Spec.PodCIDR] = true
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one-too-many"}}
	if _, errs := b.a.Node(b.snapshot(), n); len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), "no range of /24 is left") {
		t.Errorf("a fifth /24 of a /22: %v", errs)
	}
	n.Spec.PodCIDR = "10.99.0.0/24"
	if _, errs := b.a.Node(b.snapshot(), n); len(errs) == 0 {
		t.Error("a range outside the pods' was accepted")
	}
}

func TestConfigValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"services": func(c *Config) { c.Services = netip.MustParsePrefix("10.96.0.0/30") },
		"pods":     func(c *Config) { c.Pods = netip.MustParsePrefix("fd00::/64") },
		"node":     func(c *Config) { c.NodeBits = 20 },
		"ports":    func(c *Config) { c.FirstPort, c.LastPort = 9, 8 },
		"dns":      func(c *Config) { c.DNS = netip.MustParseAddr("10.0.0.1") },
	} {
		c := config()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
