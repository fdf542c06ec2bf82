package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/testkit"
)

const deployed = `{metadata: {name: web, namespace: default}, spec: {replicas: %d, selector: {matchLabels: {app: web}},
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "web:1"}]}}}}`

// rolledOut waits until a deployment is complete with pods of one image only.
func rolledOut(c *cluster, name, image string, n int32) {
	c.t.Helper()
	testkit.Eventually(c.t, patience, func() error {
		d, err := get[*appsv1.Deployment](c, "deployments.apps", "default", name)
		if err != nil {
			return err
		}
		s := d.Status
		if s.ObservedGeneration != d.Generation || s.Replicas != n || s.UpdatedReplicas != n || s.AvailableReplicas != n || s.UnavailableReplicas != 0 {
			return fmt.Errorf("status is %+v", s)
		}
		for _, p := range list[*corev1.Pod](c, "pods", "default") {
			if p.DeletionTimestamp == nil && p.Spec.Containers[0].Image != image {
				return fmt.Errorf("pod %s has image %s", p.Name, p.Spec.Containers[0].Image)
			}
		}
		return nil
	})
}

func setImage(c *cluster, name, image string) {
	change(c, "deployments.apps", "default", name, func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = image })
}

func TestDeployment(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.node("n1")
	c.node("n2")
	c.make(&appsv1.Deployment{}, fmt.Sprintf(deployed, 10))
	rolledOut(c, "web", "web:1", 10)
	setImage(c, "web", "web:2")
	rolledOut(c, "web", "web:2", 10)
	setImage(c, "web", "web:1")
	rolledOut(c, "web", "web:1", 10)
	sets := list[*appsv1.ReplicaSet](c, "replicasets.apps", "default")
	if len(sets) != 2 {
		t.Errorf("%d ReplicaSets, want 2: a rollback takes the old one", len(sets))
	}
	d := must(get[*appsv1.Deployment](c, "deployments.apps", "default", "web"))
	if d.Annotations["deployment.kubernetes.io/revision"] != "3" {
		t.Errorf("annotations are %v", d.Annotations)
	}
	change(c, "deployments.apps", "default", "web", func(d *appsv1.Deployment) { n := int32(4); d.Spec.Replicas = &n })
	rolledOut(c, "web", "web:1", 4)
	change(c, "deployments.apps", "default", "web", func(d *appsv1.Deployment) {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		d.Spec.Template.Spec.Containers[0].Image = "web:3"
	})
	rolledOut(c, "web", "web:3", 4)
	testkit.Eventually(t, patience, func() error {
		var seen []string
		for _, e := range list[*corev1.Event](c, "events", "default") {
			if e.InvolvedObject.Kind == "Deployment" && e.Reason == "ScalingReplicaSet" {
				seen = append(seen, e.Message)
			}
		}
		if text := strings.Join(seen, "\n"); !strings.Contains(text, "from 0 to 10") || !strings.Contains(text, "Scaled down replica set web-") {
			return fmt.Errorf("events are %s", text)
		}
		return nil
	})
}

// A rollout of pods that never become ready stops where availability would
// suffer, says so, and goes on when it is mended.
func TestDeploymentStopsAtSickPods(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.sick["web:bad"] = true
	c.node("n1")
	c.make(&appsv1.Deployment{}, strings.Replace(fmt.Sprintf(deployed, 4), "replicas: 4", "replicas: 4, progressDeadlineSeconds: 1", 1))
	rolledOut(c, "web", "web:1", 4)
	setImage(c, "web", "web:bad")
	testkit.Eventually(t, patience, func() error {
		d := must(get[*appsv1.Deployment](c, "deployments.apps", "default", "web"))
		for _, cond := range d.Status.Conditions {
			if cond.Type == appsv1.DeploymentProgressing && cond.Reason == "ProgressDeadlineExceeded" {
				if s := d.Status; s.AvailableReplicas != 3 || s.Replicas != 5 || s.UpdatedReplicas != 2 {
					return fmt.Errorf("status is %+v", s)
				}
				return nil
			}
		}
		return fmt.Errorf("status is %+v", d.Status)
	})
	setImage(c, "web", "web:1")
	rolledOut(c, "web", "web:1", 4)
}
