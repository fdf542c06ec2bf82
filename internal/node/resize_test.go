package node

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestRoom(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	pod := func(cpu, memory string) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list(cpu, memory)}}}}}
	}
	others := []*corev1.Pod{pod("500m", "100Mi"), pod("200m", "0")}
	for _, tt := range []struct{ cpu, memory, reason, text string }{
		{"1", "100Mi", "", ""},
		{"1300m", "924Mi", "", ""},
		{"1301m", "1Mi", "Deferred", "cpu, requested: 1301, used: 700, capacity: 2000"},
		{"1", "925Mi", "Deferred", "memory, requested: "},
		{"2001m", "1Mi", "Infeasible", "capacity: cpu, requested: 2001, capacity: 2000"},
		{"1", "2Gi", "Infeasible", "capacity: memory"},
	} {
		reason, text := room(pod(tt.cpu, tt.memory), others, list("2", "1Gi"))
		if reason != tt.reason || !strings.Contains(text, tt.text) {
			t.Errorf("%s, %s: %s %q", tt.cpu, tt.memory, reason, text)
		}
	}
}
