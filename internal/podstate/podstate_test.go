package podstate

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func pod(phase corev1.PodPhase, ready corev1.ConditionStatus, ago time.Duration) *corev1.Pod {
	return &corev1.Pod{Status: corev1.PodStatus{Phase: phase, Conditions: []corev1.PodCondition{
		{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Time{Time: now.Add(-ago)}},
	}}}
}

func TestAvailableIn(t *testing.T) {
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		min  int32
		left time.Duration
		ok   bool
	}{
		"no condition":   {&corev1.Pod{}, 0, 0, false},
		"not ready":      {pod("Running", "False", time.Hour), 0, 0, false},
		"ready":          {pod("Running", "True", 0), 0, 0, true},
		"not for long":   {pod("Running", "True", 4*time.Second), 10, 6 * time.Second, true},
		"for long":       {pod("Running", "True", 10*time.Second), 10, 0, true},
		"nobody knows":   {&corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}}}}, 10, 10 * time.Second, true},
		"in the future":  {pod("Running", "True", -5*time.Second), 10, 15 * time.Second, true},
		"unknown status": {pod("Running", "Unknown", 0), 0, 0, false},
	} {
		if left, ok := AvailableIn(tt.pod, tt.min, now); left != tt.left || ok != tt.ok {
			t.Errorf("%s: %v %v", name, left, ok)
		}
	}
}

func TestStates(t *testing.T) {
	p := pod("Running", "True", 0)
	if !Active(p) || Done(p) || Terminating(p) || ReadySince(p) == (metav1.Time{}) {
		t.Error("a running pod is not active")
	}
	p.DeletionTimestamp = &metav1.Time{Time: now}
	if Active(p) || !Terminating(p) {
		t.Error("a pod that is being deleted is active")
	}
	p.Status.Phase = corev1.PodFailed
	if Active(p) || Terminating(p) || !Done(p) {
		t.Error("a failed pod is not done")
	}
}

func TestSetCondition(t *testing.T) {
	p := pod("Running", "True", time.Hour)
	since := p.Status.Conditions[0].LastTransitionTime
	next := corev1.PodCondition{Type: "Ready", Status: "True", LastTransitionTime: metav1.Time{Time: now}}
	if SetCondition(p, next) {
		t.Error("the same again changed something")
	}
	next.Reason = "x"
	if !SetCondition(p, next) || p.Status.Conditions[0].LastTransitionTime != since {
		t.Errorf("%+v: the time of transition moved", p.Status.Conditions)
	}
	next.Status = "False"
	if !SetCondition(p, next) || p.Status.Conditions[0].LastTransitionTime == since {
		t.Errorf("%+v: the time of transition stayed", p.Status.Conditions)
	}
	if !SetCondition(p, corev1.PodCondition{Type: "Other", Status: "True"}) || len(p.Status.Conditions) != 2 {
		t.Error("a new condition was not added")
	}
}
