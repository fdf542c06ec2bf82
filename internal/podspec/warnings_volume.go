package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The kinds of volumes that Kubernetes no longer knows how to mount.
const (
	gone116 = "deprecated in v1.11, non-functional in v1.16+"
	gone122 = "deprecated in v1.16, non-functional in v1.22+"
	gone125 = "deprecated in v1.22, non-functional in v1.25+"
	gone126 = "deprecated in v1.25, non-functional in v1.26+"
	gone131 = "deprecated in v1.28, non-functional in v1.31+"
)

// volumes looks for kinds of volumes that are gone.
func (w *warner) volumes(list []corev1.Volume) {
	for i := range list {
		v := &list[i]
		for _, old := range [...]struct {
			set        bool
			name, text string
		}{
			{v.PhotonPersistentDisk != nil, "photonPersistentDisk", gone116},
			{v.GitRepo != nil, "gitRepo", "deprecated in v1.11"},
			{v.ScaleIO != nil, "scaleIO", gone122},
			{v.Flocker != nil, "flocker", gone125},
			{v.StorageOS != nil, "storageOS", gone125},
			{v.Quobyte != nil, "quobyte", gone125},
			{v.Glusterfs != nil, "glusterfs", gone126},
			{v.CephFS != nil, "cephfs", gone131},
			{v.RBD != nil, "rbd", gone131},
		} {
			if old.set {
				w.add(w.spec("volumes").Index(i).Child(old.name), "%s", old.text)
			}
		}
		if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
			w.out = append(w.out, ClaimWarnings(func() *field.Path {
				return w.spec("volumes").Index(i).Child("ephemeral", "volumeClaimTemplate", "spec")
			}, &v.Ephemeral.VolumeClaimTemplate.Spec)...)
		}
	}
}

// VolumeWarnings warns of the kinds of volumes that are gone, where a
// PersistentVolume has one.
func VolumeWarnings(at *field.Path, s *corev1.PersistentVolumeSource) []string {
	w := &warner{}
	for _, old := range [...]struct {
		set        bool
		name, text string
	}{
		{s.CephFS != nil, "cephfs", gone131},
		{s.PhotonPersistentDisk != nil, "photonPersistentDisk", gone116},
		{s.ScaleIO != nil, "scaleIO", gone122},
		{s.StorageOS != nil, "storageOS", gone125},
		{s.Glusterfs != nil, "glusterfs", gone126},
		{s.RBD != nil, "rbd", gone131},
	} {
		if old.set {
			w.add(at.Child(old.name), "%s", old.text)
		}
	}
	return w.out
}

// file is where something is put in a volume, and, in a projected volume, what
// puts it there.
type file struct{ path, source, name string }

func (f file) String() string {
	switch {
	case f.source == "":
		return fmt.Sprintf("%q", f.path)
	case f.name == "":
		return fmt.Sprintf("%q (%s)", f.path, f.source)
	}
	return fmt.Sprintf("%q (%s %q)", f.path, f.source, f.name)
}

// overlaps looks for files of a volume that are put onto, or below, each other.
func (w *warner) overlaps(list []corev1.Volume) {
	for i := range list {
		v := &list[i]
		switch {
		case v.ConfigMap != nil:
			w.overlap(v.Name, items(v.ConfigMap.Items, "", ""), func() string { return fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name) })
		case v.Secret != nil:
			w.overlap(v.Name, items(v.Secret.Items, "", ""), func() string { return fmt.Sprintf("Secret %q", v.Secret.SecretName) })
		case v.DownwardAPI != nil:
			w.overlap(v.Name, downward(v.DownwardAPI.Items, ""), func() string { return "DownwardAPI" })
		case v.Projected != nil:
			var all []file
			for _, s := range v.Projected.Sources {
				if s == (corev1.VolumeProjection{}) {
					w.out = append(w.out, fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
				}
				all = append(all, projected(s)...)
			}
			w.overlap(v.Name, all, func() string { return "Projected" })
		}
	}
}

func items(list []corev1.KeyToPath, source, name string) []file {
	out := make([]file, 0, len(list))
	for _, i := range list {
		out = append(out, file{i.Path, source, name})
	}
	return out
}

func downward(list []corev1.DownwardAPIVolumeFile, source string) []file {
	out := make([]file, 0, len(list))
	for _, i := range list {
		out = append(out, file{i.Path, source, ""})
	}
	return out
}

// projected are the files that are known of one source.
func projected(s corev1.VolumeProjection) []file {
	switch {
	case s.ConfigMap != nil:
		return items(s.ConfigMap.Items, "ConfigMap", s.ConfigMap.Name)
	case s.Secret != nil:
		return items(s.Secret.Items, "Secret", s.Secret.Name)
	case s.DownwardAPI != nil:
		return downward(s.DownwardAPI.Items, "DownwardAPI")
	case s.ServiceAccountToken != nil:
		return []file{{s.ServiceAccountToken.Path, "ServiceAccountToken", ""}}
	case s.ClusterTrustBundle != nil:
		name := ""
		if b := s.ClusterTrustBundle; b.Name != nil {
			name = *b.Name
		} else if b.SignerName != nil {
			name = *b.SignerName
		}
		return []file{{s.ClusterTrustBundle.Path, "ClusterTrustBundle", name}}
	case s.PodCertificate != nil:
		c := s.PodCertificate
		return []file{{c.CertificateChainPath, "PodCertificate chain", ""}, {c.KeyPath, "PodCertificate key", ""},
			{c.CredentialBundlePath, "PodCertificate credential bundle", ""}}
	}
	return nil
}

// maxFiles bounds what comparing all files with each other costs.
const maxFiles = 1000

func (w *warner) overlap(volume string, files []file, what func() string) {
	if len(files) > maxFiles {
		return
	}
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		for _, other := range files[:i] {
			if within(files[i].path, other.path) || within(other.path, files[i].path) {
				w.out = append(w.out, fmt.Sprintf("volume %q (%s): overlapping paths: %s with %s", volume, what(), files[i], other))
			}
		}
	}
}

// within reports whether a path is another one or below it.
func within(path, dir string) bool {
	return path != "" && dir != "" && strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}
