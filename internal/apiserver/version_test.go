package apiserver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

const (
	newEvents = "events.events.k8s.io/v1"
	hpas      = "horizontalpodautoscalers.autoscaling"
	hpasV1    = "horizontalpodautoscalers.autoscaling/v1"

	anEvent = `{metadata: {name: e1}, eventTime: "2026-01-02T03:04:05.000000Z", reportingController: example.com/c, reportingInstance: c-0,
action: Paint, reason: Painted, regarding: {kind: Pod, namespace: demo, name: web}, note: blue, type: Normal}`
)

// TestEventsInTwoGroups: what is written as an event of one group is read,
// listed, selected, watched and patched as one of the other.
func TestEventsInTwoGroups(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		made := c.must(c.create(newEvents, "demo", anEvent))
		if e, ok := made.(*eventsv1.Event); !ok || e.Note != "blue" || e.APIVersion != "events.k8s.io/v1" || e.UID == "" {
			t.Fatalf("made %+v", made)
		}
		old, err := c.get("events", "demo", "e1")
		wants(t, err, nil, "")
		if e := old.(*corev1.Event); e.Message != "blue" || e.InvolvedObject.Name != "web" || e.ResourceVersion != made.GetResourceVersion() {
			t.Errorf("as a core event: %+v", e)
		}

		patch := func(resource string, pt types.PatchType, body string) api.Object {
			t.Helper()
			return c.must(c.api.Patch(t.Context(), admin, c.at(resource, "demo", "e1", ""), pt, []byte(body), api.WriteOptions{FieldManager: "p"}))
		}
		series := `{"series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}}`
		if e := patch(newEvents, types.StrategicMergePatchType, series).(*eventsv1.Event); e.Series == nil || e.Series.Count != 2 {
			t.Errorf("after a strategic patch: %+v", e.Series)
		}
		if e := patch("events", types.MergePatchType, `{"metadata": {"labels": {"a": "b"}}}`).(*corev1.Event); e.Series == nil || e.Labels["a"] != "b" {
			t.Errorf("after a merge patch: %+v", e)
		}
		patch(newEvents, types.JSONPatchType, `[{"op": "replace", "path": "/series/count", "value": 5}]`)
		e, err := c.get(newEvents, "demo", "e1")
		wants(t, err, nil, "")
		if e := e.(*eventsv1.Event); e.Series.Count != 5 || e.Labels["a"] != "b" {
			t.Errorf("after a JSON patch: %+v", e)
		}
		again := e.DeepCopyObject().(*eventsv1.Event)
		again.Note = "red"
		_, err = c.update(newEvents, again, "")
		wants(t, err, apierr.ErrInvalid, "")

		for field, want := range map[string]int{"regarding.name=web": 1, "regarding.kind=Node": 0, "reportingController=example.com/c": 1} {
			sel := fields.ParseSelectorOrDie(field)
			p, err := c.api.List(t.Context(), admin, c.at(newEvents, "demo", "", ""), api.ListOptions{Selection: api.Selection{Fields: sel}})
			wants(t, err, nil, "")
			if len(p.Records) != want || p.Kind.Group != "events.k8s.io" {
				t.Errorf("%s finds %d of %s", field, len(p.Records), p.Kind.GVK())
			}
		}
		_, err = c.api.List(t.Context(), admin, c.at(newEvents, "demo", "", ""), api.ListOptions{Selection: api.Selection{Fields: fields.ParseSelectorOrDie("involvedObject.name=web")}})
		wants(t, err, apierr.ErrBadRequest, "field label not supported: involvedObject.name")

		d, err := c.delete(newEvents, "demo", "e1", metav1.DeleteOptions{})
		if wants(t, err, nil, ""); !d.Gone {
			t.Error("it is still there")
		}
		_, err = c.get("events", "demo", "e1")
		wants(t, err, apierr.ErrNotFound, `events "e1" not found`)
	})
}

// TestWatchInAnotherVersion: a watcher sees objects in the version of its
// request, whichever they were written in.
func TestWatchInAnotherVersion(t *testing.T) {
	c := local(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := c.api.Watch(ctx, admin, c.at(newEvents, "demo", "", ""), api.WatchOptions{})
	wants(t, err, nil, "")
	defer st.Stop()
	c.must(c.create("events", "demo", `{metadata: {name: e2}, involvedObject: {kind: Pod, namespace: demo, name: web}, message: old, type: Normal}`))
	_, err = c.delete("events", "demo", "e2", metav1.DeleteOptions{})
	wants(t, err, nil, "")
	var seen []string
	for len(seen) < 2 {
		events, err := st.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			obj, err := c.codec.Decode(e.Record)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, string(e.Type)+" "+obj.(*eventsv1.Event).Note)
		}
	}
	if got := strings.Join(seen, ", "); got != "ADDED old, DELETED old" {
		t.Error(got)
	}
}

// TestApplyInTwoVersions: each manager owns fields in the version in which it
// spoke, and conflicts are found between versions.
func TestApplyInTwoVersions(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		apply := func(resource, manager, body string) (api.Value, error) {
			return c.api.Patch(t.Context(), admin, c.at(resource, "demo", "h", ""), types.ApplyPatchType, []byte(body), api.WriteOptions{FieldManager: manager})
		}
		made := c.must(apply(hpasV1, "one", `{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: h},
spec: {maxReplicas: 5, minReplicas: 2, targetCPUUtilizationPercentage: 70, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}}`))
		if h, ok := made.(*autoscalingv1.HorizontalPodAutoscaler); !ok || *h.Spec.TargetCPUUtilizationPercentage != 70 {
			t.Fatalf("made %+v", made)
		}
		obj, err := c.get(hpas, "demo", "h")
		wants(t, err, nil, "")
		h := obj.(*autoscalingv2.HorizontalPodAutoscaler)
		if len(h.Spec.Metrics) != 1 || *h.Spec.Metrics[0].Resource.Target.AverageUtilization != 70 {
			t.Errorf("as v2: %+v", h.Spec.Metrics)
		}
		if m := h.ManagedFields; len(m) != 1 || m[0].APIVersion != "autoscaling/v1" || m[0].Operation != metav1.ManagedFieldsOperationApply {
			t.Errorf("managed fields %+v", m)
		}
		_, err = apply(hpas, "two", `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h}, spec: {maxReplicas: 9}}`)
		wants(t, err, apierr.ErrConflict, `Apply failed with 1 conflict: conflict with "one": .spec.maxReplicas`)
		c.must(apply(hpas, "two", `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h, labels: {a: b}}}`))
		obj, err = c.get(hpasV1, "demo", "h")
		wants(t, err, nil, "")
		versions := map[string]string{}
		for _, m := range obj.GetManagedFields() {
			versions[m.Manager] = m.APIVersion
		}
		if versions["one"] != "autoscaling/v1" || versions["two"] != "autoscaling/v2" || obj.GetLabels()["a"] != "b" {
			t.Errorf("managers %v of %+v", versions, obj)
		}
		// An update in one version takes fields from a manager of the other.
		v1 := obj.DeepCopyObject().(*autoscalingv1.HorizontalPodAutoscaler)
		v1.Spec.MaxReplicas = 7
		updated := c.must(c.update(hpasV1, v1, ""))
		if updated.(*autoscalingv1.HorizontalPodAutoscaler).Spec.MaxReplicas != 7 || updated.GetGeneration() != 2 {
			t.Errorf("after an update %+v", updated)
		}
		again := c.must(apply(hpas, "two", `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h, labels: {a: b}}}`))
		if again.GetResourceVersion() != updated.GetResourceVersion() {
			t.Error("applying the same again wrote something")
		}
		// The status is written in either version.
		v1 = updated.DeepCopyObject().(*autoscalingv1.HorizontalPodAutoscaler)
		v1.Status.DesiredReplicas = 3
		c.must(c.update(hpasV1, v1, "status"))
		obj, err = c.get(hpas, "demo", "h")
		wants(t, err, nil, "")
		if obj.(*autoscalingv2.HorizontalPodAutoscaler).Status.DesiredReplicas != 3 {
			t.Errorf("status %+v", obj.(*autoscalingv2.HorizontalPodAutoscaler).Status)
		}
		v, err := c.api.Create(t.Context(), admin, c.at(hpasV1, "demo", "", ""), c.read(hpasV1, `{metadata: {name: dry}, spec: {maxReplicas: 5, scaleTargetRef: {kind: Deployment, name: web}}}`), api.WriteOptions{DryRun: true})
		if _, ok := c.must(v, err).(*autoscalingv1.HorizontalPodAutoscaler); !ok {
			t.Errorf("a dry run gives %T", v.Object)
		}
	})
}

// TestBindingOfANamespace: the old way to bind a pod does what the new one does.
func TestBindingOfANamespace(t *testing.T) {
	c := local(t)
	c.must(c.create("pods", "demo", aPod))
	body := `{metadata: {name: p}, target: {kind: Node, name: n1}}`
	_, err := c.create("bindings", "demo", body)
	wants(t, err, nil, "")
	pod, err := c.get("pods", "demo", "p")
	wants(t, err, nil, "")
	if got := pod.(*corev1.Pod).Spec.NodeName; got != "n1" {
		t.Errorf("the pod is on %q", got)
	}
	_, err = c.create("bindings", "demo", body)
	wants(t, err, apierr.ErrConflict, `Operation cannot be fulfilled on pods/binding "p"`)
	_, err = c.create("bindings", "demo", `{metadata: {name: none}, target: {kind: Node, name: n1}}`)
	wants(t, err, apierr.ErrNotFound, `pods "none" not found`)
	_, err = c.create("bindings", "demo", `{target: {kind: Node, name: n1}}`)
	wants(t, err, apierr.ErrBadRequest, "name is required")
}
