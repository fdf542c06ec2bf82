package core

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

// warnPod is for new pods only: those that are there are written by programs,
// and often.
func warnPod(p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	out := podspec.Warnings(nil, &p.ObjectMeta, &p.Spec)
	if bad := validation.IsDNS1123Label(p.Name); len(bad) > 0 {
		out = append([]string{fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", bad)}, out...)
	}
	return out
}

func warnPodTemplate(t, _ *corev1.PodTemplate) []string {
	return podspec.Warnings(field.NewPath("template"), &t.Template.ObjectMeta, &t.Template.Spec)
}

func warnReplication(c, old *corev1.ReplicationController) []string {
	var out []string
	if old == nil {
		out = podspec.NameWarnings(c.Name)
	}
	if t := c.Spec.Template; t != nil && (old == nil || old.Generation != c.Generation) {
		out = append(out, podspec.Warnings(field.NewPath("spec", "template"), &t.ObjectMeta, &t.Spec)...)
	}
	return out
}

func warnService(s, _ *corev1.Service) []string {
	var out []string
	if _, old := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; old {
		out = append(out, fmt.Sprintf("annotation %s is deprecated, please use %s instead", corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	at := field.NewPath("spec")
	external := s.Spec.Type == corev1.ServiceTypeExternalName
	headless := s.Spec.Type == corev1.ServiceTypeClusterIP && s.Spec.ClusterIP == corev1.ClusterIPNone
	if !external && s.Spec.ClusterIP != corev1.ClusterIPNone {
		for i, ip := range s.Spec.ClusterIPs {
			out = append(out, podspec.AddressWarnings(at.Child("clusterIPs").Index(i), ip)...)
		}
	}
	if headless {
		if s.Spec.LoadBalancerIP != "" {
			out = append(out, "spec.loadBalancerIP is ignored for headless services")
		}
		if len(s.Spec.ExternalIPs) > 0 {
			out = append(out, "spec.externalIPs is ignored for headless services")
		}
		if s.Spec.SessionAffinity != corev1.ServiceAffinityNone {
			out = append(out, "spec.SessionAffinity is ignored for headless services")
		}
	}
	for i, ip := range s.Spec.ExternalIPs {
		out = append(out, podspec.AddressWarnings(at.Child("externalIPs").Index(i), ip)...)
	}
	if s.Spec.LoadBalancerIP != "" {
		out = append(out, podspec.AddressWarnings(at.Child("loadBalancerIP"), s.Spec.LoadBalancerIP)...)
	}
	for i, cidr := range s.Spec.LoadBalancerSourceRanges {
		out = append(out, podspec.RangeWarnings(at.Child("loadBalancerSourceRanges").Index(i), strings.TrimSpace(cidr))...)
	}
	if external && len(s.Spec.ExternalIPs) > 0 {
		out = append(out, fmt.Sprintf("spec.externalIPs is ignored when spec.type is %q", corev1.ServiceTypeExternalName))
	}
	if !external && s.Spec.ExternalName != "" {
		out = append(out, fmt.Sprintf("spec.externalName is ignored when spec.type is not %q", corev1.ServiceTypeExternalName))
	}
	return out
}

// warnEndpoints spares what the controller writes; its addresses are right.
func warnEndpoints(e, _ *corev1.Endpoints) []string {
	if e.Labels["endpoints.kubernetes.io/managed-by"] == "endpoint-controller" {
		return nil
	}
	var out []string
	for i, s := range e.Subsets {
		at := field.NewPath("subsets").Index(i)
		for j, a := range s.Addresses {
			out = append(out, podspec.AddressWarnings(at.Child("addresses").Index(j).Child("ip"), a.IP)...)
		}
		for j, a := range s.NotReadyAddresses {
			out = append(out, podspec.AddressWarnings(at.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
		}
	}
	return out
}

func warnNode(n, _ *corev1.Node) []string {
	var out []string
	if n.Spec.ConfigSource != nil { //nolint:staticcheck // it is warned of
		out = append(out, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	return out
}

// warnSecret tries a key and its certificate, which are checked no further.
func warnSecret(s, _ *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}

func warnServiceAccount(a, old *corev1.ServiceAccount) []string {
	const key = "kubernetes.io/enforce-mountable-secrets"
	if _, set := a.Annotations[key]; !set {
		return nil
	}
	if old != nil {
		if _, was := old.Annotations[key]; was {
			return nil
		}
	}
	return []string{"metadata.annotations[" + key + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}

const storageClassOld = `deprecated since v1.8; use "storageClassName" attribute instead`

func warnVolume(v, _ *corev1.PersistentVolume) []string {
	var out []string
	if _, old := v.Annotations[corev1.BetaStorageClassAnnotation]; old {
		out = append(out, field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation).String()+": "+storageClassOld)
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		out = append(out, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		for i, term := range a.Required.NodeSelectorTerms {
			out = append(out, podspec.TermWarnings(term, false, func() *field.Path {
				return field.NewPath("spec", "nodeAffinity", "required", "nodeSelectorTerms").Index(i)
			})...)
		}
	}
	return append(out, podspec.VolumeWarnings(field.NewPath("spec"), &v.Spec.PersistentVolumeSource)...)
}

func warnClaim(c, _ *corev1.PersistentVolumeClaim) []string {
	var out []string
	if _, old := c.Annotations[corev1.BetaStorageClassAnnotation]; old {
		out = append(out, field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation).String()+": "+storageClassOld)
	}
	return append(out, podspec.ClaimWarnings(func() *field.Path { return field.NewPath("spec") }, &c.Spec)...)
}

// What is kept and has no effect yet must not look as if it guarded something.

func warnLimits(_, old *corev1.LimitRange) []string {
	if old != nil {
		return nil
	}
	return []string{"LimitRange is kept, but not enforced yet: it refuses no pod and no claim, and gives none its defaults"}
}

func warnQuota(q, old *corev1.ResourceQuota) []string {
	if old != nil {
		return nil
	}
	out := []string{"ResourceQuota is kept, but not enforced yet: nothing is counted and nothing is refused"}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceStorage, corev1.ResourceEphemeralStorage} {
		of, bare := "requests."+name, name == corev1.ResourceCPU || name == corev1.ResourceMemory
		request, ok := q.Spec.Hard[of]
		if !ok && bare {
			of = name
			request, ok = q.Spec.Hard[of]
		}
		limit, limited := q.Spec.Hard["limits."+name]
		if ok && limited && request.Cmp(limit) > 0 {
			out = append(out, fmt.Sprintf("ResourceQuota %s (%s) should be less than %s (%s)", of, request.String(), "limits."+name, limit.String()))
		}
	}
	return out
}

const podSecurity = "pod-security.kubernetes.io/"

func warnNamespace(n, old *corev1.Namespace) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		mode, ours := strings.CutPrefix(key, podSecurity)
		if !ours || strings.HasSuffix(mode, "-version") || old != nil && old.Labels[key] == n.Labels[key] {
			continue
		}
		out = append(out, field.NewPath("metadata", "labels").Key(key).String()+": Pod Security Standards are not enforced yet: no pod of this namespace is checked against them")
	}
	return out
}
