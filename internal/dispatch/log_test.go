package dispatch

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCheckLog(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for _, tt := range []struct {
		o    corev1.PodLogOptions
		want string
	}{
		{corev1.PodLogOptions{TailLines: n(0), LimitBytes: n(1), SinceSeconds: n(1)}, ""},
		{corev1.PodLogOptions{TailLines: n(-1)}, "tailLines: Invalid value: -1: must be greater than or equal to 0"},
		{corev1.PodLogOptions{LimitBytes: n(0)}, "limitBytes: Invalid value: 0: must be greater than 0"},
		{corev1.PodLogOptions{SinceSeconds: n(0)}, "sinceSeconds: Invalid value: 0: must be greater than 0"},
		{corev1.PodLogOptions{SinceSeconds: n(1), SinceTime: &metav1.Time{Time: time.Now()}}, "at most one of `sinceTime` or `sinceSeconds` may be specified"},
	} {
		errs := checkLog(&tt.o)
		if tt.want == "" && len(errs) > 0 || tt.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.o, errs, tt.want)
		}
	}
}

// TestContainerNames finds the container that a stream is for.
func TestContainerNames(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i"}}, Containers: []corev1.Container{{Name: "a"}, {Name: "b"}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}}},
	}}
	for name, want := range map[string]string{
		"a": "", "i": "", "e": "", "x": "container x is not valid for pod p",
		"": "a container name must be specified for pod p, choose one of: [i a b e]",
	} {
		got, err := container(p, name)
		if want == "" && (err != nil || got != name) || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}
