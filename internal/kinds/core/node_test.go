package core_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/kinds/core"
)

func TestNode(t *testing.T) {
	k := core.Node()
	n := made(t, k, `{metadata: {name: n1}, spec: {podCIDR: 10.244.0.0/24, taints: [{key: a, effect: NoSchedule}]}, status: {capacity: {cpu: "4"}}}`).(*corev1.Node)
	if len(n.Spec.PodCIDRs) != 1 || n.Status.Allocatable.Cpu().String() != "4" {
		t.Errorf("a new node is %+v", n)
	}
	match(t, check(k, n))
	invalid{
		{"name", `metadata: {name: N1}`, []string{`metadata.name: Invalid value: "N1"`}},
		{"namespace", `metadata: {name: n1, namespace: a}`, []string{"metadata.namespace: Forbidden: not allowed on this type"}},
		{"taint key", `{metadata: {name: n}, spec: {taints: [{key: a b, effect: NoSchedule}]}}`, []string{`spec.taints[0].key: Invalid value: "a b"`}},
		{"no taint key", `{metadata: {name: n}, spec: {taints: [{key: "", effect: NoSchedule}]}}`, []string{`spec.taints[0].key: Invalid value: ""`, `spec.taints[0].key: Invalid value: ""`}},
		{"taint value", `{metadata: {name: n}, spec: {taints: [{key: a, value: a b, effect: NoSchedule}]}}`, []string{`spec.taints[0].value: Invalid value: "a b"`}},
		{"no taint effect", `{metadata: {name: n}, spec: {taints: [{key: a, effect: ""}]}}`, []string{"spec.taints[0].effect: Required value"}},
		{"taint effect", `{metadata: {name: n}, spec: {taints: [{key: a, effect: Go}]}}`, []string{`spec.taints[0].effect: Unsupported value: "Go": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`}},
		{"taint twice", `{metadata: {name: n}, spec: {taints: [{key: a, effect: NoExecute}, {key: a, value: b, effect: NoExecute}]}}`, []string{"spec.taints[1]: Duplicate value: "}},
		{"range", `{metadata: {name: n}, spec: {podCIDR: 10.244.0.0}}`, []string{`spec.podCIDRs[0]: Invalid value: "10.244.0.0": must be a valid CIDR value`}},
		{"three ranges", `{metadata: {name: n}, spec: {podCIDRs: [10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24]}}`, []string{"spec.podCIDRs: Invalid value"}},
		{"capacity", `{metadata: {name: n}, status: {capacity: {cpu: "-1"}}}`, []string{`status.capacity[cpu]: Invalid value: "-1": must be greater than or equal to 0`, `status.allocatable[cpu]: Invalid value: "-1"`}},
		{"half a pod", `{metadata: {name: n}, status: {capacity: {pods: 500m}, allocatable: {}}}`, []string{`status.capacity[pods]: Invalid value: "500m": must be an integer`}},
	}.run(t, k)
	had := `{metadata: {name: n}, spec: {podCIDR: 10.244.0.0/24, providerID: a}}`
	updates{
		{"cordon", had, `{metadata: {name: n}, spec: {podCIDR: 10.244.0.0/24, providerID: a, unschedulable: true}}`, nil},
		{"range", had, `{metadata: {name: n}, spec: {podCIDR: 10.244.1.0/24, providerID: a}}`, []string{`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`}},
		{"first range", `metadata: {name: n}`, had, nil},
		{"provider", had, `{metadata: {name: n}, spec: {podCIDR: 10.244.0.0/24, providerID: b}}`, []string{`spec.providerID: Forbidden: node updates may not change providerID except from "" to valid`}},
	}.run(t, k)
	twice := n.DeepCopy()
	twice.Status.Addresses = []corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.1"}, {Type: "InternalIP", Address: "10.0.0.1"}}
	match(t, k.ValidateStatus(twice, n), "status.addresses[1]: Duplicate value: ")
}
