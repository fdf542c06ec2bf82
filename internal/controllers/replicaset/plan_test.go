package replicaset

import (
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func set(replicas, minReady int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web", Generation: 3},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, MinReadySeconds: minReady,
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web", "v": "1"}, Annotations: map[string]string{"a": "b"}, Finalizers: []string{"example.com/f"}}},
		},
	}
}

type change func(*corev1.Pod)

// pod is running, and has been ready for an hour on a node, but for changes.
func pod(name string, changes ...change) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web", "v": "1"}, CreationTimestamp: metav1.Time{Time: now.Add(-2 * time.Hour)}},
		Spec:       corev1.PodSpec{NodeName: "n-" + name},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	ready(time.Hour)(p)
	for _, c := range changes {
		c(p)
	}
	return p
}

func ready(since time.Duration) change {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Time{Time: now.Add(-since)}}}
	}
}
func unready(p *corev1.Pod) { p.Status.Conditions = nil }
func unbound(p *corev1.Pod) { p.Spec.NodeName = ""; unready(p) }
func pending(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }
func unknown(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown }
func on(node string) change { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
func cost(n string) change {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: n} }
}
func restarted(n int32) change {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
}
func created(ago time.Duration) change {
	return func(p *corev1.Pod) { p.CreationTimestamp = metav1.Time{Time: now.Add(-ago)} }
}

// Each pod is to go before the next one.
func TestVictims(t *testing.T) {
	crowd := pod("other", on("full"))
	want := []*corev1.Pod{
		pod("unbound", unbound, pending),
		pod("pending", unready, pending),
		pod("unknown", unready, unknown),
		pod("unready", unready),
		pod("cheap", cost("-5")),
		pod("crowded", on("full")),
		pod("crowded too", on("full"), restarted(0)),
		pod("just ready", ready(time.Second)),
		pod("restarts", restarted(3)),
		pod("young", created(time.Minute)),
		pod("old"),
		pod("old too"),
		pod("dear", cost("7"), ready(time.Second)),
	}
	shuffled := []*corev1.Pod{want[7], want[3], want[12], want[0], want[11], want[5], want[9], want[2], want[6], want[10], want[1], want[8], want[4]}
	var got []string
	for _, p := range victims(shuffled, append(shuffled[:len(shuffled):len(shuffled)], crowd), now) {
		got = append(got, p.Name)
	}
	var names []string
	for _, p := range want {
		names = append(names, p.Name)
	}
	if strings.Join(got, ", ") != strings.Join(names, ", ") {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), strings.Join(names, ", "))
	}
}

func TestPlan(t *testing.T) {
	two := []*corev1.Pod{pod("a"), pod("b", unready)}
	for _, tt := range []struct {
		name   string
		rs     *appsv1.ReplicaSet
		active []*corev1.Pod
		create int
		remove string
	}{
		{"nothing yet", set(3, 0), nil, 3, ""},
		{"some", set(3, 0), two, 1, ""},
		{"right", set(2, 0), two, 0, ""},
		{"one too many", set(1, 0), two, 0, "b"},
		{"none wanted", set(0, 0), two, 0, "a b"},
		{"many, in parts", set(5000, 0), nil, 500, ""},
	} {
		got := plan(tt.rs, tt.active, tt.active, now)
		var names []string
		for _, p := range got.remove {
			names = append(names, p.Name)
		}
		if got.create != tt.create || strings.Join(names, " ") != tt.remove {
			t.Errorf("%s: create %d, remove %v", tt.name, got.create, names)
		}
	}
	going := set(3, 0)
	going.DeletionTimestamp = &metav1.Time{Time: now}
	if got := plan(going, nil, nil, now); got.create != 0 {
		t.Error("one that is being deleted makes pods")
	}
}

func TestNewPod(t *testing.T) {
	p := newPod(set(1, 0))
	ref := metav1.GetControllerOf(p)
	if p.GenerateName != "web-" || p.Labels["app"] != "web" || p.Annotations["a"] != "b" || p.Finalizers[0] != "example.com/f" ||
		ref == nil || ref.Kind != "ReplicaSet" || ref.APIVersion != "apps/v1" || ref.UID != "web" || !*ref.BlockOwnerDeletion {
		t.Errorf("%+v", p.ObjectMeta)
	}
}

func TestStatus(t *testing.T) {
	other := pod("c", ready(2*time.Second))
	other.Labels = map[string]string{"app": "web"}
	s, again := status(set(5, 10), []*corev1.Pod{pod("a"), pod("b", unready), other, pod("d", ready(7*time.Second))}, 2, nil, now)
	if s.Replicas != 4 || s.FullyLabeledReplicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 1 || *s.TerminatingReplicas != 2 || s.ObservedGeneration != 3 {
		t.Errorf("%+v", s)
	}
	if again != 3*time.Second {
		t.Errorf("looks again after %v", again)
	}
	rs := set(1, 0)
	failure := condition("FailedCreate", errors.New("no"), now)
	s, _ = status(rs, nil, 0, failure, now)
	if len(s.Conditions) != 1 || s.Conditions[0].Reason != "FailedCreate" || s.Conditions[0].Message != "no" {
		t.Errorf("%+v", s.Conditions)
	}
	rs.Status = s
	if s, _ = status(rs, nil, 0, condition("FailedCreate", errors.New("still no"), now.Add(time.Hour)), now); !s.Conditions[0].LastTransitionTime.Equal(&failure.LastTransitionTime) {
		t.Error("the same failure got another time")
	}
	if s, _ = status(rs, nil, 0, nil, now); len(s.Conditions) != 0 {
		t.Error("the failure is not forgotten")
	}
}
