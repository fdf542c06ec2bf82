package admission

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

const (
	defaultAccount = "default"
	// accessVolume begins the name of the volume by which pods reach the API,
	// accessPath is where it is mounted, and accessSeconds how long its token
	// says it is valid.
	accessVolume  = "kube-api-access-"
	accessPath    = "/var/run/secrets/kubernetes.io/serviceaccount"
	accessSeconds = 60*60 + 7
)

// serviceAccount gives a pod its account: "default" if it names none, the pull
// secrets of the account if it has none of its own, and, unless pod or account
// say otherwise, the volume with token, CA and namespace in every container. A
// pod that names an account that is not there is refused; only the default one
// may still be on its way to a new namespace.
func serviceAccount(r *Request) error {
	pod, ok := r.Object.(*corev1.Pod)
	if !ok || r.Operation != Create || r.Subresource != "" {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	name := pod.Spec.ServiceAccountName
	pod.Spec.DeprecatedServiceAccount = name
	account := &corev1.ServiceAccount{}
	if record, there := r.Snapshot.Get(api.Key{Resource: "serviceaccounts", Namespace: pod.Namespace, Name: name}); there {
		var err error
		if account, err = store.Decode[*corev1.ServiceAccount](r.Snapshot, record); err != nil {
			return err
		}
	} else if name != defaultAccount {
		return apierr.Forbidden("pods", pod.Name, fmt.Errorf("error looking up service account %s/%s: serviceaccount %q not found", pod.Namespace, name, name))
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, account.ImagePullSecrets...)
	}
	if automount(pod, account) {
		mountAccess(pod)
	}
	return nil
}

// automount reports whether the volume is wanted: the pod's word goes before the
// account's.
func automount(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	if b := pod.Spec.AutomountServiceAccountToken; b != nil {
		return *b
	}
	if b := account.AutomountServiceAccountToken; b != nil {
		return *b
	}
	return true
}

// mountAccess mounts the volume where nothing else is.
func mountAccess(pod *corev1.Pod) {
	name, there := "", false
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, accessVolume) {
			name, there = v.Name, true
		}
	}
	if !there {
		name = accessVolume + rand.String(5)
	}
	mounted := false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if !mountsAt(&list[i], accessPath) {
				list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: accessPath})
				mounted = true
			}
		}
	}
	if mounted && !there {
		pod.Spec.Volumes = append(pod.Spec.Volumes, accessOf(name))
	}
}

func mountsAt(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

// accessOf is the volume, with all defaults.
func accessOf(name string) corev1.Volume {
	seconds, mode := int64(accessSeconds), int32(corev1.ProjectedVolumeSourceDefaultMode)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}
