package controllers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/podstate"
	"github.com/wherry-project/wherry/internal/testkit"
)

func TestSchedulerBindsMany(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.node("n1")
	c.node("n2")
	began := time.Now()
	c.make(&appsv1.ReplicaSet{}, fmt.Sprintf(replicas, 100))
	testkit.Eventually(t, patience, func() error {
		rs, err := get[*appsv1.ReplicaSet](c, "replicasets.apps", "default", "web")
		if err != nil || rs.Status.AvailableReplicas != 100 {
			return fmt.Errorf("%+v %v", rs.Status, err)
		}
		return nil
	})
	t.Logf("100 pods running after %v", time.Since(began))
	count := map[string]int{}
	for _, p := range list[*corev1.Pod](c, "pods", "default") {
		count[p.Spec.NodeName]++
	}
	if count["n1"] != 50 || count["n2"] != 50 {
		t.Errorf("pods are %v", count)
	}
	change(c, "replicasets.apps", "default", "web", func(rs *appsv1.ReplicaSet) { n := int32(0); rs.Spec.Replicas = &n })
	testkit.Eventually(t, patience, func() error {
		if n := len(list[*corev1.Pod](c, "pods", "default")); n > 0 {
			return fmt.Errorf("%d pods are left", n)
		}
		return nil
	})
}

func TestSchedulerTellsAndTriesAgain(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.node("n1")
	c.make(&corev1.Pod{}, `{metadata: {name: choosy, namespace: default}, spec: {nodeSelector: {disk: ssd}, containers: [{name: c, image: i}]}}`)
	c.make(&corev1.Pod{}, `{metadata: {name: gated, namespace: default}, spec: {schedulingGates: [{name: example.com/wait}], containers: [{name: c, image: i}]}}`)
	c.make(&corev1.Pod{}, `{metadata: {name: foreign, namespace: default}, spec: {schedulerName: other, containers: [{name: c, image: i}]}}`)
	says := func(name, reason, message string) {
		t.Helper()
		testkit.Eventually(t, patience, func() error {
			p, err := get[*corev1.Pod](c, "pods", "default", name)
			if err != nil {
				return err
			}
			if cond := podstate.Condition(p, corev1.PodScheduled); cond == nil || cond.Status != "False" || cond.Reason != reason || !strings.HasPrefix(cond.Message, message) {
				return fmt.Errorf("%s has %+v", name, cond)
			}
			return nil
		})
	}
	says("choosy", "Unschedulable", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
	says("gated", "SchedulingGated", "Scheduling is blocked")
	testkit.Eventually(t, patience, func() error {
		for _, e := range list[*corev1.Event](c, "events", "default") {
			if e.Reason == "FailedScheduling" && e.InvolvedObject.Name == "choosy" && e.Source.Component == "default-scheduler" {
				return nil
			}
		}
		return fmt.Errorf("no event")
	})
	c.node("n2")
	change(c, "nodes", "", "n2", func(n *corev1.Node) { n.Labels["disk"] = "ssd" })
	change(c, "pods", "default", "gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = nil })
	for _, name := range []string{"choosy", "gated"} {
		testkit.Eventually(t, patience, func() error {
			if p, err := get[*corev1.Pod](c, "pods", "default", name); err != nil || p.Status.Phase != corev1.PodRunning {
				return fmt.Errorf("%s is not running: %v", name, err)
			}
			return nil
		})
	}
	if p := must(get[*corev1.Pod](c, "pods", "default", "foreign")); p.Spec.NodeName != "" || len(p.Status.Conditions) > 0 {
		t.Errorf("the pod of another scheduler was touched: %+v", p.Status)
	}
}
