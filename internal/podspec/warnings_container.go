package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// each calls f for all containers; at makes the path of one.
func (w *warner) each(s *corev1.PodSpec, f func(c *corev1.Container, at func() *field.Path)) {
	of := func(list string, i int) func() *field.Path {
		return func() *field.Path { return w.spec(list).Index(i) }
	}
	for i := range s.InitContainers {
		f(&s.InitContainers[i], of("initContainers", i))
	}
	for i := range s.Containers {
		f(&s.Containers[i], of("containers", i))
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		f(&c, of("ephemeralContainers", i))
	}
}

// annotations looks for those that Kubernetes once heeded. Those of containers
// are looked at with them.
func (w *warner) annotations(meta *metav1.ObjectMeta, s *corev1.PodSpec) {
	if len(meta.Annotations) == 0 {
		return
	}
	for _, old := range [...][2]string{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		w.annotation(meta, old[0], old[1])
	}
	if c := s.SecurityContext; c == nil || c.SeccompProfile == nil {
		w.annotation(meta, corev1.SeccompPodAnnotationKey, seccompGone)
	}
}

const (
	seccompGone = `non-functional in v1.27+; use the "seccompProfile" field instead`
	appArmorOld = `deprecated since v1.30; use the "appArmorProfile" field instead`
)

func (w *warner) annotation(meta *metav1.ObjectMeta, key, text string) {
	if _, ok := meta.Annotations[key]; ok {
		w.add(w.at.Child("metadata", "annotations").Key(key), "%s", text)
	}
}

func (w *warner) containers(meta *metav1.ObjectMeta, s *corev1.PodSpec) {
	armored := s.SecurityContext != nil && s.SecurityContext.AppArmorProfile != nil
	w.each(s, func(c *corev1.Container, at func() *field.Path) {
		if len(meta.Annotations) > 0 {
			sc := c.SecurityContext
			if sc == nil || sc.SeccompProfile == nil {
				w.annotation(meta, corev1.SeccompContainerAnnotationKeyPrefix+c.Name, seccompGone)
			}
			if !armored && (sc == nil || sc.AppArmorProfile == nil) {
				w.annotation(meta, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name, appArmorOld)
			}
		}
		w.fractions(c.Resources.Limits, func() *field.Path { return at().Child("resources", "limits") })
		w.fractions(c.Resources.Requests, func() *field.Path { return at().Child("resources", "requests") })
		w.env(c.Env, at)
	})
}

// env looks for variables that hide an earlier one of their name, instead of
// adding to it.
func (w *warner) env(list []corev1.EnvVar, at func() *field.Path) {
	if len(list) < 2 {
		return
	}
	seen := make(map[string]bool, len(list))
	for i, e := range list {
		if !seen[e.Name] {
			seen[e.Name] = true
			continue
		}
		if was := "$(" + e.Name + ")"; e.ValueFrom != nil || e.Value == was || !strings.Contains(e.Value, was) {
			w.add(at().Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", e.Name)
		}
	}
}

// port is one port of a container and where it is.
type port struct {
	*corev1.ContainerPort
	at func() *field.Path
}

// ports looks for ports, and names of ports, that come twice in a pod.
func (w *warner) ports(s *corev1.PodSpec) {
	var all []port
	w.each(s, func(c *corev1.Container, at func() *field.Path) {
		for i := range c.Ports {
			all = append(all, port{&c.Ports[i], func() *field.Path { return at().Child("ports").Index(i) }})
		}
	})
	if len(all) > maxPorts {
		return
	}
	for i, p := range all {
		if p.HostIP != "" && p.HostPort == 0 {
			w.add(p.at(), "hostIP set without hostPort: %s", fmt.Sprintf("%+v", *p.ContainerPort))
		}
		for _, o := range all[:i] {
			if p.ContainerPort.ContainerPort != o.ContainerPort.ContainerPort || p.Protocol != o.Protocol {
				continue
			}
			switch {
			case p.HostIP == o.HostIP && p.HostPort == o.HostPort:
				w.add(p.at(), "duplicate port definition with %s", o.at())
			case p.HostPort == 0 || o.HostPort == 0:
				w.add(p.at(), "overlapping port definition with %s", o.at())
			case p.HostPort == o.HostPort && (p.HostIP == "") != (o.HostIP == ""):
				w.add(p.at(), "dangerously ambiguous port definition with %s", o.at())
			}
		}
	}
	for i, p := range all {
		for _, o := range all[:i] {
			if p.Name != "" && p.Name == o.Name {
				w.add(p.at(), "duplicate port name %q with %[2]s, services and probes that select ports by name will use %[2]s", p.Name, o.at())
				break
			}
		}
	}
}

// maxPorts bounds what comparing all ports with each other costs; nobody who
// names more would read the answer.
const maxPorts = 1000
