package podspec

import corev1 "k8s.io/api/core/v1"

// tokenExpiry is the life of a projected service account token, in seconds.
const tokenExpiry = 3600

// defaultVolume fills in a volume's source; a volume without one is an
// emptyDir.
func defaultVolume(v *corev1.VolumeSource) {
	if *v == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	switch {
	case v.HostPath != nil:
		setPtr(&v.HostPath.Type, corev1.HostPathUnset)
	case v.Secret != nil:
		setPtr(&v.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	case v.ConfigMap != nil:
		setPtr(&v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	case v.DownwardAPI != nil:
		setPtr(&v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardFiles(v.DownwardAPI.Items)
	case v.Projected != nil:
		defaultProjected(v.Projected)
	case v.Ephemeral != nil:
		if t := v.Ephemeral.VolumeClaimTemplate; t != nil {
			setPtr(&t.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
		}
	case v.Image != nil:
		setString(&v.Image.PullPolicy, pullPolicy(v.Image.Reference))
	default:
		defaultOldVolume(v)
	}
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	setPtr(&p.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range p.Sources {
		if d := p.Sources[i].DownwardAPI; d != nil {
			defaultDownwardFiles(d.Items)
		}
		if t := p.Sources[i].ServiceAccountToken; t != nil {
			setPtr(&t.ExpirationSeconds, int64(tokenExpiry))
		}
	}
}

func defaultDownwardFiles(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

// defaultOldVolume is for the sources of storage systems that were once built
// in. Wherry mounts none of them, but says of them what Kubernetes says.
func defaultOldVolume(v *corev1.VolumeSource) {
	switch {
	case v.ISCSI != nil:
		setString(&v.ISCSI.ISCSIInterface, "default")
	case v.RBD != nil:
		setString(&v.RBD.RBDPool, "rbd")
		setString(&v.RBD.RadosUser, "admin")
		setString(&v.RBD.Keyring, "/etc/ceph/keyring")
	case v.AzureDisk != nil:
		setPtr(&v.AzureDisk.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		setPtr(&v.AzureDisk.Kind, corev1.AzureSharedBlobDisk)
		setPtr(&v.AzureDisk.FSType, "ext4")
		setPtr(&v.AzureDisk.ReadOnly, false)
	case v.ScaleIO != nil:
		setString(&v.ScaleIO.StorageMode, "ThinProvisioned")
		setString(&v.ScaleIO.FSType, "xfs")
	}
}
