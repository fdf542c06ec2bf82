package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The paths that may be asked of a pod, in an environment and in a file.
const (
	envPaths  = "metadata.name metadata.namespace metadata.uid spec.nodeName spec.serviceAccountName status.hostIP status.hostIPs status.podIP status.podIPs"
	filePaths = "metadata.annotations metadata.labels metadata.name metadata.namespace metadata.uid"
	podPaths  = envPaths + " metadata.annotations metadata.labels spec.restartPolicy spec.schedulerName status.phase"
	amounts   = "limits.cpu limits.ephemeral-storage limits.memory requests.cpu requests.ephemeral-storage requests.memory"
)

const memoryDivisors = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"

func (v *checker) env(vars []corev1.EnvVar, path *field.Path) {
	for i := range vars {
		e, at := &vars[i], path.Index(i)
		if v.required(at.Child("name"), e.Name) {
			v.msgs(at.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))
		}
		if e.ValueFrom != nil {
			v.envSource(e, at.Child("valueFrom"))
		}
	}
}

func (v *checker) envSource(e *corev1.EnvVar, path *field.Path) {
	from, sources := e.ValueFrom, 0
	if from.FieldRef != nil {
		sources++
		v.fieldRef(from.FieldRef, envPaths, path.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		sources++
		v.resourceRef(from.ResourceFieldRef, false, path.Child("resourceFieldRef"))
	}
	if r := from.ConfigMapKeyRef; r != nil {
		sources++
		v.keyRef(r.Name, r.Key, path.Child("configMapKeyRef"))
	}
	if r := from.SecretKeyRef; r != nil {
		sources++
		v.keyRef(r.Name, r.Key, path.Child("secretKeyRef"))
	}
	if r := from.FileKeyRef; r != nil {
		sources++
		at := path.Child("fileKeyRef")
		if v.required(at.Child("volumeName"), r.VolumeName) && v.volumes[r.VolumeName] == nil {
			v.add(field.NotFound(at.Child("volumeName"), r.VolumeName))
		}
		if v.required(at.Child("path"), r.Path) {
			v.localPath(r.Path, at.Child("path"))
		}
		v.required(at.Child("key"), r.Key)
	}
	switch {
	case sources == 0:
		v.invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case e.Value != "":
		v.invalid(path, "", "may not be specified when `value` is not empty")
	case sources > 1:
		v.invalid(path, "", "may not have more than one field specified at a time")
	}
}

func (v *checker) keyRef(name, key string, path *field.Path) {
	if v.required(path.Child("name"), name) {
		v.msgs(path.Child("name"), name, validation.IsDNS1123Subdomain(name))
	}
	if v.required(path.Child("key"), key) {
		v.msgs(path.Child("key"), key, validation.IsConfigMapKey(key))
	}
}

func (v *checker) envFrom(all []corev1.EnvFromSource, path *field.Path) {
	for i, e := range all {
		at, sources := path.Index(i), 0
		if e.Prefix != "" {
			v.msgs(at.Child("prefix"), e.Prefix, validation.IsRelaxedEnvVarName(e.Prefix))
		}
		if e.ConfigMapRef != nil {
			sources++
			v.envRef(e.ConfigMapRef.Name, at.Child("configMapRef", "name"))
		}
		if e.SecretRef != nil {
			sources++
			v.envRef(e.SecretRef.Name, at.Child("secretRef", "name"))
		}
		switch sources {
		case 0:
			v.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
		case 2:
			v.invalid(path, "", "may not have more than one field specified at a time")
		}
	}
}

func (v *checker) envRef(name string, path *field.Path) {
	if v.required(path, name) {
		v.msgs(path, name, validation.IsDNS1123Subdomain(name))
	}
}

// fieldRef checks a reference to one of the pod's own fields.
func (v *checker) fieldRef(f *corev1.ObjectFieldSelector, allowed string, path *field.Path) {
	if !v.required(path.Child("apiVersion"), f.APIVersion) || !v.required(path.Child("fieldPath"), f.FieldPath) {
		return
	}
	at := path.Child("fieldPath")
	name, key, indexed := splitIndexed(f.FieldPath)
	switch {
	case f.APIVersion != "v1":
		v.invalid(at, f.FieldPath, "error converting fieldPath: unsupported pod version: %s", f.APIVersion)
	case indexed && name == "metadata.annotations":
		v.msgs(path, key, validation.IsQualifiedName(strings.ToLower(key)))
	case indexed && name == "metadata.labels":
		v.msgs(path, key, validation.IsQualifiedName(key))
	case indexed && contains(podPaths, name):
		v.invalid(path, name, "does not support subscript")
	case !contains(podPaths, f.FieldPath):
		v.invalid(at, f.FieldPath, "error converting fieldPath: field label not supported: %s", f.FieldPath)
	case !contains(allowed, f.FieldPath):
		v.add(field.NotSupported(at, f.FieldPath, strings.Fields(allowed)))
	}
}

// splitIndexed takes metadata.labels['key'] apart.
func splitIndexed(path string) (name, key string, ok bool) {
	name, rest, ok := strings.Cut(path, "['")
	if !ok || !strings.HasSuffix(rest, "']") {
		return path, "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

func contains(words, word string) bool {
	for _, w := range strings.Fields(words) {
		if w == word {
			return true
		}
	}
	return false
}

// resourceRef checks a reference to what a container requests or may take.
func (v *checker) resourceRef(r *corev1.ResourceFieldSelector, inFile bool, path *field.Path) {
	if inFile && !v.required(path.Child("containerName"), r.ContainerName) {
		return
	}
	if !v.required(path.Child("resource"), r.Resource) {
		return
	}
	huge := strings.HasPrefix(r.Resource, "limits."+corev1.ResourceHugePagesPrefix) || strings.HasPrefix(r.Resource, "requests."+corev1.ResourceHugePagesPrefix)
	if !huge && !contains(amounts, r.Resource) {
		v.add(field.NotSupported(path.Child("resource"), r.Resource, strings.Fields(amounts)))
	}
	if r.Divisor.IsZero() {
		return
	}
	_, what, _ := strings.Cut(r.Resource, ".")
	allowed := "1m and 1"
	if what != "cpu" {
		allowed = memoryDivisors
	}
	d := r.Divisor.String()
	for _, a := range strings.FieldsFunc(allowed, func(c rune) bool { return c == ',' || c == ' ' }) {
		if d == a {
			return
		}
	}
	if huge {
		what = "hugepages"
	}
	v.invalid(path.Child("divisor"), d, "%s", fmt.Sprintf("only divisor's values %s are supported with the %s resource", allowed, divisorName(what)))
}

func divisorName(what string) string {
	if what == string(corev1.ResourceEphemeralStorage) {
		return "local ephemeral storage"
	}
	return what
}
