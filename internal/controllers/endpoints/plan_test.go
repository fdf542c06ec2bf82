package endpoints

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func service(ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "svc", Labels: map[string]string{"team": "a"}},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.20", Selector: map[string]string{"app": "web"}, Ports: ports},
	}
}

func http(target intstr.IntOrString) corev1.ServicePort {
	return corev1.ServicePort{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: target}
}

func pod(n int, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", n), UID: types.UID(fmt.Sprintf("u%d", n))},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.244.%d.%d", n/250, n%250+1), Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	if change != nil {
		change(p)
	}
	return p
}

// show writes groups as "ports: address[flags] …".
func show(groups []group) string {
	var out []string
	for _, g := range groups {
		var list []string
		for _, e := range g.endpoints {
			flags := ""
			for name, on := range map[string]*bool{"r": e.Conditions.Ready} {
				if *on {
					flags += name
				}
			}
			if *e.Conditions.Serving {
				flags += "s"
			}
			if *e.Conditions.Terminating {
				flags += "t"
			}
			one := e.Addresses[0] + "[" + flags + "]"
			if e.Hostname != nil {
				one += "=" + *e.Hostname
			}
			list = append(list, one)
		}
		out = append(out, strings.Join(portKeys(g.ports), ",")+": "+strings.Join(list, " "))
	}
	return strings.Join(out, "; ")
}

func TestGrouped(t *testing.T) {
	now := metav1.Now()
	notReady := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	ending := func(p *corev1.Pod) { p.DeletionTimestamp = &now }
	for name, c := range map[string]struct {
		svc  *corev1.Service
		pods []*corev1.Pod
		want string
	}{
		"ready":             {service(http(intstr.FromInt32(8080))), []*corev1.Pod{pod(1, nil), pod(0, nil)}, "http/TCP/8080: 10.244.0.1[rs] 10.244.0.2[rs]"},
		"no target is port": {service(http(intstr.IntOrString{})), []*corev1.Pod{pod(0, nil)}, "http/TCP/80: 10.244.0.1[rs]"},
		"not ready":         {service(http(intstr.FromInt32(8080))), []*corev1.Pod{pod(0, notReady)}, "http/TCP/8080: 10.244.0.1[]"},
		"ending serves":     {service(http(intstr.FromInt32(8080))), []*corev1.Pod{pod(0, ending)}, "http/TCP/8080: 10.244.0.1[st]"},
		"no address, done": {service(http(intstr.FromInt32(8080))), []*corev1.Pod{
			pod(0, func(p *corev1.Pod) { p.Status.PodIP = "" }), pod(1, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })}, ""},
		"publish": {func() *corev1.Service {
			s := service(http(intstr.FromInt32(8080)))
			s.Spec.PublishNotReadyAddresses = true
			return s
		}(), []*corev1.Pod{pod(0, notReady)}, "http/TCP/8080: 10.244.0.1[r]"},
		"named ports differ": {service(http(intstr.FromString("web"))), []*corev1.Pod{pod(0, nil), pod(1, func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports[0].ContainerPort = 9090
		}), pod(2, func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil })}, ": 10.244.0.3[rs]; http/TCP/8080: 10.244.0.1[rs]; http/TCP/9090: 10.244.0.2[rs]"},
		"hostname": {service(http(intstr.FromInt32(8080))), []*corev1.Pod{pod(0, func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "a", "web" }),
			pod(1, func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "b", "other" })}, "http/TCP/8080: 10.244.0.1[rs]=a 10.244.0.2[rs]"},
	} {
		if got := show(grouped(c.svc, c.pods, nil)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// made turns a plan's new slices into slices that are there.
func made(svc *corev1.Service, a actions, have []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	gone := map[string]bool{}
	for _, s := range a.remove {
		gone[s.Name] = true
	}
	var out []*discoveryv1.EndpointSlice
	for _, s := range have {
		if gone[s.Name] {
			continue
		}
		for _, u := range a.update {
			if u.Name == s.Name {
				s = u
			}
		}
		out = append(out, s)
	}
	for i, s := range a.create {
		s.Name, s.Labels = fmt.Sprintf("s%d-%d", len(have), i), labelsOf(svc)
		out = append(out, s)
	}
	return out
}

func sizes(list []*discoveryv1.EndpointSlice) []int {
	var out []int
	for _, s := range list {
		out = append(out, len(s.Endpoints))
	}
	return out
}

func TestPlan(t *testing.T) {
	svc := service(http(intstr.FromInt32(8080)))
	var have []*discoveryv1.EndpointSlice
	step := func(name string, pods []*corev1.Pod, writes int, want []int) {
		t.Helper()
		a := plan(svc, grouped(svc, pods, nil), have)
		if n := len(a.create) + len(a.update) + len(a.remove); n != writes {
			t.Errorf("%s: %d writes, want %d", name, n, writes)
		}
		have = made(svc, a, have)
		if fmt.Sprint(sizes(have)) != fmt.Sprint(want) {
			t.Errorf("%s: slices of %v, want %v", name, sizes(have), want)
		}
		again := plan(svc, grouped(svc, pods, nil), have)
		if len(again.create)+len(again.update)+len(again.remove) != 0 {
			t.Errorf("%s: the same plan writes again: %+v", name, again)
		}
	}
	var pods []*corev1.Pod
	for i := range 250 {
		pods = append(pods, pod(i, nil))
	}
	step("nobody", nil, 1, []int{0})
	step("many", pods, 4, []int{100, 100, 50})
	step("one goes", pods[1:], 1, []int{99, 100, 50})
	step("one comes back", pods, 1, []int{100, 100, 50})
	svc.Labels["team"] = "b"
	step("a label changes", pods, 3, []int{100, 100, 50})
	step("few stay where they are", pods[:10], 3, []int{2, 4, 4})
	step("nobody again", nil, 4, []int{0})
	svc.Spec.Selector = nil
	if a := plan(svc, nil, have); len(a.remove) != 1 || len(a.create) != 0 {
		t.Errorf("without a selector: %+v", a)
	}
	svc.Spec.ClusterIP = corev1.ClusterIPNone
	if _, ok := labelsOf(svc)[corev1.IsHeadlessService]; !ok {
		t.Error("a headless service's slices are not marked")
	}
}
