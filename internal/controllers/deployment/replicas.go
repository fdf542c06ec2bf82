package deployment

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/wherry-project/wherry/internal/owner"
)

// The annotations by which kubectl and we know a ReplicaSet's place in its
// deployment's history.
const (
	revisionKey = "deployment.kubernetes.io/revision"
	historyKey  = "deployment.kubernetes.io/revision-history"
	desiredKey  = "deployment.kubernetes.io/desired-replicas"
	maxKey      = "deployment.kubernetes.io/max-replicas"
	// historyChars bounds the annotation of former revisions.
	historyChars = 2000
)

func number(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func rolling(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType
}

// limits gives maxSurge and maxUnavailable in pods. Surge is rounded up, the
// other down; both may not be nothing, or nothing could move.
func limits(d *appsv1.Deployment) (surge, unavailable int32) {
	if !rolling(d) || number(d.Spec.Replicas) == 0 || d.Spec.Strategy.RollingUpdate == nil {
		return 0, 0
	}
	total := int(number(d.Spec.Replicas))
	scaled := func(v *intstr.IntOrString, up bool) int32 {
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), total, up)
		if err != nil { // validation lets no such value in
			return 0
		}
		return int32(n)
	}
	surge = scaled(d.Spec.Strategy.RollingUpdate.MaxSurge, true)
	unavailable = scaled(d.Spec.Strategy.RollingUpdate.MaxUnavailable, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, number(d.Spec.Replicas))
}

// sameTemplate compares templates but for the hash that we add.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := *a, *b
	x.Labels, y.Labels = maps.Clone(a.Labels), maps.Clone(b.Labels)
	delete(x.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(y.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(&x, &y)
}

// hash names a template. It need not be the same for ever: ReplicaSets are
// found by their templates.
func hash(d *appsv1.Deployment) (string, error) {
	b, err := d.Spec.Template.Marshal()
	if err != nil {
		return "", err
	}
	h := fnv.New32a()
	h.Write(b)
	if n := d.Status.CollisionCount; n != nil {
		fmt.Fprint(h, *n)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10)), nil
}

func revision(o metav1.Object) int64 {
	n, err := strconv.ParseInt(o.GetAnnotations()[revisionKey], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// copied reports whether ReplicaSets get an annotation of their deployment.
func copied(key string) bool {
	switch key {
	case corev1.LastAppliedConfigAnnotation, revisionKey, historyKey, desiredKey, maxKey, appsv1.DeprecatedRollbackTo:
		return false
	}
	return true
}

// annotate gives a ReplicaSet what its deployment says, and its revision if
// that is newer than the one it had.
func annotate(rs *appsv1.ReplicaSet, d *appsv1.Deployment, newest int64) {
	out := maps.Clone(rs.Annotations)
	if out == nil {
		out = map[string]string{}
	}
	for k, v := range d.Annotations {
		if copied(k) {
			out[k] = v
		}
	}
	if had := revision(rs); had < newest {
		if had > 0 {
			out[historyKey] = history(out[historyKey], had)
		}
		out[revisionKey] = strconv.FormatInt(newest, 10)
	}
	rs.Annotations = out
}

// history adds a former revision; the oldest make room.
func history(list string, had int64) string {
	all := strings.Split(list, ",")
	if list == "" {
		all = nil
	}
	all = append(all, strconv.FormatInt(had, 10))
	for len(strings.Join(all, ",")) > historyChars {
		all = all[1:]
	}
	return strings.Join(all, ",")
}

// annotateSize remembers for which size of the deployment a ReplicaSet was
// scaled: proportions are kept by it.
func annotateSize(rs *appsv1.ReplicaSet, d *appsv1.Deployment) {
	surge, _ := limits(d)
	out := maps.Clone(rs.Annotations)
	if out == nil {
		out = map[string]string{}
	}
	out[desiredKey] = strconv.Itoa(int(number(d.Spec.Replicas)))
	out[maxKey] = strconv.Itoa(int(number(d.Spec.Replicas) + surge))
	rs.Annotations = out
}

func annotated(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[key], 10, 32)
	return int32(n), err == nil
}

// fresh makes the ReplicaSet of the deployment's template.
func fresh(d *appsv1.Deployment, newest int64) (*appsv1.ReplicaSet, error) {
	name, err := hash(d)
	if err != nil {
		return nil, fmt.Errorf("name the template: %w", err)
	}
	template := *d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, name)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, name)
	none := int32(0)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + name, Labels: maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{owner.Ref(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &none, MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
	annotate(rs, d, newest)
	return rs, nil
}

func with(labels map[string]string, hash string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	out[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return out
}

// proportions shares out more (or, below 0, fewer) replicas among ReplicaSets
// by their sizes; what rounding leaves goes to the largest.
func proportions(d *appsv1.Deployment, active []*appsv1.ReplicaSet, more int32) map[string]int32 {
	out := map[string]int32{}
	if len(active) == 0 {
		return out
	}
	sorted := slices.Clone(active)
	slices.SortStableFunc(sorted, func(a, b *appsv1.ReplicaSet) int {
		if *a.Spec.Replicas != *b.Spec.Replicas {
			return int(*b.Spec.Replicas) - int(*a.Spec.Replicas)
		}
		if more > 0 {
			return byAge(b, a) // newer first when growing
		}
		return byAge(a, b)
	})
	added := int32(0)
	for _, rs := range sorted {
		share := int32(0)
		if more != 0 {
			share = proportion(d, rs, more, added)
		}
		out[rs.Name] = *rs.Spec.Replicas + share
		added += share
	}
	first := sorted[0].Name
	out[first] = max(0, out[first]+more-added)
	return out
}

// proportion is one ReplicaSet's share of what is still to be shared.
func proportion(d *appsv1.Deployment, rs *appsv1.ReplicaSet, more, added int32) int32 {
	left := more - added
	if *rs.Spec.Replicas == 0 || left == 0 {
		return 0
	}
	share := fraction(d, rs)
	if more > 0 {
		return min(share, left)
	}
	return max(share, left)
}

// fraction is how much a ReplicaSet must grow to keep its part of the whole.
func fraction(d *appsv1.Deployment, rs *appsv1.ReplicaSet) int32 {
	size := *rs.Spec.Replicas
	if number(d.Spec.Replicas) == 0 {
		return -size
	}
	surge, _ := limits(d)
	before, ok := annotated(rs, maxKey)
	if !ok || before == 0 {
		before = d.Status.Replicas
	}
	if before == 0 {
		return 0
	}
	now := float64(size) * float64(number(d.Spec.Replicas)+surge) / float64(before)
	return int32(math.Round(now)) - size
}

// byAge puts the older first.
func byAge(a, b *appsv1.ReplicaSet) int {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	}
	return strings.Compare(a.Name, b.Name)
}
