package controllers_test

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/wherry-project/wherry/internal/controllers"
	"github.com/wherry-project/wherry/internal/podstate"
	"github.com/wherry-project/wherry/internal/testkit"
)

// ready gives the addresses that a service may use.
func ready(c *cluster, service string) int {
	n := 0
	for _, s := range list[*discoveryv1.EndpointSlice](c, "endpointslices.discovery.k8s.io", "default") {
		if s.Labels[discoveryv1.LabelServiceName] != service {
			continue
		}
		for _, e := range s.Endpoints {
			if *e.Conditions.Ready {
				n++
			}
		}
	}
	return n
}

// A node that falls silent: its pods leave the service at once, are replaced
// elsewhere when they no longer tolerate it, and when it comes back it is used
// again.
func TestSilentNode(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, func(cfg *controllers.Config) { cfg.NodeGrace = time.Second })
	c.node("n1")
	c.node("n2")
	c.make(&corev1.Service{}, `{metadata: {name: web, namespace: default}, spec: {selector: {app: web}, ports: [{port: 80}]}}`)
	c.make(&appsv1.Deployment{}, `{metadata: {name: web, namespace: default}, spec: {replicas: 4, selector: {matchLabels: {app: web}},
	  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "web:1"}], tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 4}]}}}}`)
	rolledOut(c, "web", "web:1", 4)
	endpoints := func(n int) {
		t.Helper()
		testkit.Eventually(t, patience, func() error {
			if got := ready(c, "web"); got != n {
				return fmt.Errorf("%d endpoints are ready, want %d", got, n)
			}
			return nil
		})
	}
	endpoints(4)
	c.stop("n2")
	endpoints(2)
	n := must(get[*corev1.Node](c, "nodes", "", "n2"))
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady && (cond.Status != corev1.ConditionUnknown || cond.Reason != "NodeStatusUnknown") {
			t.Errorf("Ready is %+v", cond)
		}
	}
	endpoints(4) // on the other node
	testkit.Eventually(t, patience, func() error {
		for _, p := range list[*corev1.Pod](c, "pods", "default") {
			if p.Spec.NodeName == "n2" {
				if cond := podstate.Condition(p, corev1.DisruptionTarget); p.DeletionTimestamp == nil || cond == nil || cond.Reason != "DeletionByTaintManager" {
					return fmt.Errorf("%s is not evicted: %+v", p.Name, p.Status.Conditions)
				}
			}
		}
		return nil
	})
	c.start("n2")
	c.report("n2")
	testkit.Eventually(t, patience, func() error {
		n := must(get[*corev1.Node](c, "nodes", "", "n2"))
		if len(n.Spec.Taints) > 0 {
			return fmt.Errorf("taints are %v", n.Spec.Taints)
		}
		return nil
	})
	change(c, "deployments.apps", "default", "web", func(d *appsv1.Deployment) { n := int32(8); d.Spec.Replicas = &n })
	rolledOut(c, "web", "web:1", 8)
	on := 0
	for _, p := range list[*corev1.Pod](c, "pods", "default") {
		if p.Spec.NodeName == "n2" && podstate.Active(p) {
			on++
		}
	}
	if on == 0 {
		t.Error("the node that came back is not used")
	}
}

func TestAPIEndpoints(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	testkit.Eventually(t, patience, func() error {
		s, err := get[*discoveryv1.EndpointSlice](c, "endpointslices.discovery.k8s.io", "default", "kubernetes")
		if err != nil {
			return err
		}
		if len(s.Endpoints) != 1 || s.Endpoints[0].Addresses[0] != "192.0.2.1" || *s.Ports[0].Port != 6443 || s.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

func TestEndpointSlices(t *testing.T) {
	testkit.Leaks(t)
	c := newCluster(t, nil)
	c.node("n1")
	c.node("n2")
	c.make(&corev1.Service{}, `{metadata: {name: web, namespace: default, labels: {team: x}}, spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80, targetPort: http}]}}`)
	c.make(&corev1.Service{}, `{metadata: {name: by-hand, namespace: default}, spec: {ports: [{port: 80}]}}`)
	c.make(&appsv1.Deployment{}, `{metadata: {name: web, namespace: default}, spec: {replicas: 130, selector: {matchLabels: {app: web}},
	  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "web:1", ports: [{name: http, containerPort: 8080}]}]}}}}`)
	rolledOut(c, "web", "web:1", 130)
	testkit.Eventually(t, patience, func() error {
		if n := ready(c, "web"); n != 130 {
			return fmt.Errorf("%d endpoints are ready", n)
		}
		return nil
	})
	slices := 0
	for _, s := range list[*discoveryv1.EndpointSlice](c, "endpointslices.discovery.k8s.io", "default") {
		if s.Labels[discoveryv1.LabelServiceName] == "by-hand" {
			t.Errorf("a Service without selector has %s", s.Name)
		}
		if s.Labels[discoveryv1.LabelServiceName] != "web" {
			continue
		}
		slices++
		_, headless := s.Labels[corev1.IsHeadlessService]
		if e := s.Endpoints[0]; !headless || s.Labels["team"] != "x" || *s.Ports[0].Port != 8080 || e.NodeName == nil || e.TargetRef.Kind != "Pod" || len(s.Endpoints) > 100 {
			t.Errorf("%s is %+v", s.Name, s)
		}
	}
	if slices != 2 {
		t.Errorf("%d slices, want 2", slices)
	}
	change(c, "deployments.apps", "default", "web", func(d *appsv1.Deployment) { n := int32(0); d.Spec.Replicas = &n })
	testkit.Eventually(t, patience, func() error {
		if n := ready(c, "web"); n != 0 {
			return fmt.Errorf("%d endpoints are ready", n)
		}
		return nil
	})
}
