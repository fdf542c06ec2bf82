package apiserver_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/store"
)

const aJob = `{metadata: {generateName: j-}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: "a:1"}]}}}}`

// TestJobFindsItsOwnPods: a job selects by its uid, whatever name it was given,
// and its pods carry both.
func TestJobFindsItsOwnPods(t *testing.T) {
	c := local(t)
	j := c.must(c.create("jobs.batch", "demo", aJob)).(*batchv1.Job)
	uid := string(j.UID)
	if !strings.HasPrefix(j.Name, "j-") || j.Spec.Selector.MatchLabels["batch.kubernetes.io/controller-uid"] != uid || len(j.Spec.Selector.MatchLabels) != 1 {
		t.Errorf("%s selects %v", j.Name, j.Spec.Selector)
	}
	for label, want := range map[string]string{
		"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid, "batch.kubernetes.io/job-name": j.Name, "job-name": j.Name,
	} {
		if j.Spec.Template.Labels[label] != want {
			t.Errorf("the label %s is %q, want %q", label, j.Spec.Template.Labels[label], want)
		}
	}
	if j.Generation != 1 {
		t.Errorf("its generation is %d", j.Generation)
	}
}

// TestWhatOrphansByDefault: a DELETE without policy leaves the pods of jobs and
// replication controllers, and of nothing else.
func TestWhatOrphansByDefault(t *testing.T) {
	c := local(t)
	for _, k := range c.api.Kinds().Stored() {
		want := k.KeyResource() == "jobs.batch" || k.KeyResource() == "replicationcontrollers"
		if k.DeleteOrphans != want {
			t.Errorf("%s orphans: %v", k.KeyResource(), k.DeleteOrphans)
		}
	}
	j := c.must(c.create("jobs.batch", "demo", aJob))
	if _, err := c.delete("jobs.batch", "demo", j.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	left, err := c.get("jobs.batch", "demo", j.GetName())
	if err != nil || !slices.Contains(left.GetFinalizers(), metav1.FinalizerOrphanDependents) {
		t.Errorf("a deleted job is %v %v", left, err)
	}
}

// TestScaleOfEveryWorkload: /scale changes the replicas and nothing else.
func TestScaleOfEveryWorkload(t *testing.T) {
	c := local(t)
	const template = `template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}`
	for resource, spec := range map[string]string{
		"replicationcontrollers": template,
		"replicasets.apps":       `selector: {matchLabels: {a: b}}, ` + template,
		"deployments.apps":       `selector: {matchLabels: {a: b}}, ` + template,
		"statefulsets.apps":      `selector: {matchLabels: {a: b}}, ` + template,
	} {
		before := c.must(c.create(resource, "demo", `{metadata: {name: w}, spec: {`+spec+`}}`))
		at := c.at(resource, "demo", "w", "scale")
		v, err := c.api.Get(t.Context(), admin, at, api.GetOptions{})
		if err != nil {
			t.Errorf("%s: %v", resource, err)
			continue
		}
		s := v.Object.(*autoscalingv1.Scale)
		if s.Spec.Replicas != 1 || s.Status.Selector != "a=b" {
			t.Errorf("%s: scale is %+v %+v", resource, s.Spec, s.Status)
		}
		s.Spec.Replicas = 5
		if _, err := c.api.Update(t.Context(), admin, at, s, api.WriteOptions{}); err != nil {
			t.Errorf("%s: %v", resource, err)
		}
		after, err := c.get(resource, "demo", "w")
		if err != nil || after.GetGeneration() != before.GetGeneration()+1 {
			t.Errorf("%s: generation %d, was %d (%v)", resource, after.GetGeneration(), before.GetGeneration(), err)
		}
	}
}

// TestAutoscalerInBothVersions: what one version has no field for is kept in
// annotations, and comes back.
func TestAutoscalerInBothVersions(t *testing.T) {
	c := local(t)
	v1, v2 := api.Target{Group: "autoscaling", Version: "v1", Resource: "horizontalpodautoscalers", Namespace: "demo"}, api.Target{}
	v2 = v1
	v2.Version = "v2"
	old := &autoscalingv1.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "h"},
		Spec:       autoscalingv1.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{Kind: "Deployment", Name: "d", APIVersion: "apps/v1"}, MaxReplicas: 3},
	}
	made := c.must(c.api.Create(t.Context(), admin, v1, old, api.WriteOptions{})).(*autoscalingv1.HorizontalPodAutoscaler)
	if p := made.Spec.TargetCPUUtilizationPercentage; p == nil || *p != 80 || *made.Spec.MinReplicas != 1 {
		t.Errorf("by default it is %+v", made.Spec)
	}
	v1.Name, v2.Name = "h", "h"
	full := c.must(c.api.Get(t.Context(), admin, v2, api.GetOptions{})).(*autoscalingv2.HorizontalPodAutoscaler).DeepCopy()
	percent, window := int32(70), int32(30)
	full.Spec.Metrics = append(full.Spec.Metrics, autoscalingv2.MetricSpec{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{
		Name: "memory", Target: autoscalingv2.MetricTarget{Type: "Utilization", AverageUtilization: &percent},
	}})
	full.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &window}}
	full = c.must(c.api.Update(t.Context(), admin, v2, full, api.WriteOptions{})).(*autoscalingv2.HorizontalPodAutoscaler)

	shown := c.must(c.api.Get(t.Context(), admin, v1, api.GetOptions{})).(*autoscalingv1.HorizontalPodAutoscaler).DeepCopy()
	for _, name := range []string{"autoscaling.alpha.kubernetes.io/metrics", "autoscaling.alpha.kubernetes.io/behavior"} {
		if shown.Annotations[name] == "" {
			t.Errorf("v1 does not say %s: %v", name, shown.Annotations)
		}
	}
	shown.Spec.MaxReplicas = 4
	c.must(c.api.Update(t.Context(), admin, v1, shown, api.WriteOptions{}))
	after := c.must(c.api.Get(t.Context(), admin, v2, api.GetOptions{})).(*autoscalingv2.HorizontalPodAutoscaler)
	if after.Spec.MaxReplicas != 4 || len(after.Spec.Metrics) != 2 || *after.Spec.Behavior.ScaleDown.StabilizationWindowSeconds != 30 || len(after.Annotations) != 0 {
		t.Errorf("after a write in v1 it is %+v %v, was %+v", after.Spec, after.Annotations, full.Spec)
	}
	shown.ResourceVersion, shown.Spec.TargetCPUUtilizationPercentage = "", ptrTo(int32(0))
	_, err := c.api.Update(t.Context(), admin, v1, shown, api.WriteOptions{})
	wants(t, err, apierr.ErrInvalid, `HorizontalPodAutoscaler.autoscaling "h" is invalid: spec.targetCPUUtilizationPercentage: Invalid value: 0: must be greater than 0`)
}

func ptrTo[T any](v T) *T { return &v }

// headless is a store whose cluster has no leader.
type headless struct{ store.Store }

func (headless) Snapshot(context.Context, store.At) (*store.Snapshot, error) {
	return nil, apierr.Unavailable("no leader")
}

func TestComponentStatuses(t *testing.T) {
	c := local(t)
	list := func(s *apiserver.Server) []*corev1.ComponentStatus {
		t.Helper()
		p, err := s.List(t.Context(), admin, c.at("componentstatuses", "", "", ""), api.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var out []*corev1.ComponentStatus
		for _, r := range p.Records {
			obj, err := c.codec.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, obj.(*corev1.ComponentStatus))
		}
		return out
	}
	all := list(c.api)
	if len(all) != 3 || all[1].Name != "etcd-0" || all[1].Conditions[0].Status != corev1.ConditionTrue || all[1].Conditions[0].Message != "ok" {
		t.Errorf("the parts are %+v", all)
	}
	if _, err := c.get("componentstatuses", "", "scheduler"); err != nil {
		t.Error(err)
	}
	_, err := c.get("componentstatuses", "", "nothing")
	wants(t, err, apierr.ErrNotFound, `componentstatuses "nothing" not found`)
	_, err = c.create("componentstatuses", "", `metadata: {name: a}`)
	wants(t, err, apierr.ErrMethodNotAllowed, "")

	lost := apiserver.New(apiserver.Config{Store: headless{c.store}, Codec: c.codec, Alloc: ranges()})
	for _, s := range list(lost) {
		if s.Conditions[0].Status != corev1.ConditionFalse || s.Conditions[0].Error == "" {
			t.Errorf("without a leader %s is %+v", s.Name, s.Conditions)
		}
	}
}
