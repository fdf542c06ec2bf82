package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *checker) probes(c *corev1.Container, path *field.Path) {
	v.probe(c.LivenessProbe, path.Child("livenessProbe"))
	v.probe(c.ReadinessProbe, path.Child("readinessProbe"))
	v.probe(c.StartupProbe, path.Child("startupProbe"))
	for _, p := range []struct {
		name string
		of   *corev1.Probe
	}{{"livenessProbe", c.LivenessProbe}, {"startupProbe", c.StartupProbe}} {
		if p.of != nil && p.of.SuccessThreshold != 1 {
			v.invalid(path.Child(p.name, "successThreshold"), p.of.SuccessThreshold, "must be 1")
		}
	}
	if p := c.ReadinessProbe; p != nil && p.TerminationGracePeriodSeconds != nil {
		v.invalid(path.Child("readinessProbe", "terminationGracePeriodSeconds"), *p.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
	}
}

func (v *checker) probe(p *corev1.Probe, path *field.Path) {
	if p == nil {
		return
	}
	v.handler(&action{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, path)
	for _, n := range []struct {
		name string
		of   int32
	}{
		{"initialDelaySeconds", p.InitialDelaySeconds},
		{"timeoutSeconds", p.TimeoutSeconds},
		{"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold},
		{"failureThreshold", p.FailureThreshold},
	} {
		if n.of < 0 {
			v.invalid(path.Child(n.name), int64(n.of), "must be greater than or equal to 0")
		}
	}
	if t := p.TerminationGracePeriodSeconds; t != nil && *t <= 0 {
		v.invalid(path.Child("terminationGracePeriodSeconds"), *t, "must be greater than 0")
	}
}

func (v *checker) lifecycle(l *corev1.Lifecycle, path *field.Path) {
	if l == nil {
		return
	}
	if h := l.PostStart; h != nil {
		v.handler(&action{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path.Child("postStart"))
	}
	if h := l.PreStop; h != nil {
		v.handler(&action{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path.Child("preStop"))
	}
	if l.StopSignal != nil && v.spec.OS == nil {
		v.add(field.Forbidden(path.Child("stopSignal"), "may not be set for containers with empty `spec.os.name`"))
	}
}

// action is what probes and hooks can do.
type action struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (v *checker) handler(a *action, path *field.Path) {
	n := 0
	count := func(name string) {
		if n++; n > 1 {
			v.add(field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
		}
	}
	if a.exec != nil {
		count("exec")
		if len(a.exec.Command) == 0 {
			v.add(field.Required(path.Child("exec", "command"), ""))
		}
	}
	if h := a.http; h != nil {
		count("httpGet")
		at := path.Child("httpGet")
		v.required(at.Child("path"), h.Path)
		v.port(h.Port, at.Child("port"))
		v.oneOf(at.Child("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
		for _, header := range h.HTTPHeaders {
			v.msgs(at.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))
		}
	}
	if a.tcp != nil {
		count("tcpSocket")
		v.port(a.tcp.Port, path.Child("tcpSocket", "port"))
	}
	if a.grpc != nil {
		count("grpc")
		v.port(intstr.FromInt32(a.grpc.Port), path.Child("grpc", "port"))
	}
	if a.sleep != nil {
		count("sleep")
		v.sleep(a.sleep.Seconds, path.Child("sleep"))
	}
	if n == 0 {
		v.add(field.Required(path, "must specify a handler type"))
	}
}

func (v *checker) sleep(seconds int64, path *field.Path) {
	var grace int64
	if v.spec.TerminationGracePeriodSeconds != nil {
		grace = *v.spec.TerminationGracePeriodSeconds
	}
	if seconds < 0 || seconds > grace {
		v.invalid(path, seconds, "must be non-negative and less than terminationGracePeriodSeconds (%d)", grace)
	}
}

// port checks a number or a name.
func (v *checker) port(p intstr.IntOrString, path *field.Path) {
	if p.Type == intstr.String {
		v.msgs(path, p.StrVal, validation.IsValidPortName(p.StrVal))
		return
	}
	v.msgs(path, p.IntValue(), validation.IsValidPortNum(p.IntValue()))
}
