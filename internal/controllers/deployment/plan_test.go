package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func deploy(replicas int32, surge, unavailable string, image string) *appsv1.Deployment {
	progress, keep := int32(600), int32(2)
	up, down := intstr.Parse(surge), intstr.Parse(unavailable)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, ProgressDeadlineSeconds: &progress, RevisionHistoryLimit: &keep,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
			},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &up, MaxUnavailable: &down},
			},
		},
	}
}

// made makes a ReplicaSet of the deployment with another image, as it would
// stand when its controller is done: of size pods, available of them.
func made(t *testing.T, d *appsv1.Deployment, image string, rev int64, size, available int32) *appsv1.ReplicaSet {
	t.Helper()
	e := d.DeepCopy()
	e.Spec.Template.Spec.Containers[0].Image = image
	rs, err := fresh(e, rev)
	if err != nil {
		t.Fatal(err)
	}
	rs.UID = types.UID(image)
	rs.CreationTimestamp = metav1.Time{Time: epoch.Add(time.Duration(rev) * time.Minute)}
	rs.Spec.Replicas = &size
	annotateSize(rs, d)
	rs.Status = appsv1.ReplicaSetStatus{Replicas: size, ReadyReplicas: available, AvailableReplicas: available}
	return rs
}

// say tells a plan's changes of size, by image.
func say(do actions) string {
	var out []string
	if do.create != nil {
		out = append(out, fmt.Sprintf("create %s %d", do.create.Spec.Template.Spec.Containers[0].Image, *do.create.Spec.Replicas))
	}
	for _, rs := range do.update {
		out = append(out, fmt.Sprintf("%s %d", rs.Spec.Template.Spec.Containers[0].Image, *rs.Spec.Replicas))
	}
	for _, rs := range do.remove {
		out = append(out, "remove "+rs.Spec.Template.Spec.Containers[0].Image)
	}
	return strings.Join(out, ", ")
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		replicas             int32
		surge, unavailable   string
		wantSurge, wantUnavl int32
	}{
		{10, "25%", "25%", 3, 2}, {1, "25%", "25%", 1, 0}, {3, "25%", "25%", 1, 0}, {4, "25%", "25%", 1, 1},
		{10, "0", "5%", 0, 1}, {3, "2", "1", 2, 1}, {2, "0", "5", 0, 2}, {0, "25%", "25%", 0, 0}, {10, "0", "100%", 0, 10},
	} {
		if s, u := limits(deploy(tt.replicas, tt.surge, tt.unavailable, "a")); s != tt.wantSurge || u != tt.wantUnavl {
			t.Errorf("%d pods, %s/%s: %d/%d, want %d/%d", tt.replicas, tt.surge, tt.unavailable, s, u, tt.wantSurge, tt.wantUnavl)
		}
	}
}

func TestPlan(t *testing.T) {
	type in struct {
		d    *appsv1.Deployment
		sets []*appsv1.ReplicaSet
		pods int // that the old ReplicaSets still have
	}
	b := func(replicas int32) *appsv1.Deployment { return deploy(replicas, "25%", "25%", "b") }
	recreate := func() *appsv1.Deployment {
		d := b(3)
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		return d
	}
	paused := func(replicas int32) *appsv1.Deployment {
		d := b(replicas)
		d.Spec.Paused = true
		return d
	}
	done := func(d *appsv1.Deployment) *appsv1.Deployment {
		n := *d.Spec.Replicas
		d.Annotations = map[string]string{revisionKey: "9"}
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
		return d
	}
	unsettled := func(rs *appsv1.ReplicaSet, size int32) *appsv1.ReplicaSet {
		rs.Spec.Replicas, rs.Generation = &size, 5
		return rs
	}
	for _, tt := range []struct {
		name string
		in   in
		want string
	}{
		{"the first", in{d: b(10)}, "create b 10"},
		{"template changed", in{b(10), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 10, 10)}, 0}, "create b 3, a 8"},
		{"small: one more, then one less", in{b(3), []*appsv1.ReplicaSet{made(t, b(3), "a", 1, 3, 3)}, 0}, "create b 1"},
		{"the new one is not available yet", in{b(10), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 8, 8), made(t, b(10), "b", 2, 5, 0)}, 0}, ""},
		{"one of the new is available", in{b(10), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 8, 8), made(t, b(10), "b", 2, 5, 1)}, 0}, "a 7"},
		{"room again", in{b(10), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 7, 7), made(t, b(10), "b", 2, 5, 1)}, 0}, "b 6"},
		{"the old one has not obeyed yet", in{b(10), []*appsv1.ReplicaSet{unsettled(made(t, b(10), "a", 1, 8, 8), 5), made(t, b(10), "b", 2, 5, 5)}, 0}, ""},
		{"unhealthy old ones go first", in{b(10), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 8, 3), made(t, b(10), "b", 2, 5, 5)}, 0}, "a 3"},
		{"nearly done", in{b(10), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 1, 1), made(t, b(10), "b", 2, 10, 10)}, 0}, "a 0"},
		{"done", in{done(b(10)), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 0, 0), made(t, b(10), "b", 2, 10, 10)}, 0}, ""},
		{"history", in{done(b(1)), []*appsv1.ReplicaSet{made(t, b(1), "1", 1, 0, 0), made(t, b(1), "2", 2, 0, 0), made(t, b(1), "3", 3, 0, 0), made(t, b(1), "b", 9, 1, 1)}, 0}, "remove 1"},
		{"rollback uses the old one again", in{b(3), []*appsv1.ReplicaSet{made(t, b(3), "b", 1, 0, 0), made(t, b(3), "a", 2, 3, 3)}, 0}, "b 1"},
		{"rollover: what was new is old at once", in{b(10), []*appsv1.ReplicaSet{made(t, b(10), "1", 1, 7, 7), made(t, b(10), "2", 2, 6, 1)}, 0}, "create b 0, 2 1"},
		{"scaled up in the middle", in{b(20), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 8, 8), made(t, b(10), "b", 2, 5, 5)}, 0}, "a 15, b 10"},
		{"scaled down in the middle", in{b(5), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 8, 8), made(t, b(10), "b", 2, 5, 5)}, 0}, "a 4, b 3"},
		{"scaled", in{b(12), []*appsv1.ReplicaSet{made(t, b(10), "b", 1, 10, 10)}, 0}, "b 12"},
		{"scaled to nothing", in{b(0), []*appsv1.ReplicaSet{made(t, b(10), "b", 1, 10, 10)}, 0}, "b 0"},
		{"paused, template changed", in{paused(10), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 10, 10)}, 0}, ""},
		{"paused, scaled", in{paused(12), []*appsv1.ReplicaSet{made(t, b(10), "a", 1, 10, 10)}, 0}, "a 12"},
		{"recreate: the old ones go", in{recreate(), []*appsv1.ReplicaSet{made(t, recreate(), "a", 1, 3, 3)}, 3}, "a 0"},
		{"recreate: waits for terminating pods", in{recreate(), []*appsv1.ReplicaSet{made(t, recreate(), "a", 1, 0, 0)}, 1}, ""},
		{"recreate: then the new one comes", in{recreate(), []*appsv1.ReplicaSet{made(t, recreate(), "a", 1, 0, 0)}, 0}, "create b 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			do, err := plan(state{deployment: tt.in.d, sets: tt.in.sets, now: epoch.Add(time.Hour), pods: func(*appsv1.ReplicaSet) ([]*corev1.Pod, error) {
				return make([]*corev1.Pod, 0), nil
			}})
			if tt.in.pods > 0 {
				do, err = plan(state{deployment: tt.in.d, sets: tt.in.sets, now: epoch.Add(time.Hour), pods: func(*appsv1.ReplicaSet) ([]*corev1.Pod, error) {
					return []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: epoch}}}}, nil
				}})
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := say(do); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestRevisions(t *testing.T) {
	d := deploy(1, "1", "0", "a")
	d.Annotations = map[string]string{revisionKey: "3", "team": "x", corev1.LastAppliedConfigAnnotation: "{}"}
	back := made(t, d, "a", 1, 0, 0)
	do, err := plan(state{deployment: d, sets: []*appsv1.ReplicaSet{back, made(t, d, "c", 3, 1, 1)}, now: epoch})
	if err != nil {
		t.Fatal(err)
	}
	got := do.update[0].Annotations
	if got[revisionKey] != "4" || got[historyKey] != "1" || got["team"] != "x" || got[corev1.LastAppliedConfigAnnotation] != "" || got[desiredKey] != "1" || got[maxKey] != "2" {
		t.Errorf("the ReplicaSet has %v", got)
	}
	if do.annotations[revisionKey] != "4" || do.annotations["team"] != "x" {
		t.Errorf("the deployment has %v", do.annotations)
	}
}

func TestProgress(t *testing.T) {
	reason := func(s appsv1.DeploymentStatus, c appsv1.DeploymentConditionType) string {
		if c := condition(&s, c); c != nil {
			return string(c.Status) + " " + c.Reason
		}
		return "none"
	}
	run := func(d *appsv1.Deployment, now time.Time, sets ...*appsv1.ReplicaSet) actions {
		t.Helper()
		do, err := plan(state{deployment: d, sets: sets, now: now, pods: func(*appsv1.ReplicaSet) ([]*corev1.Pod, error) { return nil, nil }})
		if err != nil {
			t.Fatal(err)
		}
		d.Status = do.status
		return do
	}
	see := func(d *appsv1.Deployment, want, available string) {
		t.Helper()
		if got := reason(d.Status, appsv1.DeploymentProgressing); got != want {
			t.Errorf("Progressing is %s, want %s", got, want)
		}
		if got := reason(d.Status, appsv1.DeploymentAvailable); got != available {
			t.Errorf("Available is %s, want %s", got, available)
		}
	}
	d := deploy(3, "1", "0", "a")
	run(d, epoch)
	see(d, "True NewReplicaSetCreated", "False MinimumReplicasUnavailable")
	do := run(d, epoch.Add(time.Minute), made(t, d, "a", 1, 3, 1))
	see(d, "True ReplicaSetUpdated", "False MinimumReplicasUnavailable")
	if do.again != 601*time.Second {
		t.Errorf("looks again after %v", do.again)
	}
	run(d, epoch.Add(12*time.Minute), made(t, d, "a", 1, 3, 1))
	see(d, "False ProgressDeadlineExceeded", "False MinimumReplicasUnavailable")
	run(d, epoch.Add(13*time.Minute), made(t, d, "a", 1, 3, 3))
	see(d, "True NewReplicaSetAvailable", "True MinimumReplicasAvailable")
	if s := d.Status; s.Replicas != 3 || s.UpdatedReplicas != 3 || s.ReadyReplicas != 3 || s.UnavailableReplicas != 0 || s.ObservedGeneration != 1 {
		t.Errorf("status is %+v", s)
	}
	run(d, epoch.Add(14*time.Minute), made(t, d, "a", 1, 3, 2))
	see(d, "True NewReplicaSetAvailable", "False MinimumReplicasUnavailable")
	d.Spec.Paused = true
	run(d, epoch.Add(15*time.Minute), made(t, d, "a", 1, 3, 3))
	see(d, "Unknown DeploymentPaused", "True MinimumReplicasAvailable")
	d.Spec.Paused = false
	failing := made(t, d, "a", 1, 3, 3)
	failing.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate"}}
	run(d, epoch.Add(16*time.Minute), failing)
	see(d, "True NewReplicaSetAvailable", "True MinimumReplicasAvailable")
	if got := reason(d.Status, appsv1.DeploymentReplicaFailure); got != "True FailedCreate" {
		t.Errorf("ReplicaFailure is %s", got)
	}
}
