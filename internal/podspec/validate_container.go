package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxRestartRules = 20

func (v *checker) containers(path *field.Path) {
	if len(v.spec.Containers) == 0 {
		v.add(field.Required(path, ""))
		return
	}
	seen := map[string]bool{}
	for i := range v.spec.Containers {
		c, at := &v.spec.Containers[i], path.Index(i)
		v.container(c, at)
		if seen[c.Name] {
			v.add(field.Duplicate(at.Child("name"), c.Name))
		}
		seen[c.Name] = true
		v.lifecycle(c.Lifecycle, at.Child("lifecycle"))
		v.probes(c, at)
		v.restart(c, at)
	}
	v.hostPorts(v.spec.Containers, path, map[string]bool{})
}

func (v *checker) initContainers(path *field.Path) {
	seen := map[string]bool{}
	for i := range v.spec.Containers {
		seen[v.spec.Containers[i].Name] = true
	}
	for i := range v.spec.InitContainers {
		c, at := &v.spec.InitContainers[i], path.Index(i)
		v.container(c, at)
		if seen[c.Name] && c.Name != "" {
			v.add(field.Duplicate(at.Child("name"), c.Name))
		}
		seen[c.Name] = true
		v.restart(c, at)
		v.hostPorts(v.spec.InitContainers[i:i+1], path, map[string]bool{})
		if Sidecar(c) {
			v.lifecycle(c.Lifecycle, at.Child("lifecycle"))
			v.probes(c, at)
			continue
		}
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"lifecycle", c.Lifecycle != nil},
			{"livenessProbe", c.LivenessProbe != nil},
			{"readinessProbe", c.ReadinessProbe != nil},
			{"startupProbe", c.StartupProbe != nil},
		} {
			if f.set {
				v.add(field.Forbidden(at.Child(f.name), "may not be set for init containers without restartPolicy=Always"))
			}
		}
	}
}

func (v *checker) ephemeralContainers(path *field.Path) {
	if len(v.spec.EphemeralContainers) == 0 {
		return
	}
	seen, targets := map[string]bool{}, map[string]bool{}
	for i := range v.spec.InitContainers {
		seen[v.spec.InitContainers[i].Name] = true
	}
	for i := range v.spec.Containers {
		seen[v.spec.Containers[i].Name] = true
		targets[v.spec.Containers[i].Name] = true
	}
	for i := range v.spec.EphemeralContainers {
		e, at := &v.spec.EphemeralContainers[i], path.Index(i)
		c := corev1.Container(e.EphemeralContainerCommon)
		v.container(&c, at)
		if seen[e.Name] {
			v.add(field.Duplicate(at.Child("name"), e.Name))
		}
		seen[e.Name] = true
		if e.TargetContainerName != "" && !targets[e.TargetContainerName] {
			v.add(field.NotFound(at.Child("targetContainerName"), e.TargetContainerName))
		}
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"ports", len(e.Ports) > 0},
			{"livenessProbe", e.LivenessProbe != nil},
			{"readinessProbe", e.ReadinessProbe != nil},
			{"startupProbe", e.StartupProbe != nil},
			{"lifecycle", e.Lifecycle != nil},
			{"resources", len(e.Resources.Limits)+len(e.Resources.Requests)+len(e.Resources.Claims) > 0},
			{"resizePolicy", len(e.ResizePolicy) > 0},
			{"restartPolicy", e.RestartPolicy != nil},
		} {
			if f.set {
				v.add(field.Forbidden(at.Child(f.name), "cannot be set for an Ephemeral Container"))
			}
		}
		for j, m := range e.VolumeMounts {
			if m.SubPath != "" || m.SubPathExpr != "" {
				v.add(field.Forbidden(at.Child("volumeMounts").Index(j).Child("subPath"), "cannot be set for an Ephemeral Container"))
			}
		}
	}
}

// container checks what holds for containers of every sort.
func (v *checker) container(c *corev1.Container, path *field.Path) {
	if v.required(path.Child("name"), c.Name) {
		v.msgs(path.Child("name"), c.Name, validation.IsDNS1123Label(c.Name))
	}
	if c.Image == "" {
		v.add(field.Required(path.Child("image"), ""))
	} else if v.in == InPod && strings.TrimSpace(c.Image) != c.Image {
		v.invalid(path.Child("image"), c.Image, "must not have leading or trailing whitespace")
	}
	v.oneOf(path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	v.ports(c.Ports, path.Child("ports"))
	v.env(c.Env, path.Child("env"))
	v.envFrom(c.EnvFrom, path.Child("envFrom"))
	v.mounts(c, path.Child("volumeMounts"))
	v.devices(c, path.Child("volumeDevices"))
	v.oneOf(path.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	v.resources(&c.Resources, path.Child("resources"))
	v.resizePolicy(c.ResizePolicy, path.Child("resizePolicy"))
	v.security(c.SecurityContext, path.Child("securityContext"))
}

func (v *checker) restart(c *corev1.Container, path *field.Path) {
	if c.RestartPolicy != nil {
		v.oneOf(path.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyOnFailure, corev1.ContainerRestartPolicyNever)
	}
	rules := path.Child("restartPolicyRules")
	if len(c.RestartPolicyRules) > 0 && c.RestartPolicy == nil {
		v.add(field.Required(path.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	if n := len(c.RestartPolicyRules); n > maxRestartRules {
		v.add(field.TooMany(rules, n, maxRestartRules))
	}
	for i, r := range c.RestartPolicyRules {
		at := rules.Index(i)
		v.oneOf(at.Child("action"), r.Action, corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		if r.ExitCodes == nil {
			v.add(field.Required(at.Child("exitCodes"), "must be specified"))
			continue
		}
		v.oneOf(at.Child("exitCodes", "operator"), r.ExitCodes.Operator, corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(r.ExitCodes.Values); n > 255 {
			v.add(field.TooMany(at.Child("exitCodes", "values"), n, 255))
		}
	}
}

func (v *checker) ports(ports []corev1.ContainerPort, path *field.Path) {
	seen := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" && v.msgs(at.Child("name"), p.Name, validation.IsValidPortName(p.Name)) {
			if seen[p.Name] {
				v.add(field.Duplicate(at.Child("name"), p.Name))
			}
			seen[p.Name] = true
		}
		if p.ContainerPort == 0 {
			v.add(field.Required(at.Child("containerPort"), ""))
		} else {
			v.msgs(at.Child("containerPort"), p.ContainerPort, validation.IsValidPortNum(int(p.ContainerPort)))
		}
		if p.HostPort != 0 {
			v.msgs(at.Child("hostPort"), p.HostPort, validation.IsValidPortNum(int(p.HostPort)))
		}
		if p.HostIP != "" {
			v.add(validation.IsValidIPForLegacyField(at.Child("hostIP"), p.HostIP, false, nil)...)
		}
		v.oneOf(at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

// hostPorts finds two ports of the pod that want the same port of the node.
func (v *checker) hostPorts(containers []corev1.Container, path *field.Path, seen map[string]bool) {
	for i := range containers {
		for j, p := range containers[i].Ports {
			if p.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if seen[key] {
				v.add(field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			seen[key] = true
		}
	}
}

func (v *checker) hostNetwork(path *field.Path) {
	if !v.spec.HostNetwork {
		return
	}
	for _, list := range []struct {
		name string
		of   []corev1.Container
	}{{"containers", v.spec.Containers}, {"initContainers", v.spec.InitContainers}} {
		for i := range list.of {
			for j, p := range list.of[i].Ports {
				if (v.in == InPod || p.HostPort != 0) && p.HostPort != p.ContainerPort {
					v.invalid(path.Child(list.name).Index(i).Child("ports").Index(j).Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true")
				}
			}
		}
	}
}
