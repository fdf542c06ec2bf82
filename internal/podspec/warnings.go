package podspec

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// warner collects warnings. Paths are made only when there is something to say,
// so that a spec without faults costs no more than being looked at.
type warner struct {
	at  *field.Path // of what holds metadata and spec; nil for a pod
	out []string
}

func (w *warner) add(at *field.Path, format string, args ...any) {
	w.out = append(w.out, at.String()+": "+fmt.Sprintf(format, args...))
}

func (w *warner) spec(name string, more ...string) *field.Path {
	return w.at.Child("spec").Child(name, more...)
}

// Warnings tells what a pod says that has no effect, is going away, or is hardly
// meant; at is the path of a template, nil for a pod itself.
func Warnings(at *field.Path, meta *metav1.ObjectMeta, s *corev1.PodSpec) []string {
	w := &warner{at: at}
	w.placement(s)
	w.annotations(meta, s)
	w.volumes(s.Volumes)
	w.overlaps(s.Volumes)
	w.hostAliases(s.HostAliases)
	w.pullSecrets(s.ImagePullSecrets)
	w.fractions(s.Overhead, func() *field.Path { return w.spec("overhead") })
	w.containers(meta, s)
	w.ports(s)
	if g := s.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		w.add(w.spec("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	w.podAffinity(s.Affinity)
	if s.DNSConfig != nil {
		for i, ip := range s.DNSConfig.Nameservers {
			w.out = append(w.out, AddressWarnings(w.spec("dnsConfig", "nameservers").Index(i), ip)...)
		}
	}
	for i, a := range s.HostAliases {
		w.out = append(w.out, AddressWarnings(w.spec("hostAliases").Index(i).Child("ip"), a.IP)...)
	}
	return w.out
}

// LabelWarning is what to say of a label of nodes that has gone out of use.
func LabelWarning(key string) (string, bool) {
	switch key {
	case "beta.kubernetes.io/arch":
		return `deprecated since v1.14; use "kubernetes.io/arch" instead`, true
	case "beta.kubernetes.io/os":
		return `deprecated since v1.14; use "kubernetes.io/os" instead`, true
	case corev1.LabelFailureDomainBetaRegion:
		return `deprecated since v1.17; use "topology.kubernetes.io/region" instead`, true
	case corev1.LabelFailureDomainBetaZone:
		return `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`, true
	case corev1.LabelInstanceType:
		return `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`, true
	case "app.kubernetes.io/created-by":
		return `deprecated since v1.9`, true
	case "scheduler.alpha.kubernetes.io/preferAvoidPods":
		return `deprecated since v1.22; use Taints and Tolerations instead`, true
	case "node-role.kubernetes.io/master":
		return `use "node-role.kubernetes.io/control-plane" instead`, true
	}
	return "", false
}

// LabelKeyWarnings warns of such labels among the keys of a map, in order.
func LabelKeyWarnings(labels map[string]string, at func(key string) *field.Path) (out []string) {
	for key := range labels {
		if _, old := LabelWarning(key); !old {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(labels)) { // once: it returns
			if text, old := LabelWarning(key); old {
				out = append(out, at(key).String()+": "+text)
			}
		}
		return out
	}
	return nil
}

// TermWarnings warns of such labels in a term of a node selector, and, if values
// are to be looked at, of values that no label can have.
func TermWarnings(term corev1.NodeSelectorTerm, values bool, at func() *field.Path) (out []string) {
	for i, e := range term.MatchExpressions {
		if text, old := LabelWarning(e.Key); old {
			out = append(out, fmt.Sprintf("%s: %s is %s", at().Child("matchExpressions").Index(i).Child("key"), e.Key, text))
		}
		if !values {
			continue
		}
		for j, value := range e.Values {
			for _, text := range validation.IsValidLabelValue(value) {
				out = append(out, fmt.Sprintf("%s: %s is invalid, %s", at().Child("matchExpressions").Index(i).Child("values").Index(j), value, text))
			}
		}
	}
	return out
}

// placement looks at what chooses nodes.
func (w *warner) placement(s *corev1.PodSpec) {
	w.out = append(w.out, LabelKeyWarnings(s.NodeSelector, func(key string) *field.Path { return w.spec("nodeSelector").Key(key) })...)
	if s.Affinity != nil && s.Affinity.NodeAffinity != nil {
		n := s.Affinity.NodeAffinity
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			for i, term := range n.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
				w.out = append(w.out, TermWarnings(term, false, func() *field.Path {
					return w.spec("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i)
				})...)
			}
		}
		for i, term := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			w.out = append(w.out, TermWarnings(term.Preference, true, func() *field.Path {
				return w.spec("affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference")
			})...)
		}
	}
	for i, t := range s.TopologySpreadConstraints {
		at := func() *field.Path { return w.spec("topologySpreadConstraints").Index(i) }
		if text, old := LabelWarning(t.TopologyKey); old {
			w.add(at().Child("topologyKey"), "%s is %s", t.TopologyKey, text)
		}
		if t.LabelSelector == nil {
			w.add(at().Child("labelSelector"), noPod)
		}
	}
}

const noPod = "a null labelSelector results in matching no pod"

// podAffinity looks for terms without selector.
func (w *warner) podAffinity(a *corev1.Affinity) {
	if a == nil {
		return
	}
	required := func(kind string, terms []corev1.PodAffinityTerm) {
		for i, t := range terms {
			if t.LabelSelector == nil {
				w.add(w.spec("affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution").Index(i).Child("labelSelector"), noPod)
			}
		}
	}
	preferred := func(kind string, terms []corev1.WeightedPodAffinityTerm) {
		for i, t := range terms {
			if t.PodAffinityTerm.LabelSelector == nil {
				w.add(w.spec("affinity", kind, "preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm", "labelSelector"), noPod)
			}
		}
	}
	if p := a.PodAffinity; p != nil {
		required("podAffinity", p.RequiredDuringSchedulingIgnoredDuringExecution)
		preferred("podAffinity", p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		required("podAntiAffinity", p.RequiredDuringSchedulingIgnoredDuringExecution)
		preferred("podAntiAffinity", p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// hostAliases looks for addresses that come twice.
func (w *warner) hostAliases(list []corev1.HostAlias) {
	for i := range list {
		for j := range i {
			if list[i].IP == list[j].IP {
				w.add(w.spec("hostAliases").Index(i).Child("ip"), "duplicate ip %q", list[i].IP)
				break
			}
		}
	}
}

func (w *warner) pullSecrets(list []corev1.LocalObjectReference) {
	for i := range list {
		for j := range i {
			if list[i].Name == list[j].Name {
				w.add(w.spec("imagePullSecrets").Index(i).Child("name"), "duplicate name %q", list[i].Name)
				break
			}
		}
	}
	for i, s := range list {
		if s.Name == "" {
			w.add(w.spec("imagePullSecrets").Index(i).Child("name"), "invalid empty name %q", s.Name)
		}
	}
}

// fractions looks for parts of bytes.
func (w *warner) fractions(list corev1.ResourceList, at func() *field.Path) {
	for _, name := range [...]corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := list[name]; ok && fractional(q) {
			w.add(at().Key(string(name)), noByte, q.String())
		}
	}
}

const noByte = "fractional byte value %q is invalid, must be an integer"

func fractional(q resource.Quantity) bool { return q.MilliValue()%1000 != 0 }

// ClaimWarnings warns of parts of bytes in a claim for a volume.
func ClaimWarnings(at func() *field.Path, s *corev1.PersistentVolumeClaimSpec) (out []string) {
	say := func(list string, q resource.Quantity) {
		out = append(out, at().Child("resources", list).Key(string(corev1.ResourceStorage)).String()+": "+fmt.Sprintf(noByte, q.String()))
	}
	if q, ok := s.Resources.Requests[corev1.ResourceStorage]; ok && fractional(q) {
		say("requests", q)
	}
	if q, ok := s.Resources.Limits[corev1.ResourceStorage]; ok && fractional(q) {
		say("limits", q)
	}
	return out
}

// NameWarnings warns of the name of a workload that its pods cannot be called
// after.
func NameWarnings(name string) []string {
	bad := validation.IsDNS1123Label(name)
	if len(bad) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", bad)}
}
