package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// DefaultTemplate fills in what a pod template leaves out: all that Default
// does and nothing that is for pods alone, so that templates stay as written.
func DefaultTemplate(t *corev1.PodTemplateSpec) { Default(&t.Spec) }

// Default fills in what both pods and templates get. Doing it twice is doing it
// once.
func Default(s *corev1.PodSpec) {
	setString(&s.RestartPolicy, corev1.RestartPolicyAlways)
	setString(&s.DNSPolicy, corev1.DNSClusterFirst)
	setString(&s.SchedulerName, corev1.DefaultSchedulerName)
	setPtr(&s.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	if s.SecurityContext == nil {
		s.SecurityContext = &corev1.PodSecurityContext{}
	}
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	s.DeprecatedServiceAccount = s.ServiceAccountName
	for i := range s.Volumes {
		defaultVolume(&s.Volumes[i].VolumeSource)
	}
	roundUp(s.Overhead)
	if s.Resources != nil {
		roundUp(s.Resources.Requests)
		roundUp(s.Resources.Limits)
	}
	eachContainer(s, defaultContainer)
}

// roundUp makes amounts whole thousandths, the least that is counted.
func roundUp(l corev1.ResourceList) {
	for name, q := range l {
		if q.RoundUp(resource.Milli) {
			continue // was exact
		}
		l[name] = q
	}
}

// DefaultPod fills in what only pods get, after Default: requests from limits,
// host ports on the host's network, service links.
func DefaultPod(s *corev1.PodSpec) {
	setPtr(&s.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			list[i].Resources.Requests = requestsFromLimits(list[i].Resources.Requests, list[i].Resources.Limits)
			if s.HostNetwork {
				defaultHostPorts(list[i].Ports)
			}
		}
	}
	defaultPodRequests(s)
}

func requestsFromLimits(requests, limits corev1.ResourceList) corev1.ResourceList {
	for name, limit := range limits {
		if _, ok := requests[name]; ok {
			continue
		}
		if requests == nil {
			requests = corev1.ResourceList{}
		}
		requests[name] = limit.DeepCopy()
	}
	return requests
}

// defaultPodRequests completes pod-level requests where pod-level limits are
// given: with what the containers request, or else with the limits.
func defaultPodRequests(s *corev1.PodSpec) {
	if s.Resources == nil || len(s.Resources.Limits) == 0 {
		return
	}
	of := *s
	of.Resources, of.Overhead = nil, nil
	for _, from := range []corev1.ResourceList{Requests(&of), s.Resources.Limits} {
		for name, q := range from {
			_, has := s.Resources.Requests[name]
			if has || !podLevelResource(name) {
				continue
			}
			if s.Resources.Requests == nil {
				s.Resources.Requests = corev1.ResourceList{}
			}
			s.Resources.Requests[name] = q.DeepCopy()
		}
	}
}

func defaultHostPorts(ports []corev1.ContainerPort) {
	for i := range ports {
		if ports[i].HostPort == 0 {
			ports[i].HostPort = ports[i].ContainerPort
		}
	}
}

func defaultContainer(c *corev1.Container) {
	setString(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setString(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	setString(&c.ImagePullPolicy, pullPolicy(c.Image))
	roundUp(c.Resources.Requests)
	roundUp(c.Resources.Limits)
	for i := range c.Ports {
		setString(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				setPtr(&from.FileKeyRef.Optional, false)
			}
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		defaultProbe(p)
	}
	if l := c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				defaultHTTPGet(h.HTTPGet)
			}
		}
	}
}

// pullPolicy is Always for the tag latest, also where neither tag nor digest is
// given, and IfNotPresent otherwise.
func pullPolicy(image string) corev1.PullPolicy {
	name, _, digest := strings.Cut(image, "@")
	_, tag, tagged := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	if tag == "latest" || (!tagged && !digest) {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	setNumber(&p.TimeoutSeconds, 1)
	setNumber(&p.PeriodSeconds, 10)
	setNumber(&p.SuccessThreshold, 1)
	setNumber(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		setPtr(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(h *corev1.HTTPGetAction) {
	if h != nil {
		setString(&h.Path, "/")
		setString(&h.Scheme, corev1.URISchemeHTTP)
	}
}

func defaultFieldRef(f *corev1.ObjectFieldSelector) {
	if f != nil {
		setString(&f.APIVersion, "v1")
	}
}

// eachContainer visits init, app and ephemeral containers, in this order.
func eachContainer(s *corev1.PodSpec, visit func(*corev1.Container)) {
	for i := range s.InitContainers {
		visit(&s.InitContainers[i])
	}
	for i := range s.Containers {
		visit(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		visit(&c)
		s.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
}

func setString[T ~string](to *T, value T) {
	if *to == "" {
		*to = value
	}
}

func setNumber(to *int32, value int32) {
	if *to == 0 {
		*to = value
	}
}

func setPtr[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}
