package apiserver_test

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestJobDeletedWithoutPolicy keeps its pods, and says so.
func TestJobDeletedWithoutPolicy(t *testing.T) {
	c := local(t)
	for name, policies := range map[string]*metav1.DeleteOptions{"plain": {}, "background": nil} {
		c.must(c.create("jobs.batch", "demo", `{metadata: {name: `+name+`}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}`))
		o := policy(metav1.DeletePropagationBackground)
		if policies != nil {
			o = *policies
		}
		d, err := c.delete("jobs.batch", "demo", name, o)
		if err != nil {
			t.Fatal(err)
		}
		if warned := len(d.Warnings) == 1; warned != (policies != nil) || d.Gone == warned {
			t.Errorf("%s: gone %v, warnings %q", name, d.Gone, d.Warnings)
		}
		if policies == nil {
			continue
		}
		if obj, err := c.get("jobs.batch", "demo", name); err != nil || !slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents) {
			t.Errorf("%s: %+v, %v", name, obj, err)
		}
	}
}
