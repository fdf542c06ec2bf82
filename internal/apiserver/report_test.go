package apiserver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/apiserver"
	"github.com/wherry-project/wherry/internal/kinds"
	"github.com/wherry-project/wherry/internal/store"
)

const leases = "leases.coordination.k8s.io"

func wanted(name string, labels map[string]string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Status: corev1.NodeStatus{Phase: "nonsense"}}
}

func TestRegisterNode(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		n1 := c.api.As(node("n1"))
		obj, err := n1.RegisterNode(ctx, wanted("n1", map[string]string{corev1.LabelHostname: "n1", "rack": "7"}))
		if err != nil {
			t.Fatal(err)
		}
		n := obj.(*corev1.Node)
		if n.UID == "" || n.Spec.PodCIDR == "" || n.Status.Phase != "" || len(n.Spec.Taints) != 1 {
			t.Errorf("registered %+v", n)
		}
		l, err := c.get(leases, corev1.NamespaceNodeLease, "n1")
		if err != nil {
			t.Fatal(err)
		}
		lease := l.(*coordinationv1.Lease)
		if *lease.Spec.HolderIdentity != "n1" || *lease.Spec.LeaseDurationSeconds != 40 || lease.Spec.RenewTime == nil || len(lease.OwnerReferences) != 1 || lease.OwnerReferences[0].UID != n.UID {
			t.Errorf("lease %+v", lease)
		}
		// A user's label stays, and a node that comes again as it was writes nothing.
		mine := n.DeepCopy()
		mine.Labels["mine"] = "yes"
		c.must(c.update("nodes", mine, ""))
		revision := c.snapshot().Revision()
		if obj, err = n1.RegisterNode(ctx, wanted("n1", map[string]string{"rack": "7"})); err != nil || obj.GetLabels()["mine"] != "yes" || obj.GetLabels()[corev1.LabelHostname] != "n1" {
			t.Errorf("again %+v, %v", obj, err)
		}
		if now := c.snapshot().Revision(); now != revision {
			t.Errorf("the same again went from %d to %d", revision, now)
		}
		if obj, err = n1.RegisterNode(ctx, wanted("n1", map[string]string{"rack": "8"})); err != nil || obj.GetLabels()["rack"] != "8" {
			t.Errorf("with a new label %+v, %v", obj, err)
		}
		_, err = n1.RegisterNode(ctx, wanted("n2", nil))
		wants(t, err, apierr.ErrForbidden, `nodes "n2" is forbidden`)
		_, err = n1.RegisterNode(ctx, wanted("n1", map[string]string{"node-restriction.kubernetes.io/a": "b"}))
		wants(t, err, apierr.ErrForbidden, `nodes "n1" is forbidden: node "n1" is not allowed to set the following labels`)
		_, err = c.api.As(jane).RegisterNode(ctx, wanted("n1", nil))
		wants(t, err, apierr.ErrForbidden, "")
		// A node that was deleted and comes again is another; the lease is its.
		if _, err := c.delete("nodes", "", "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if obj, err = n1.RegisterNode(ctx, wanted("n1", nil)); err != nil || obj.GetUID() == n.UID {
			t.Fatalf("anew %+v, %v", obj, err)
		}
		if l, err = c.get(leases, corev1.NamespaceNodeLease, "n1"); err != nil || len(l.GetOwnerReferences()) != 1 || l.GetOwnerReferences()[0].UID != obj.GetUID() {
			t.Errorf("lease %+v, %v", l, err)
		}
		// Without a namespace for leases, nodes work on.
		if _, err := c.delete("namespaces", "", corev1.NamespaceNodeLease, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err = c.api.As(node("n3")).RegisterNode(ctx, wanted("n3", nil)); err != nil {
			t.Error(err)
		}
	})
}

// TestHeartbeatsCostNothing shows readers when a node was last heard of, at an
// unchanged revision, and writes nothing for it.
func TestHeartbeatsCostNothing(t *testing.T) {
	codec := api.NewCodec(kinds.Table(), 16<<20)
	heard := map[string]time.Time{}
	c := open(t, codec, store.NewLocal(codec), apiserver.Config{LiveNode: func(n string) (time.Time, bool) {
		at, ok := heard[n]
		return at, ok
	}})
	ctx := t.Context()
	for _, name := range []string{"n1", "n2"} {
		if _, err := c.api.As(node(name)).RegisterNode(ctx, wanted(name, nil)); err != nil {
			t.Fatal(err)
		}
		status := &corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Unix(1000, 0), LastTransitionTime: metav1.Unix(1000, 0)},
			{Type: corev1.NodeDiskPressure, Status: corev1.ConditionUnknown, LastHeartbeatTime: metav1.Unix(1000, 0)},
		}}
		if err := c.api.As(node(name)).ReportNode(ctx, name, status); err != nil {
			t.Fatal(err)
		}
	}
	c.must(c.create(leases, "demo", `{metadata: {name: n1}, spec: {holderIdentity: mine}}`))
	revision := c.snapshot().Revision()
	stored := map[string]string{}
	show := func() string {
		t.Helper()
		var out []string
		for _, name := range []string{"n1", "n2"} {
			n, err := c.get("nodes", "", name)
			if err != nil {
				t.Fatal(err)
			}
			l, err := c.get(leases, corev1.NamespaceNodeLease, name)
			if err != nil {
				t.Fatal(err)
			}
			for key, obj := range map[string]api.Object{"node " + name: n, "lease " + name: l} {
				if stored[key] == "" {
					stored[key] = obj.GetResourceVersion()
				}
				if obj.GetResourceVersion() != stored[key] {
					t.Errorf("%s is at %s", key, obj.GetResourceVersion())
				}
			}
			conditions, renewed := n.(*corev1.Node).Status.Conditions, l.(*coordinationv1.Lease).Spec.RenewTime
			text := fmt.Sprint(conditions[0].LastHeartbeatTime.Unix(), " ", conditions[1].LastHeartbeatTime.Unix())
			if heard[name].Equal(renewed.Time) {
				text += " renewed"
			}
			out = append(out, text)
		}
		return strings.Join(out, ", ")
	}
	if got, want := show(), "1000 1000, 1000 1000"; got != want {
		t.Errorf("not heard of yet: %s, want %s", got, want)
	}
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	heard["n1"] = later
	want := fmt.Sprintf("%d 1000 renewed, 1000 1000", later.Unix())
	if got := show(); got != want {
		t.Errorf("n1 was heard of: %s, want %s", got, want)
	}
	heard["n1"] = later.Add(4 * time.Second)
	if got, want := show(), fmt.Sprintf("%d 1000 renewed, 1000 1000", later.Unix()+4); got != want {
		t.Errorf("and again: %s, want %s", got, want)
	}
	heard["n2"] = time.Unix(500, 0) // what is stored is newer
	if got, want := show(), fmt.Sprintf("%d 1000 renewed, 1000 1000", later.Unix()+4); got != want {
		t.Errorf("n2 was heard of long ago: %s, want %s", got, want)
	}
	p, err := c.api.List(ctx, admin, c.at(leases, "", "", ""), api.ListOptions{})
	if err != nil || len(p.Records) != 3 {
		t.Fatalf("%q, %v", names(p), err)
	}
	for _, r := range p.Records {
		obj, err := codec.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		l := obj.(*coordinationv1.Lease)
		live := l.Spec.RenewTime != nil && l.Spec.RenewTime.Time.Equal(heard["n1"])
		if want := l.Namespace == corev1.NamespaceNodeLease && l.Name == "n1"; live != want {
			t.Errorf("listed %s/%s renewed at %v", l.Namespace, l.Name, l.Spec.RenewTime)
		}
	}
	if p, err = c.api.List(ctx, admin, c.at("nodes", "", "", ""), api.ListOptions{}); err != nil || len(p.Records) != 2 {
		t.Errorf("%q, %v", names(p), err)
	}
	if now := c.snapshot().Revision(); now != revision {
		t.Errorf("heartbeats went from %d to %d", revision, now)
	}
	// What is shown is not what is stored, and a client may write what it read.
	n, err := c.get("nodes", "", "n1")
	if err != nil {
		t.Fatal(err)
	}
	c.must(c.update("nodes", n.DeepCopyObject().(api.Object), ""))
	if now := c.snapshot().Revision(); now != revision {
		t.Errorf("writing back what was read went from %d to %d", revision, now)
	}
}

func TestReportNode(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		n1 := c.api.As(node("n1"))
		if _, err := n1.RegisterNode(ctx, wanted("n1", nil)); err != nil {
			t.Fatal(err)
		}
		at := func(seconds int64) metav1.Time { return metav1.Unix(seconds, 0) }
		cond := func(status corev1.ConditionStatus, reason string, when int64) corev1.NodeCondition {
			return corev1.NodeCondition{Type: corev1.NodeReady, Status: status, Reason: reason, LastHeartbeatTime: at(when), LastTransitionTime: at(when)}
		}
		obj, err := c.get("nodes", "", "n1")
		if err != nil {
			t.Fatal(err)
		}
		others := obj.DeepCopyObject().(*corev1.Node)
		others.Status.Conditions = []corev1.NodeCondition{{Type: "NetworkUnavailable", Status: corev1.ConditionFalse, Reason: "Others"}}
		c.must(c.update("nodes", others, "status"))
		for i, s := range []struct {
			report corev1.NodeCondition
			writes bool
			beat   int64
			change int64
		}{
			{cond("True", "A", 100), true, 100, 100},
			{cond("True", "A", 200), false, 100, 100},
			{cond("True", "B", 300), true, 300, 100},
			{cond("False", "C", 400), true, 400, 400},
			{cond("False", "C", 500), false, 400, 400},
		} {
			before := c.snapshot().Revision()
			if err := n1.ReportNode(ctx, "n1", &corev1.NodeStatus{Conditions: []corev1.NodeCondition{s.report}}); err != nil {
				t.Fatal(err)
			}
			if wrote := c.snapshot().Revision() != before; wrote != s.writes {
				t.Errorf("step %d: wrote %v", i, wrote)
			}
			obj, err := c.get("nodes", "", "n1")
			if err != nil {
				t.Fatal(err)
			}
			got := obj.(*corev1.Node).Status.Conditions
			if len(got) != 2 || got[0].Reason != "Others" || got[1].LastHeartbeatTime.Unix() != s.beat || got[1].LastTransitionTime.Unix() != s.change {
				t.Errorf("step %d: %+v", i, got)
			}
		}
		wants(t, n1.ReportNode(ctx, "n2", &corev1.NodeStatus{}), apierr.ErrForbidden, "")
		wants(t, c.api.As(node("n9")).ReportNode(ctx, "n9", &corev1.NodeStatus{}), apierr.ErrNotFound, `nodes "n9" not found`)
	})
}

func TestReportPod(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		n1 := c.api.As(node("n1"))
		pod := c.boundPod(aPod, "n1")
		more := pod.DeepCopy()
		more.Status.Conditions = append(more.Status.Conditions,
			corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue}, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
		more.Status.NominatedNodeName = "n7"
		c.must(c.update("pods", more, "status"))
		status := &corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.244.0.5", QOSClass: "nonsense", NominatedNodeName: "nonsense",
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Unix(100, 0)},
				{Type: corev1.PodScheduled, Status: corev1.ConditionFalse},
			},
		}
		report := func() error { return n1.ReportPod(ctx, "demo", "p", string(pod.UID), status) }
		if err := report(); err != nil {
			t.Fatal(err)
		}
		obj, err := c.get("pods", "demo", "p")
		if err != nil {
			t.Fatal(err)
		}
		got := obj.(*corev1.Pod).Status
		var text []string
		for _, cond := range got.Conditions {
			text = append(text, fmt.Sprint(cond.Type, "=", cond.Status))
		}
		if want := "Ready=True PodScheduled=True example.com/gate=True DisruptionTarget=True"; strings.Join(text, " ") != want {
			t.Errorf("conditions %q, want %s", text, want)
		}
		if got.Phase != corev1.PodRunning || got.PodIPs[0].IP != "10.244.0.5" || got.QOSClass != corev1.PodQOSBurstable || got.NominatedNodeName != "n7" {
			t.Errorf("status %+v", got)
		}
		revision := c.snapshot().Revision()
		status.Conditions[0].LastTransitionTime = metav1.Unix(200, 0) // it did not change then
		if err := report(); err != nil || c.snapshot().Revision() != revision {
			t.Errorf("the same again went from %d to %d, %v", revision, c.snapshot().Revision(), err)
		}
		wants(t, n1.ReportPod(ctx, "demo", "p", "other", status), apierr.ErrConflict, `Operation cannot be fulfilled on pods "p": Precondition failed: UID in precondition: other`)
		wants(t, n1.ReportPod(ctx, "demo", "none", "u", status), apierr.ErrNotFound, "")
		wants(t, c.api.As(node("n2")).ReportPod(ctx, "demo", "p", string(pod.UID), status), apierr.ErrForbidden, "")
		status.Phase = corev1.PodSucceeded
		if err := report(); err != nil {
			t.Fatal(err)
		}
		status.Phase = corev1.PodRunning
		wants(t, report(), apierr.ErrConflict, `Operation cannot be fulfilled on pods "p": phase Succeeded is final`)
	})
}

func TestPutEvents(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		d := c.api.As(node("n1"))
		event := func(ns, name, uid string, count int32) *corev1.Event {
			return &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(uid)},
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: ns, Name: "p"}, Reason: "R", Type: "Normal", Count: count,
			}
		}
		c.must(c.create("namespaces", "", `metadata: {name: ending}`))
		if _, err := c.delete("namespaces", "", "ending", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		count := func(name string) int32 {
			obj, err := c.get("events", "demo", name)
			if err != nil {
				return 0
			}
			return obj.(*corev1.Event).Count
		}
		before := c.snapshot().Revision()
		if err := d.PutEvents(ctx, nil); err != nil || c.snapshot().Revision() != before {
			t.Errorf("nothing: %v", err)
		}
		var many []*corev1.Event
		for i := range 200 {
			many = append(many, event("demo", fmt.Sprint("m", i), "u", 1))
		}
		many = append(many, event("default", "a", "u", 1))
		if err := d.PutEvents(ctx, many); err != nil {
			t.Fatal(err)
		}
		if now := c.snapshot().Revision(); now != before+1 {
			t.Errorf("200 events took %d entries", now-before)
		}
		// Counting further; the newest of a name counts; the same again is nothing.
		if err := d.PutEvents(ctx, []*corev1.Event{event("demo", "m1", "u", 5), event("demo", "m1", "u", 7), event("demo", "m2", "u", 1)}); err != nil || count("m1") != 7 {
			t.Errorf("counts %d, %v", count("m1"), err)
		}
		before = c.snapshot().Revision()
		if err := d.PutEvents(ctx, []*corev1.Event{event("demo", "m1", "u", 7)}); err != nil || c.snapshot().Revision() != before {
			t.Errorf("the same again: %v", err)
		}
		// The bad ones are told and keep nobody from being stored.
		bad := []*corev1.Event{
			event("demo", "good", "u", 1), event("gone", "x", "u", 1), event("ending", "x", "u", 1), event("demo", "m3", "another's", 9),
			event("demo", strings.Repeat("x", 300), "u", 1), event("demo", "good2", "", 1),
		}
		err := d.PutEvents(ctx, bad)
		if err == nil || !strings.HasPrefix(err.Error(), "4 of 6 events dropped, the first: ") || !errors.Is(err, apierr.ErrInvalid) {
			t.Errorf("answered %v", err)
		}
		if count("good") != 1 || count("good2") != 1 || count("m3") != 1 {
			t.Errorf("counts %d %d %d", count("good"), count("good2"), count("m3"))
		}
		// More than one command holds.
		long := strings.Repeat("x", 1000)
		many = nil
		for i := range 3000 {
			e := event("demo", fmt.Sprint("l", i), "u", 1)
			e.Message = long
			many = append(many, e)
		}
		before = c.snapshot().Revision()
		if err := d.PutEvents(ctx, many); err != nil {
			t.Fatal(err)
		}
		if n := c.snapshot().Revision() - before; n < 10 || n > 20 {
			t.Errorf("3 MB of events took %d entries", n)
		}
		// An event that went away comes again.
		if _, err := c.delete("events", "demo", "m1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := d.PutEvents(ctx, []*corev1.Event{event("demo", "m1", "u", 8)}); err != nil || count("m1") != 8 {
			t.Errorf("counts %d, %v", count("m1"), err)
		}
		wants(t, c.api.As(jane).PutEvents(ctx, many), apierr.ErrForbidden, "")
		// Ordinary clients meet ordinary rules.
		_, err = c.create("events", "demo", `{metadata: {name: m1}, involvedObject: {namespace: demo}}`)
		wants(t, err, apierr.ErrAlreadyExists, `events "m1" already exists`)
		_, err = c.create("events", "demo", `{metadata: {name: new}, involvedObject: {namespace: other}}`)
		wants(t, err, apierr.ErrInvalid, `Event "new" is invalid: involvedObject.namespace: Invalid value: "other": does not match event.namespace`)
	})
}

func TestDirect(t *testing.T) {
	both(t, func(t *testing.T, c *cluster) {
		ctx, d := t.Context(), c.api.As(admin)
		obj, err := d.Create(ctx, c.read("configmaps", `{metadata: {name: a, namespace: demo}, data: {k: v}}`))
		if err != nil || obj.GetUID() == "" {
			t.Fatalf("%+v, %v", obj, err)
		}
		next := obj.DeepCopyObject().(*corev1.ConfigMap)
		next.Data["k"] = "w"
		if obj, err = d.Update(ctx, next); err != nil || obj.(*corev1.ConfigMap).Data["k"] != "w" {
			t.Errorf("%+v, %v", obj, err)
		}
		_, err = d.Update(ctx, next.DeepCopy())
		wants(t, err, apierr.ErrConflict, "")
		_, err = d.UpdateStatus(ctx, next.DeepCopy())
		wants(t, err, apierr.ErrNotFound, "")
		wants(t, d.Delete(ctx, api.Key{Resource: "configmaps", Namespace: "demo", Name: "b"}, metav1.DeleteOptions{}), apierr.ErrNotFound, "")
		if err := d.Delete(ctx, api.Key{Resource: "configmaps", Namespace: "demo", Name: "a"}, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if err := d.Delete(ctx, api.Key{Resource: "nothings", Name: "a"}, metav1.DeleteOptions{}); err == nil {
			t.Error("what is not served was deleted")
		}
		_, err = c.api.As(jane).Create(ctx, c.read("configmaps", `metadata: {name: a, namespace: demo}`))
		wants(t, err, apierr.ErrForbidden, "")
	})
}
