package core_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/kinds/core"
)

func podOf(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	return made(t, core.Pod(), text).(*corev1.Pod)
}

func TestEphemeralContainers(t *testing.T) {
	old := podOf(t, pod(`nodeName: n1, containers: [{name: c, image: i}]`))
	old.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "one", Image: "i"}}}
	obj := old.DeepCopy()
	obj.Spec.NodeName, obj.Labels, obj.Status.Phase = "n2", map[string]string{"a": "b"}, corev1.PodRunning
	obj.Spec.EphemeralContainers = append(obj.Spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "two", Image: "i"}, TargetContainerName: "c",
	})
	core.KeepForEphemeral(obj, old)
	if obj.Spec.NodeName != "n1" || obj.Labels != nil || obj.Status.Phase != old.Status.Phase || len(obj.Spec.EphemeralContainers) != 2 {
		t.Errorf("the pod became %+v", obj)
	}
	match(t, core.ValidateEphemeralUpdate(obj, old))
	for _, tt := range []struct {
		name string
		do   func(p *corev1.Pod)
		want []string
	}{
		{"removed", func(p *corev1.Pod) { p.Spec.EphemeralContainers = nil }, []string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "one" may not be removed`}},
		{"changed", func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].Image = "j" }, []string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "one" may not be changed`}},
		{"moved", func(p *corev1.Pod) {
			e := p.Spec.EphemeralContainers
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{e[1], e[0]}
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := obj.DeepCopy()
			tt.do(p)
			match(t, core.ValidateEphemeralUpdate(p, old), tt.want...)
		})
	}
	old.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	match(t, core.ValidateEphemeralUpdate(obj, old), "[]: Forbidden: static pods do not support ephemeral containers")
}

func TestResize(t *testing.T) {
	const had = `{metadata: {name: a}, spec: {nodeName: n1, initContainers: [{name: s, image: i, restartPolicy: Always, resources: {requests: {cpu: 50m}}}],
	  containers: [{name: c, image: i, resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi, ephemeral-storage: 1Gi}}}]}}`
	for _, tt := range []struct {
		name, containers, sidecar string
		want                      []string
	}{
		{"more cpu", `resources: {requests: {cpu: 200m, memory: 64Mi}, limits: {memory: 128Mi, ephemeral-storage: 1Gi}}`, `requests: {cpu: 60m}`, nil},
		{"a new limit", `resources: {requests: {cpu: 200m, memory: 64Mi}, limits: {cpu: "1", memory: 128Mi, ephemeral-storage: 1Gi}}`, `requests: {cpu: 50m}`, nil},
		{"a request gone", `resources: {requests: {memory: 64Mi}, limits: {memory: 128Mi, ephemeral-storage: 1Gi}}`, `requests: {cpu: 50m}`, []string{"spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"}},
		{"a limit gone", `resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {ephemeral-storage: 1Gi}}`, `requests: {cpu: 50m}`, []string{"spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"}},
		{"storage", `resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi, ephemeral-storage: 2Gi}}`, `requests: {cpu: 50m}`, []string{"spec: Forbidden: only cpu and memory resources are mutable"}},
		{"sidecar's gone", `resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi, ephemeral-storage: 1Gi}}`, `{}`, []string{"spec.initContainers[0].resources.requests: Forbidden: resource requests cannot be removed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := podOf(t, had)
			obj := old.DeepCopy()
			sent := &corev1.Container{}
			if err := yaml.UnmarshalStrict([]byte(`{`+tt.containers+`}`), sent); err != nil {
				t.Fatal(err)
			}
			obj.Spec.Containers[0].Resources, obj.Spec.Containers[0].Image, obj.Spec.NodeName = sent.Resources, "other", "n2"
			if err := yaml.UnmarshalStrict([]byte(`{`+trim(tt.sidecar)+`}`), &obj.Spec.InitContainers[0].Resources); err != nil {
				t.Fatal(err)
			}
			if tt.sidecar == "{}" {
				obj.Spec.InitContainers[0].Resources = corev1.ResourceRequirements{}
			}
			core.KeepForResize(obj, old)
			core.Pod().Default(obj)
			if obj.Spec.NodeName != "n1" || obj.Spec.Containers[0].Image != "i" {
				t.Errorf("a resize changed %+v", obj.Spec)
			}
			match(t, core.ValidateResizeUpdate(obj, old), tt.want...)
		})
	}
	old := podOf(t, pod(`containers: [{name: c, image: i}, {name: d, image: i}]`))
	obj := podOf(t, pod(`containers: [{name: d, image: i}, {name: c, image: i}]`))
	core.KeepForResize(obj, old)
	match(t, core.ValidateResizeUpdate(obj, old), "spec.containers: Forbidden: containers may not be renamed or reordered on resize")
	best := podOf(t, pod(`containers: [{name: c, image: i}, {name: d, image: i, resources: {requests: {cpu: 1m}}}]`))
	core.KeepForResize(best, old)
	match(t, core.ValidateResizeUpdate(best, old), `spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing`)
}

func trim(s string) string {
	if s == "{}" {
		return ""
	}
	return s
}

func TestVolumePhaseHasATime(t *testing.T) {
	k := core.PersistentVolume()
	old := made(t, k, `{metadata: {name: v, creationTimestamp: "2026-01-02T03:04:05Z"}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /a}}, status: {phase: Bound}}`).(*corev1.PersistentVolume)
	if old.Status.Phase != corev1.VolumePending || !old.Status.LastPhaseTransitionTime.Equal(&old.CreationTimestamp) {
		t.Errorf("a new volume's status is %+v", old.Status)
	}
	same := old.DeepCopy()
	same.Status.LastPhaseTransitionTime, same.Status.Message = nil, "x"
	k.OnStatus(same, old)
	if !same.Status.LastPhaseTransitionTime.Equal(&old.CreationTimestamp) {
		t.Errorf("the phase stays, and its time becomes %v", same.Status.LastPhaseTransitionTime)
	}
	bound := old.DeepCopy()
	bound.Status.Phase = corev1.VolumeBound
	k.OnStatus(bound, old)
	if !old.CreationTimestamp.Before(bound.Status.LastPhaseTransitionTime) {
		t.Errorf("the phase changes, and its time is %v", bound.Status.LastPhaseTransitionTime)
	}
}

func TestClaimUpdate(t *testing.T) {
	claim := func(spec string) string {
		return `{metadata: {name: c}, spec: {accessModes: [ReadWriteOnce], ` + spec + `}}`
	}
	const one, two = `resources: {requests: {storage: 1Gi}}`, `resources: {requests: {storage: 2Gi}}`
	const fixed = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
	updates{
		{"same", claim(one), claim(one), nil},
		{"bind", claim(one), claim(one + `, volumeName: v`), nil},
		{"class given later", claim(one), claim(one + `, storageClassName: s`), nil},
		{"class changed", claim(one + `, storageClassName: s`), claim(one + `, storageClassName: r`), []string{fixed}},
		{"grow before it is bound", claim(one), claim(two), []string{fixed}},
		{"attributes taken away", claim(one + `, volumeAttributesClassName: s`), claim(one), []string{fixed, "spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"}},
	}.run(t, core.PersistentVolumeClaim())
	k := core.PersistentVolumeClaim()
	old := made(t, k, claim(one+`, volumeName: v`)).(*corev1.PersistentVolumeClaim)
	old.Status.Phase = corev1.ClaimBound
	obj := made(t, k, claim(two+`, volumeName: v`)).(*corev1.PersistentVolumeClaim)
	match(t, k.ValidateUpdate(obj, old))
	match(t, k.ValidateUpdate(old, obj), fixed)
}
