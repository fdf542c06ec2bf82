package apiserver_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
)

// BenchmarkWrites measures the API server's own part of a write: the store is in
// memory.
func BenchmarkWrites(b *testing.B) {
	c := local(b)
	maps, pods := c.at("configmaps", "demo", "", ""), c.at("pods", "demo", "", "")
	data := map[string]string{"v": strings.Repeat("0", 256)}
	n := 0
	b.Run("create a ConfigMap", func(b *testing.B) {
		for b.Loop() {
			n++
			c.must(c.api.Create(b.Context(), admin, maps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", n)}, Data: data}, api.WriteOptions{}))
		}
	})
	b.Run("patch a ConfigMap", func(b *testing.B) {
		c.must(c.api.Create(b.Context(), admin, maps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Data: data}, api.WriteOptions{}))
		one := c.at("configmaps", "demo", "one", "")
		for b.Loop() {
			n++
			c.must(c.api.Patch(b.Context(), admin, one, types.MergePatchType, fmt.Appendf(nil, `{"data":{"n":"%d"}}`, n), api.WriteOptions{}))
		}
	})
	b.Run("create a Pod", func(b *testing.B) {
		for b.Loop() {
			n++
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", n), Labels: map[string]string{"app": "web"}}}
			p.Spec.Containers = []corev1.Container{{Name: "web", Image: "web:1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}}
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/never"}}
			c.must(c.api.Create(b.Context(), admin, pods, p, api.WriteOptions{}))
		}
	})
}
