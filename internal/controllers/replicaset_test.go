package controllers_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/testkit"
)

func qty(s string) resource.Quantity { return resource.MustParse(s) }

const replicas = `{metadata: {name: web, namespace: default}, spec: {replicas: %d, selector: {matchLabels: {app: web}},
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "web:1"}]}}}}`

func TestReplicaSet(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	orphan := c.make(&corev1.Pod{}, `{metadata: {name: orphan, namespace: default, labels: {app: web}}, spec: {containers: [{name: c, image: "web:1"}]}}`)
	c.make(&appsv1.ReplicaSet{}, fmt.Sprintf(replicas, 5))
	count := func(n int32) {
		t.Helper()
		testkit.Eventually(t, patience, func() error {
			rs, err := get[*appsv1.ReplicaSet](c, "replicasets.apps", "default", "web")
			if err != nil {
				return err
			}
			if pods := list[*corev1.Pod](c, "pods", "default"); int32(len(pods)) != n || rs.Status.Replicas != n || rs.Status.ObservedGeneration != rs.Generation {
				return fmt.Errorf("%d pods, status %+v", len(pods), rs.Status)
			}
			return nil
		})
	}
	count(5)
	p, err := get[*corev1.Pod](c, "pods", "default", "orphan")
	if err != nil || !metav1.IsControlledBy(p, must(get[*appsv1.ReplicaSet](c, "replicasets.apps", "default", "web"))) {
		t.Errorf("the orphan %s was not adopted: %v", orphan.GetName(), err)
	}
	change(c, "replicasets.apps", "default", "web", func(rs *appsv1.ReplicaSet) { n := int32(130); rs.Spec.Replicas = &n })
	count(130)
	change(c, "pods", "default", "orphan", func(p *corev1.Pod) { p.Labels["app"] = "mine" })
	testkit.Eventually(t, patience, func() error {
		p, err := get[*corev1.Pod](c, "pods", "default", "orphan")
		if err != nil || len(p.OwnerReferences) > 0 {
			return fmt.Errorf("not released: %v %v", p, err)
		}
		return nil
	})

}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
