package podworker

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// environment keeps variables in the order in which they were first set.
type environment struct {
	names  []string
	values map[string]string
	// named are those that $(NAME) may name: not the image's own.
	named map[string]string
}

func newEnvironment() *environment {
	return &environment{values: map[string]string{}, named: map[string]string{}}
}

// base sets a variable that only the program sees.
func (e *environment) base(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// set sets a variable that others may name.
func (e *environment) set(name, value string) {
	e.base(name, value)
	e.named[name] = value
}

func (e *environment) list() []string {
	out := make([]string, 0, len(e.names))
	for _, n := range e.names {
		out = append(out, n+"="+e.values[n])
	}
	return out
}

// expand replaces $(NAME) by its value; $$ stands for $, and what is not known
// stays as it is.
func (e *environment) expand(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteString("$(") // never closed: no reference
				i++
				continue
			}
			if v, ok := e.named[s[i+2:i+end]]; ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// environment is the container's: the image's variables, the services', then
// envFrom, then env; the later ones win.
func (w *Worker) environment(spec *corev1.Container, image []string) (*environment, error) {
	e := newEnvironment()
	for _, kv := range image {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			e.base(name, value)
		}
	}
	host, err := w.hostname()
	if err != nil {
		return nil, err
	}
	e.base("HOSTNAME", host)
	for _, v := range w.node.Cluster.ServiceEnv(w.pod) {
		e.set(v.Name, v.Value)
	}
	for _, from := range spec.EnvFrom {
		values, err := w.envFrom(from)
		if err != nil {
			return nil, err
		}
		for _, name := range sortedKeys(values) {
			e.set(from.Prefix+name, values[name])
		}
	}
	for _, v := range spec.Env {
		value, ok, err := w.variable(spec, v, e)
		if err != nil {
			return nil, err
		}
		if ok {
			e.set(v.Name, value)
		}
	}
	if _, ok := e.values["PATH"]; !ok {
		e.base("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return e, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (w *Worker) envFrom(from corev1.EnvFromSource) (map[string]string, error) {
	out := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		cm, ok := w.node.Cluster.ConfigMap(w.pod.Namespace, from.ConfigMapRef.Name)
		if !ok && !isTrue(from.ConfigMapRef.Optional) {
			return nil, fmt.Errorf("configmap %q not found", from.ConfigMapRef.Name)
		}
		if ok {
			out = cm.Data
		}
	case from.SecretRef != nil:
		s, ok := w.node.Cluster.Secret(w.pod.Namespace, from.SecretRef.Name)
		if !ok && !isTrue(from.SecretRef.Optional) {
			return nil, fmt.Errorf("secret %q not found", from.SecretRef.Name)
		}
		if ok {
			for k, v := range s.Data {
				out[k] = string(v)
			}
		}
	}
	return out, nil
}

// variable gives the value of one entry of env; not ok when an optional source
// is missing.
func (w *Worker) variable(spec *corev1.Container, v corev1.EnvVar, known *environment) (string, bool, error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return known.expand(v.Value), true, nil
	case from.FieldRef != nil:
		value, err := w.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := w.resource(spec, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		cm, ok := w.node.Cluster.ConfigMap(w.pod.Namespace, r.Name)
		if !ok {
			return "", false, unless(r.Optional, fmt.Errorf("configmap %q not found", r.Name))
		}
		value, ok := cm.Data[r.Key]
		if !ok {
			return "", false, unless(r.Optional, fmt.Errorf("couldn't find key %s in ConfigMap %s/%s", r.Key, w.pod.Namespace, r.Name))
		}
		return value, true, nil
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		s, ok := w.node.Cluster.Secret(w.pod.Namespace, r.Name)
		if !ok {
			return "", false, unless(r.Optional, fmt.Errorf("secret %q not found", r.Name))
		}
		value, ok := s.Data[r.Key]
		if !ok {
			return "", false, unless(r.Optional, fmt.Errorf("couldn't find key %s in Secret %s/%s", r.Key, w.pod.Namespace, r.Name))
		}
		return string(value), true, nil
	}
	return "", false, fmt.Errorf("env %q: valueFrom names a source that is not built", v.Name)
}

func unless(optional *bool, err error) error {
	if isTrue(optional) {
		return nil
	}
	return err
}

// field gives a field of the pod for the downward API.
func (w *Worker) field(path string) (string, error) {
	p := w.pod
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Annotations[key], nil
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return pairs(p.Labels), nil
	case "metadata.annotations":
		return pairs(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return w.address(), nil
	case "status.hostIP", "status.hostIPs":
		if len(w.node.Addresses) > 0 {
			return w.node.Addresses[0].String(), nil
		}
		return "", nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// subscript gives KEY of a path such as metadata.labels['KEY'].
func subscript(path, field string) (string, bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// pairs writes a map as the downward API's files have it.
func pairs(m map[string]string) string {
	var lines []string
	for _, k := range sortedKeys(m) {
		lines = append(lines, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(lines, "\n")
}

// resource gives a request or limit for the downward API, in units of its
// divisor, rounded up. A limit that is not set is the node's whole.
func (w *Worker) resource(spec *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" {
		spec = w.spec(ref.ContainerName)
	}
	list, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || list != "limits" && list != "requests" {
		return "", fmt.Errorf("unsupported container resource: %v", ref.Resource)
	}
	from := spec.Resources.Limits
	if list == "requests" {
		from = spec.Resources.Requests
	}
	q, ok := from[corev1.ResourceName(name)]
	if !ok && list == "limits" {
		q = w.wholeNode(name)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == "cpu" {
		return fmt.Sprint(int64(math.Ceil(float64(q.MilliValue()) / float64(divisor.MilliValue())))), nil
	}
	return fmt.Sprint(int64(math.Ceil(float64(q.Value()) / float64(divisor.Value())))), nil
}
