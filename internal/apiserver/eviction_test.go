package apiserver_test

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

const appPod = `{metadata: {name: %s, labels: {app: %s}}, spec: {containers: [{name: a, image: a:1}]}}`

// app makes a pod of an app that runs, ready or not.
func (c *cluster) app(name, app string, ready bool) *corev1.Pod {
	c.t.Helper()
	p := c.boundPod(fmt.Sprintf(appPod, name, app), "n1").DeepCopy()
	p.Status.Phase = corev1.PodRunning
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: status})
	return c.must(c.update("pods", p, "status")).(*corev1.Pod)
}

func (c *cluster) budget(name, spec string, change func(*policyv1.PodDisruptionBudget)) {
	c.t.Helper()
	b := c.must(c.create("poddisruptionbudgets.policy", "demo", `{metadata: {name: `+name+`}, spec: `+spec+`}`)).DeepCopyObject().(*policyv1.PodDisruptionBudget)
	if change != nil {
		b.Status.ObservedGeneration = b.Generation
		change(b)
		c.must(c.update("poddisruptionbudgets.policy", b, "status"))
	}
}

func (c *cluster) evict(pod string, d *metav1.DeleteOptions, o api.WriteOptions) error {
	c.t.Helper()
	e := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: pod}, DeleteOptions: d}
	v, err := c.api.Create(c.t.Context(), admin, c.at("pods", "demo", pod, "eviction"), e, o)
	if st, ok := v.Object.(*metav1.Status); err == nil && (!ok || st.Status != metav1.StatusSuccess || st.Code != 201) {
		c.t.Errorf("answered %+v", v.Object)
	}
	return err
}

// going reports whether a pod is being deleted as one that was evicted.
func (c *cluster) going(pod string) bool {
	c.t.Helper()
	obj, err := c.get("pods", "demo", pod)
	if errors.Is(err, apierr.ErrNotFound) {
		return true
	}
	if err != nil {
		c.t.Fatal(err)
	}
	p := obj.(*corev1.Pod)
	if p.DeletionTimestamp == nil {
		return false
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.DisruptionTarget && cond.Status == corev1.ConditionTrue && cond.Reason == "EvictionByEvictionAPI" && cond.Message == "Eviction API: evicting" {
			return true
		}
	}
	c.t.Errorf("%s goes with conditions %+v", pod, p.Status.Conditions)
	return true
}

func refusedFor(t *testing.T, err error, cause string, after int32) {
	t.Helper()
	st := apierr.StatusOf(err)
	if st.Code != 429 || st.Message != "Cannot evict pod as it would violate the pod's disruption budget." || st.Details == nil ||
		st.Details.RetryAfterSeconds != after || len(st.Details.Causes) != 1 || st.Details.Causes[0].Type != policyv1.DisruptionBudgetCause || st.Details.Causes[0].Message != cause {
		t.Errorf("answered %d %q %+v, want the cause %q", st.Code, st.Message, st.Details, cause)
	}
}

func TestEviction(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		dry := []string{metav1.DryRunAll}
		c.app("bare", "none", true)
		c.must(c.create("pods", "demo", fmt.Sprintf(appPod, "pending", "web")))
		for _, name := range []string{"w1", "w2", "w3"} {
			c.app(name, "web", true)
		}
		c.app("ill", "web", false)
		c.budget("web", `{minAvailable: 2, selector: {matchLabels: {app: web}}}`, nil)

		// Without a status of its spec a budget lets nobody go.
		refusedFor(t, c.evict("w1", nil, api.WriteOptions{}), "The disruption budget web is still being processed by the server.", 10)
		wants(t, c.evict("nobody", nil, api.WriteOptions{}), apierr.ErrNotFound, `pods "nobody" not found`)
		e := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
		_, err := c.api.Create(t.Context(), admin, c.at("pods", "demo", "w1", "eviction"), e, api.WriteOptions{})
		wants(t, err, apierr.ErrBadRequest, "name in URL does not match name in Eviction object")
		_, err = c.api.Create(t.Context(), jane, c.at("pods", "demo", "w1", "eviction"), e, api.WriteOptions{})
		wants(t, err, apierr.ErrForbidden, "")

		// Those without a budget, and those that run nothing, go.
		wants(t, c.evict("bare", &metav1.DeleteOptions{DryRun: dry}, api.WriteOptions{}), nil, "")
		wants(t, c.evict("bare", nil, api.WriteOptions{DryRun: true}), nil, "")
		if c.going("bare") {
			t.Error("a dry run evicts")
		}
		uid := metav1.NewUIDPreconditions("another")
		wants(t, c.evict("bare", &metav1.DeleteOptions{Preconditions: uid}, api.WriteOptions{}), apierr.ErrConflict, "")
		wants(t, c.evict("bare", nil, api.WriteOptions{}), nil, "")
		wants(t, c.evict("pending", nil, api.WriteOptions{}), nil, "")
		if !c.going("bare") || !c.going("pending") {
			t.Error("they stay")
		}
		wants(t, c.evict("bare", nil, api.WriteOptions{}), nil, "") // again

		// A budget is spent.
		obj, err := c.get("poddisruptionbudgets.policy", "demo", "web")
		if err != nil {
			t.Fatal(err)
		}
		b := obj.DeepCopyObject().(*policyv1.PodDisruptionBudget)
		b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DisruptionsAllowed: 1, CurrentHealthy: 3, DesiredHealthy: 2, ExpectedPods: 4}
		c.must(c.update("poddisruptionbudgets.policy", b, "status"))
		wants(t, c.evict("w1", nil, api.WriteOptions{DryRun: true}), nil, "")
		wants(t, c.evict("w1", nil, api.WriteOptions{}), nil, "")
		refusedFor(t, c.evict("w2", nil, api.WriteOptions{}), "The disruption budget web needs 2 healthy pods and has 3 currently", 0)
		if !c.going("w1") || c.going("w2") {
			t.Error("not w1 alone goes")
		}
		if obj, err = c.get("poddisruptionbudgets.policy", "demo", "web"); err != nil {
			t.Fatal(err)
		}
		b = obj.DeepCopyObject().(*policyv1.PodDisruptionBudget)
		if _, ok := b.Status.DisruptedPods["w1"]; !ok || b.Status.DisruptionsAllowed != 0 || len(b.Status.Conditions) != 1 || b.Status.Conditions[0].Reason != "InsufficientPods" {
			t.Errorf("status %+v", b.Status)
		}
		wants(t, c.evict("w1", nil, api.WriteOptions{}), nil, "") // it goes already

		// One that is not ready goes while there are enough of the others.
		wants(t, c.evict("ill", nil, api.WriteOptions{DryRun: true}), nil, "")
		b.Status.CurrentHealthy = 1
		b = c.must(c.update("poddisruptionbudgets.policy", b, "status")).DeepCopyObject().(*policyv1.PodDisruptionBudget)
		refusedFor(t, c.evict("ill", nil, api.WriteOptions{}), "The disruption budget web needs 2 healthy pods and has 1 currently", 0)
		always := policyv1.AlwaysAllow
		b.Spec.UnhealthyPodEvictionPolicy = &always
		c.must(c.update("poddisruptionbudgets.policy", b, ""))
		wants(t, c.evict("ill", nil, api.WriteOptions{}), nil, "")
		if !c.going("ill") {
			t.Error("ill stays")
		}

		// Two budgets of one pod are one too many.
		c.budget("more", `{maxUnavailable: 1, selector: {}}`, nil)
		if err := c.evict("w3", nil, api.WriteOptions{}); apierr.StatusOf(err).Code != 500 ||
			err.Error() != "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support." {
			t.Errorf("two budgets: %v", err)
		}
	})
}
