package core

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// unset is what tables print for an optional field that says nothing.
const unset = "<unset>"

// PersistentVolume is the kind of persistent volumes.
func PersistentVolume() *api.Kind {
	spec, status := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return &api.Kind{
		Version: "v1", Kind: "PersistentVolume",
		Resource: "persistentvolumes", Singular: "persistentvolume",
		Warn:         api.Warn(warnVolume),
		ShortNames:   []string{"pv"},
		Verbs:        allVerbs(),
		Subresources: []api.Subresource{{Name: "status", Verbs: statusVerbs()}},
		New:          func() api.Object { return &corev1.PersistentVolume{} },
		Default:      api.On(defaultVolume),
		OnCreate: api.On(func(v *corev1.PersistentVolume) {
			since := v.CreationTimestamp
			v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &since}
		}),
		OnUpdate: api.OnPair(func(v, old *corev1.PersistentVolume) { v.Status = *old.Status.DeepCopy() }),
		OnStatus: api.OnPair(func(v, old *corev1.PersistentVolume) {
			api.KeepMeta(v, old)
			v.Spec = *old.Spec.DeepCopy()
			phaseSince(v, old)
		}),
		Validate:       api.Check(validateVolume),
		ValidateUpdate: api.CheckPair(validateVolumeUpdate),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.TextColumn("Capacity", spec["capacity"]),
			api.TextColumn("Access Modes", spec["accessModes"]),
			api.TextColumn("Reclaim Policy", spec["persistentVolumeReclaimPolicy"]),
			api.TextColumn("Status", status["phase"]),
			api.TextColumn("Claim", spec["claimRef"]),
			api.TextColumn("StorageClass", "The class that the volume belongs to."),
			api.TextColumn("VolumeAttributesClass", "The class of attributes that the volume has."),
			api.TextColumn("Reason", status["reason"]),
			api.AgeColumn(),
			wideText("VolumeMode", "Whether the volume holds a file system or is a raw block device."),
		},
		Cells:               api.Row(volumeCells),
		DeleteAnswersObject: true,
	}
}

// phaseSince notes when the phase changed, unless the writer says so itself.
func phaseSince(v, old *corev1.PersistentVolume) {
	is, was := v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	said := is != nil && !is.Equal(was)
	switch {
	case said:
	case v.Status.Phase != old.Status.Phase:
		now := metav1.Now().Rfc3339Copy()
		v.Status.LastPhaseTransitionTime = &now
	case is == nil:
		v.Status.LastPhaseTransitionTime = was.DeepCopy()
	}
}

func defaultVolume(v *corev1.PersistentVolume) {
	s := &v.Spec
	setText(&v.Status.Phase, corev1.VolumePending)
	setText(&s.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	setPtr(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	switch {
	case s.HostPath != nil:
		setPtr(&s.HostPath.Type, corev1.HostPathUnset)
	case s.ISCSI != nil:
		setText(&s.ISCSI.ISCSIInterface, "default")
	case s.RBD != nil:
		setText(&s.RBD.RBDPool, "rbd")
		setText(&s.RBD.RadosUser, "admin")
		setText(&s.RBD.Keyring, "/etc/ceph/keyring")
	case s.AzureDisk != nil:
		setPtr(&s.AzureDisk.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		setPtr(&s.AzureDisk.Kind, corev1.AzureSharedBlobDisk)
		setPtr(&s.AzureDisk.FSType, "ext4")
		setPtr(&s.AzureDisk.ReadOnly, false)
	case s.ScaleIO != nil:
		setText(&s.ScaleIO.StorageMode, "ThinProvisioned")
		setText(&s.ScaleIO.FSType, "xfs")
	}
}

func setPtr[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}

func volumeCells(v *corev1.PersistentVolume, now time.Time) []any {
	claim := ""
	if r := v.Spec.ClaimRef; r != nil {
		claim = r.Namespace + "/" + r.Name
	}
	class, ok := v.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok {
		class = v.Spec.StorageClassName
	}
	return []any{
		v.Name, amountOf(v.Spec.Capacity), modes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy),
		phase(string(v.Status.Phase), v.DeletionTimestamp), claim, class, orUnset(v.Spec.VolumeAttributesClassName), v.Status.Reason,
		api.Age(v.CreationTimestamp, now), orUnset(v.Spec.VolumeMode),
	}
}

func phase(text string, deleted *metav1.Time) string {
	if deleted != nil {
		return "Terminating"
	}
	return text
}

func amountOf(l corev1.ResourceList) string {
	q := l[corev1.ResourceStorage]
	return q.String()
}

func orUnset[T ~string](p *T) string {
	if p == nil {
		return unset
	}
	return string(*p)
}

// modes abbreviates access modes, each named once.
func modes(list []corev1.PersistentVolumeAccessMode) string {
	has := map[corev1.PersistentVolumeAccessMode]bool{}
	for _, m := range list {
		has[m] = true
	}
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		if has[m.mode] {
			out = append(out, m.short)
		}
	}
	return strings.Join(out, ",")
}
