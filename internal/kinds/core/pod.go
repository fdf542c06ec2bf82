package core

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/podspec"
)

// Pod is the kind of pods.
func Pod() *api.Kind {
	return &api.Kind{
		Version: "v1", Kind: "Pod",
		Resource: "pods", Singular: "pod",
		Warn:       api.Warn(warnPod),
		ShortNames: []string{"po"},
		Categories: []string{"all"},
		Namespaced: true,
		Verbs:      allVerbs(),
		Subresources: []api.Subresource{
			{Name: "attach", Kind: "PodAttachOptions", Verbs: []string{"create", "get"}},
			{Name: "binding", Kind: "Binding", New: func() runtime.Object { return &corev1.Binding{} }, Verbs: []string{"create"}},
			{Name: "ephemeralcontainers", Verbs: statusVerbs(), OnUpdate: api.OnPair(KeepForEphemeral), ValidateUpdate: api.CheckPair(ValidateEphemeralUpdate)},
			{Name: "eviction", Group: "policy", Version: "v1", Kind: "Eviction", New: func() runtime.Object { return &policyv1.Eviction{} }, Verbs: []string{"create"}},
			{Name: "exec", Kind: "PodExecOptions", Verbs: []string{"create", "get"}},
			{Name: "log", Verbs: []string{"get"}},
			{Name: "portforward", Kind: "PodPortForwardOptions", Verbs: []string{"create", "get"}},
			{Name: "proxy", Kind: "PodProxyOptions", Verbs: proxyVerbs()},
			{Name: "resize", Verbs: statusVerbs(), OnUpdate: api.OnPair(KeepForResize), ValidateUpdate: api.CheckPair(ValidateResizeUpdate)},
			{Name: "status", Verbs: statusVerbs()},
		},
		New: func() api.Object { return &corev1.Pod{} },
		Default: api.On(func(p *corev1.Pod) {
			podspec.Default(&p.Spec)
			podspec.DefaultPod(&p.Spec)
		}),
		OnCreate: api.On(func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: podspec.QOS(&p.Spec)}
		}),
		OnUpdate:            api.OnPair(func(p, old *corev1.Pod) { p.Status = *old.Status.DeepCopy() }),
		OnStatus:            api.OnPair(keepOfPod),
		SpecOf:              api.Of(func(p *corev1.Pod) any { return &p.Spec }),
		Validate:            api.Check(validatePod),
		ValidateCreate:      api.Check(validateNewPod),
		ValidateUpdate:      api.CheckPair(validatePodUpdate),
		ValidateStatus:      api.CheckPair(validatePodStatus),
		Columns:             podColumns(),
		Cells:               podCells,
		FieldNames:          podFields(),
		Fields:              api.Of(podValues),
		Grace:               podGrace,
		DeleteAnswersObject: true,
	}
}

// keepOfPod keeps all but the status, and the quality of service, which is
// found once. The one and the many addresses are made to agree.
func keepOfPod(p, old *corev1.Pod) {
	api.KeepMeta(p, old)
	p.Spec = *old.Spec.DeepCopy()
	p.Status.QOSClass = old.Status.QOSClass
	s := &p.Status
	if s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP) {
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
	if s.PodIP == "" && len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
	if s.HostIP != "" && len(s.HostIPs) == 0 {
		s.HostIPs = []corev1.HostIP{{IP: s.HostIP}}
	}
}

// podGrace is what was asked for, or what the pod says. A pod that nothing runs
// of goes at once.
func podGrace(obj api.Object, asked *int64) int64 {
	p := obj.(*corev1.Pod)
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return 0
	}
	grace := int64(0)
	if asked != nil {
		grace = *asked
	} else if p.Spec.TerminationGracePeriodSeconds != nil {
		grace = *p.Spec.TerminationGracePeriodSeconds
	}
	if grace < 0 {
		return 1
	}
	return grace
}

func podFields() []string {
	return []string{
		"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
	}
}

func podValues(p *corev1.Pod) map[string]string {
	ips := make([]string, len(p.Status.PodIPs))
	for i, ip := range p.Status.PodIPs {
		ips[i] = ip.IP
	}
	return map[string]string{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             p.Status.PodIP,
		"status.podIPs":            strings.Join(ips, ","),
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}
