package podspec

import (
	"path"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minTokenExpiry = 10 * 60
	maxTokenExpiry = 1 << 32
)

func (v *checker) checkVolumes(p *field.Path) {
	for i := range v.spec.Volumes {
		vol, at := &v.spec.Volumes[i], p.Index(i)
		if v.required(at.Child("name"), vol.Name) {
			v.msgs(at.Child("name"), vol.Name, validation.IsDNS1123Label(vol.Name))
		}
		if v.volumes[vol.Name] != nil {
			v.add(field.Duplicate(at.Child("name"), vol.Name))
		}
		v.volumes[vol.Name] = vol
		v.volume(&vol.VolumeSource, at)
	}
}

// volume checks that there is one source, and what the source says.
func (v *checker) volume(s *corev1.VolumeSource, p *field.Path) {
	set := sources(s)
	if len(set) == 0 {
		v.add(field.Required(p, "must specify a volume type"))
		return
	}
	for _, name := range set[1:] {
		v.add(field.Forbidden(p.Child(name), "may not specify more than 1 volume type"))
	}
	at := p.Child(set[0])
	switch {
	case s.EmptyDir != nil:
		if q := s.EmptyDir.SizeLimit; q != nil && q.Sign() < 0 {
			v.add(field.Forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
	case s.HostPath != nil:
		v.hostPath(s.HostPath, at)
	case s.Secret != nil:
		v.required(at.Child("secretName"), s.Secret.SecretName)
		v.mode(s.Secret.DefaultMode, at.Child("defaultMode"))
		v.keyFiles(s.Secret.Items, at.Child("items"), nil)
	case s.ConfigMap != nil:
		v.required(at.Child("name"), s.ConfigMap.Name)
		v.mode(s.ConfigMap.DefaultMode, at.Child("defaultMode"))
		v.keyFiles(s.ConfigMap.Items, at.Child("items"), nil)
	case s.DownwardAPI != nil:
		v.mode(s.DownwardAPI.DefaultMode, at.Child("defaultMode"))
		v.downwardFiles(s.DownwardAPI.Items, at, nil)
	case s.Projected != nil:
		v.projected(s.Projected, at)
	case s.NFS != nil:
		v.nfs(s.NFS, at)
	case s.PersistentVolumeClaim != nil:
		v.required(at.Child("claimName"), s.PersistentVolumeClaim.ClaimName)
	case s.CSI != nil:
		v.required(at.Child("driver"), s.CSI.Driver)
		if r := s.CSI.NodePublishSecretRef; r != nil {
			v.required(at.Child("nodePublishSecretRef", "name"), r.Name)
		}
	case s.Ephemeral != nil:
		v.ephemeralClaim(s.Ephemeral.VolumeClaimTemplate, at.Child("volumeClaimTemplate"))
	case s.Image != nil:
		if v.in == InPod {
			v.required(at.Child("reference"), s.Image.Reference)
		}
		v.oneOf(at.Child("pullPolicy"), s.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	}
}

// sources lists the JSON names of the sources that are given, in the order of
// the type.
func sources(s *corev1.VolumeSource) []string {
	var out []string
	val := reflect.ValueOf(s).Elem()
	for i := range val.NumField() {
		if !val.Field(i).IsNil() {
			name, _, _ := strings.Cut(val.Type().Field(i).Tag.Get("json"), ",")
			out = append(out, name)
		}
	}
	return out
}

func (v *checker) nfs(n *corev1.NFSVolumeSource, p *field.Path) {
	v.required(p.Child("server"), n.Server)
	if v.required(p.Child("path"), n.Path) && !path.IsAbs(n.Path) {
		v.invalid(p.Child("path"), n.Path, "must be an absolute path")
	}
}

func (v *checker) hostPath(h *corev1.HostPathVolumeSource, p *field.Path) {
	if v.required(p.Child("path"), h.Path) {
		v.noBacksteps(h.Path, p.Child("path"))
	}
	oneOfPtr(v, p.Child("type"), h.Type, corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory,
		corev1.HostPathFileOrCreate, corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)
}

func (v *checker) mode(m *int32, p *field.Path) {
	if m != nil && (*m < 0 || *m > 0o777) {
		v.invalid(p, *m, "must be a number between 0 and 0777 (octal), both inclusive")
	}
}

// paths are the files that a projected volume already has.
type paths map[string]bool

func (v *checker) file(name, of string, at *field.Path, taken paths) {
	if !v.required(at, name) {
		return
	}
	v.localPath(name, at)
	if strings.HasPrefix(name, "..") && !strings.HasPrefix(name, "../") {
		v.invalid(at, name, "must not start with '..'")
	}
	if taken == nil {
		return
	}
	if taken[name] {
		v.invalid(at, of, "conflicting duplicate paths")
	}
	taken[name] = true
}

func (v *checker) keyFiles(items []corev1.KeyToPath, p *field.Path, taken paths) {
	for i, item := range items {
		at := p.Index(i)
		v.required(at.Child("key"), item.Key)
		v.file(item.Path, item.Path, at.Child("path"), taken)
		v.mode(item.Mode, at.Child("mode"))
	}
}

func (v *checker) downwardFiles(items []corev1.DownwardAPIVolumeFile, p *field.Path, taken paths) {
	for i := range items {
		f := &items[i]
		v.file(f.Path, f.Path, p.Child("path"), taken)
		switch {
		case f.FieldRef != nil:
			v.fieldRef(f.FieldRef, filePaths, p.Child("fieldRef"))
			if f.ResourceFieldRef != nil {
				v.invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
			}
		case f.ResourceFieldRef != nil:
			v.resourceRef(f.ResourceFieldRef, true, p.Child("resourceFieldRef"))
		default:
			v.add(field.Required(p, "one of fieldRef and resourceFieldRef is required"))
		}
		v.mode(f.Mode, p.Child("mode"))
	}
}

func (v *checker) projected(s *corev1.ProjectedVolumeSource, p *field.Path) {
	v.mode(s.DefaultMode, p.Child("defaultMode"))
	taken := paths{}
	for i := range s.Sources {
		v.projection(&s.Sources[i], p.Child("sources").Index(i), taken)
	}
}

func (v *checker) projection(s *corev1.VolumeProjection, p *field.Path, taken paths) {
	n := 0
	count := func(name string) *field.Path {
		if n++; n > 1 {
			v.add(field.Forbidden(p.Child(name), "may not specify more than 1 volume type"))
		}
		return p.Child(name)
	}
	if s.Secret != nil {
		at := count("secret")
		v.required(at.Child("name"), s.Secret.Name)
		v.keyFiles(s.Secret.Items, at.Child("items"), taken)
	}
	if s.ConfigMap != nil {
		at := count("configMap")
		v.required(at.Child("name"), s.ConfigMap.Name)
		v.keyFiles(s.ConfigMap.Items, at.Child("items"), taken)
	}
	if s.DownwardAPI != nil {
		v.downwardFiles(s.DownwardAPI.Items, count("downwardAPI"), taken)
	}
	if t := s.ServiceAccountToken; t != nil {
		at := count("serviceAccountToken")
		if e := t.ExpirationSeconds; e == nil {
			v.add(field.Required(at.Child("expirationSeconds"), ""))
		} else if *e < minTokenExpiry {
			v.invalid(at.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes")
		} else if *e > maxTokenExpiry {
			v.invalid(at.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds")
		}
		v.file(t.Path, t.Path, at.Child("path"), taken)
	}
	if t := s.ClusterTrustBundle; t != nil {
		at := count("clusterTrustBundle")
		if t.Name == nil && t.SignerName == nil {
			v.add(field.Required(at, "either name or signerName must be specified"))
		}
		v.file(t.Path, t.Path, at.Child("path"), taken)
	}
	if c := s.PodCertificate; c != nil {
		at := count("podCertificate")
		v.required(at.Child("signerName"), c.SignerName)
		v.required(at.Child("keyType"), c.KeyType)
	}
	if n == 0 {
		v.add(field.Required(p, "must specify a volume type"))
	}
}

func (v *checker) mounts(c *corev1.Container, p *field.Path) {
	devices, devicePaths := map[string]bool{}, map[string]bool{}
	for _, d := range c.VolumeDevices {
		devices[d.Name], devicePaths[d.DevicePath] = true, true
	}
	seen := map[string]bool{}
	for i := range c.VolumeMounts {
		m, at := &c.VolumeMounts[i], p.Index(i)
		v.required(at.Child("name"), m.Name)
		if v.volumes[m.Name] == nil {
			v.add(field.NotFound(at.Child("name"), m.Name))
		}
		v.required(at.Child("mountPath"), m.MountPath)
		if seen[m.MountPath] {
			v.invalid(at.Child("mountPath"), m.MountPath, "must be unique")
		}
		seen[m.MountPath] = true
		if devices[m.Name] {
			v.invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices")
		}
		if devicePaths[m.MountPath] {
			v.invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices")
		}
		v.subPath(m, p, at)
		v.mountModes(m, c, p, at)
	}
}

func (v *checker) subPath(m *corev1.VolumeMount, p, at *field.Path) {
	if m.SubPath != "" {
		v.localPath(m.SubPath, p.Child("subPath"))
	}
	if m.SubPathExpr == "" {
		return
	}
	if m.SubPath != "" {
		v.invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
	}
	v.localPath(m.SubPathExpr, p.Child("subPathExpr"))
}

func (v *checker) mountModes(m *corev1.VolumeMount, c *corev1.Container, p, at *field.Path) {
	if m.MountPropagation != nil {
		oneOfPtr(v, p.Child("mountPropagation"), m.MountPropagation, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
		if *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged(c.SecurityContext) {
			v.add(field.Forbidden(p.Child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	r := m.RecursiveReadOnly
	if r == nil {
		return
	}
	oneOfPtr(v, at.Child("recursiveReadOnly"), r, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled)
	if *r == corev1.RecursiveReadOnlyDisabled {
		return
	}
	if !m.ReadOnly {
		v.add(field.Forbidden(at.Child("recursiveReadOnly"), "may only be specified when readOnly is true"))
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		v.add(field.Forbidden(at.Child("recursiveReadOnly"), "may only be specified when mountPropagation is None or not specified"))
	}
}

func (v *checker) devices(c *corev1.Container, p *field.Path) {
	names, devicePaths := map[string]bool{}, map[string]bool{}
	for i, d := range c.VolumeDevices {
		at := p.Index(i)
		if v.required(at.Child("name"), d.Name) && names[d.Name] {
			v.invalid(at.Child("name"), d.Name, "must be unique")
		}
		names[d.Name] = true
		if vol := v.volumes[d.Name]; vol == nil {
			v.add(field.NotFound(at.Child("name"), d.Name))
		} else if vol.PersistentVolumeClaim == nil && vol.Ephemeral == nil {
			v.invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		if v.required(at.Child("devicePath"), d.DevicePath) && devicePaths[d.DevicePath] {
			v.invalid(at.Child("devicePath"), d.DevicePath, "must be unique")
		}
		devicePaths[d.DevicePath] = true
	}
}

// localPath demands a path below some directory.
func (v *checker) localPath(name string, p *field.Path) {
	if path.IsAbs(name) {
		v.invalid(p, name, "must be a relative path")
	}
	v.noBacksteps(name, p)
}

func (v *checker) noBacksteps(name string, p *field.Path) {
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			v.invalid(p, name, "must not contain '..'")
			return
		}
	}
}
