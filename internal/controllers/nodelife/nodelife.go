// Package nodelife follows the nodes' health: a node that is silent becomes
// Unknown, one that is not ready is tainted, its pods are no longer ready, and
// pods that do not tolerate that are evicted in time.
//
// https://kubernetes.io/docs/concepts/architecture/nodes/
package nodelife

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/podstate"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "node"

const (
	// DefaultGrace is how long a node may be silent.
	DefaultGrace = 40 * time.Second
	// evictEvery is how often a node may be given up: its pods start to be
	// evicted. In a disaster that many nodes share nothing is evicted.
	evictEvery = 10 * time.Second
)

type controller struct {
	write  reconcile.Writer
	events reconcile.Recorder
	seen   func(node string) time.Time
	grace  time.Duration
	now    func() time.Time

	mu       sync.Mutex
	lastGave time.Time // when a node was last given up
}

// New makes the controller. LastSeen gives when this leader last heard of a
// node, or when it began to lead; grace 0 is DefaultGrace.
func New(w reconcile.Writer, events reconcile.Recorder, lastSeen func(node string) time.Time, grace time.Duration) reconcile.Controller {
	if grace <= 0 {
		grace = DefaultGrace
	}
	c := &controller{write: w, events: events, seen: lastSeen, grace: grace, now: time.Now}
	return reconcile.Controller{
		Name: Name, Workers: 4, Reconcile: c.reconcile,
		Inputs: []reconcile.Input{{Resource: "nodes"}, {Resource: "pods", Keys: func(e store.Event, _ *store.Snapshot) []reconcile.Key {
			// Only a pod that comes to a node that is in trouble concerns it.
			if e.New == nil || e.Old != nil && e.Old.Index.Fields["spec.nodeName"] == e.New.Index.Fields["spec.nodeName"] || e.New.Index.Fields["spec.nodeName"] == "" {
				return nil
			}
			return []reconcile.Key{{Name: e.New.Index.Fields["spec.nodeName"]}}
		}}},
	}
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
	shared, err := store.Get[*corev1.Node](s, api.Key{Resource: "nodes", Name: key.Name})
	if errors.Is(err, apierr.ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	now := c.now()
	node := shared.DeepCopy()
	silent := now.Sub(c.seen(node.Name))
	again := max(c.grace-silent, time.Second)
	if silent >= c.grace {
		again = c.grace
		if forget(node, now) {
			if _, err := c.write.UpdateStatus(ctx, node); err != nil {
				return 0, err
			}
			c.events.Event(node, corev1.EventTypeNormal, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", node.Name))
			return time.Millisecond, nil // the rest from what is written now
		}
	}
	want := taints(node, now, !givenUp(node) && c.mayEvict(s, node, now))
	if !equality.Semantic.DeepEqual(want, node.Spec.Taints) {
		node.Spec.Taints = want
		if _, err := c.write.Update(ctx, node); err != nil {
			return 0, err
		}
		return time.Millisecond, nil
	}
	ready := condition(node, corev1.NodeReady)
	if ready == nil {
		return again, nil
	}
	if ready.Status != corev1.ConditionTrue && !givenUp(node) {
		again = min(again, evictEvery) // the turn to be given up may come
	}
	if ready.Status == corev1.ConditionUnknown {
		// A node that speaks, even to say that it is not ready, tells itself
		// which of its pods are.
		if err := c.unready(ctx, s, node.Name); err != nil {
			return 0, err
		}
	}
	due, err := c.evict(ctx, s, node, now)
	if due > 0 {
		again = min(again, due)
	}
	return again, err
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// forget makes the conditions of a silent node Unknown, and reports whether
// that changed anything.
func forget(n *corev1.Node, now time.Time) bool {
	changed := false
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		c := condition(n, t)
		reason, message := "NodeStatusUnknown", "Kubelet stopped posting node status."
		if c == nil {
			reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, LastHeartbeatTime: n.CreationTimestamp})
			c = &n.Status.Conditions[len(n.Status.Conditions)-1]
		}
		if c.Status == corev1.ConditionUnknown {
			continue
		}
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, reason, message
		c.LastTransitionTime = metav1.Time{Time: now.Truncate(time.Second)}
		changed = true
	}
	return changed
}

// taints are those that the node should have: ours by its conditions, and all
// others as they are. Evict allows the taint that evicts.
func taints(n *corev1.Node, now time.Time, evict bool) []corev1.Taint {
	stamp := metav1.Time{Time: now.Truncate(time.Second)}
	var want []corev1.Taint
	ours := map[string]bool{
		corev1.TaintNodeNotReady: true, corev1.TaintNodeUnreachable: true, corev1.TaintNodeUnschedulable: true,
		corev1.TaintNodeMemoryPressure: true, corev1.TaintNodeDiskPressure: true, corev1.TaintNodePIDPressure: true, corev1.TaintNodeNetworkUnavailable: true,
	}
	for _, t := range n.Spec.Taints {
		if ours[t.Key] {
			continue
		}
		if t.Effect == corev1.TaintEffectNoExecute && t.TimeAdded == nil {
			t.TimeAdded = &stamp // tolerations count from when it was seen first
		}
		want = append(want, t)
	}
	add := func(key string, effect corev1.TaintEffect) {
		for _, t := range n.Spec.Taints {
			if t.Key == key && t.Effect == effect {
				want = append(want, t) // keeps its time
				return
			}
		}
		t := corev1.Taint{Key: key, Effect: effect}
		if effect == corev1.TaintEffectNoExecute {
			t.TimeAdded = &stamp
		}
		want = append(want, t)
	}
	if r := condition(n, corev1.NodeReady); r == nil {
		add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule)
	} else if r.Status != corev1.ConditionTrue {
		key := corev1.TaintNodeNotReady
		if r.Status == corev1.ConditionUnknown {
			key = corev1.TaintNodeUnreachable
		}
		add(key, corev1.TaintEffectNoSchedule)
		if evict || givenUp(n) {
			add(key, corev1.TaintEffectNoExecute)
		}
	}
	for t, key := range map[corev1.NodeConditionType]string{
		corev1.NodeMemoryPressure: corev1.TaintNodeMemoryPressure, corev1.NodeDiskPressure: corev1.TaintNodeDiskPressure,
		corev1.NodePIDPressure: corev1.TaintNodePIDPressure, corev1.NodeNetworkUnavailable: corev1.TaintNodeNetworkUnavailable,
	} {
		if c := condition(n, t); c != nil && c.Status == corev1.ConditionTrue {
			add(key, corev1.TaintEffectNoSchedule)
		}
	}
	if n.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	return inOrder(n.Spec.Taints, want)
}

// givenUp reports whether the node's pods are being evicted for its state.
func givenUp(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable)
	})
}

// inOrder puts what was there first, as it was, so that nothing changes where
// nothing has to.
func inOrder(was, want []corev1.Taint) []corev1.Taint {
	var out, fresh []corev1.Taint
	for _, t := range was {
		for _, w := range want {
			if w.Key == t.Key && w.Effect == t.Effect {
				out = append(out, w)
			}
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(was, func(t corev1.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect }) {
			fresh = append(fresh, w)
		}
	}
	slices.SortFunc(fresh, func(a, b corev1.Taint) int { // a map gave them in any order
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Effect, b.Effect))
	})
	return append(out, fresh...)
}

// mayEvict decides whether a node that is not ready is given up now: one node
// at a time, and none while the whole cluster, or most of three nodes and more,
// is in trouble.
func (c *controller) mayEvict(s *store.Snapshot, n *corev1.Node, now time.Time) bool {
	r := condition(n, corev1.NodeReady)
	if r == nil || r.Status == corev1.ConditionTrue {
		return false
	}
	total, bad := 0, 0
	for rec := range s.Scan("nodes", "", api.Key{}) {
		other, err := store.Decode[*corev1.Node](s, rec)
		if err != nil {
			continue
		}
		total++
		if or := condition(other, corev1.NodeReady); or == nil || or.Status != corev1.ConditionTrue {
			bad++
		}
	}
	if bad == total || bad >= 3 && bad*100 >= total*55 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.lastGave) < evictEvery {
		return false
	}
	c.lastGave = now
	return true
}

// unready takes the readiness of the pods of a node that is not ready.
func (c *controller) unready(ctx context.Context, s *store.Snapshot, node string) error {
	var failed error
	for r := range s.ByField("pods", "spec.nodeName", node) {
		shared, err := store.Decode[*corev1.Pod](s, r)
		if err != nil {
			return err
		}
		for i, cond := range shared.Status.Conditions {
			if cond.Type != corev1.PodReady || cond.Status != corev1.ConditionTrue {
				continue
			}
			pod := shared.DeepCopy()
			pod.Status.Conditions[i].Status = corev1.ConditionFalse
			pod.Status.Conditions[i].LastTransitionTime = metav1.Time{Time: c.now().Truncate(time.Second)}
			if _, err := c.write.UpdateStatus(ctx, pod); ignore(err) != nil {
				failed = errors.Join(failed, err)
				continue
			}
			c.events.Event(pod, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
		}
	}
	return failed
}

func ignore(err error) error {
	if errors.Is(err, apierr.ErrNotFound) || errors.Is(err, apierr.ErrConflict) {
		return nil
	}
	return err
}

// evict deletes the pods that do not tolerate the node's NoExecute taints any
// longer, and gives when the next one is due.
func (c *controller) evict(ctx context.Context, s *store.Snapshot, n *corev1.Node, now time.Time) (next time.Duration, failed error) {
	var taints []corev1.Taint
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			taints = append(taints, t)
		}
	}
	if len(taints) == 0 {
		return 0, nil
	}
	for r := range s.ByField("pods", "spec.nodeName", n.Name) {
		pod, err := store.Decode[*corev1.Pod](s, r)
		if err != nil {
			return 0, err
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		at, limited := until(pod, taints, now)
		switch {
		case !limited:
		case at.After(now):
			if d := at.Sub(now); next == 0 || d < next {
				next = d
			}
		default:
			failed = errors.Join(failed, c.deletePod(ctx, pod))
		}
	}
	return next, failed
}

// until gives how long a pod tolerates taints; not limited means for ever. A
// taint that nothing tolerates ends it at once; of the tolerations that count
// seconds the shortest holds.
func until(pod *corev1.Pod, taints []corev1.Taint, now time.Time) (at time.Time, limited bool) {
	for i := range taints {
		added := now
		if t := taints[i].TimeAdded; t != nil {
			added = t.Time
		}
		matched := false
		for j := range pod.Spec.Tolerations {
			tol := &pod.Spec.Tolerations[j]
			if !tolerates(tol, &taints[i]) {
				continue
			}
			matched = true
			if tol.TolerationSeconds == nil {
				continue
			}
			end := added.Add(time.Duration(max(*tol.TolerationSeconds, 0)) * time.Second)
			if !limited || end.Before(at) {
				at, limited = end, true
			}
		}
		if !matched {
			return now, true
		}
	}
	return at, limited
}

// tolerates reports whether a toleration matches a taint.
func tolerates(tol *corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	if tol.Operator == corev1.TolerationOpExists {
		return true
	}
	return tol.Key != "" && tol.Value == t.Value
}

// deletePod says why, and deletes.
func (c *controller) deletePod(ctx context.Context, shared *corev1.Pod) error {
	pod := shared.DeepCopy()
	podstate.SetCondition(pod, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager",
		Message: "Taint manager: deleting due to NoExecute taint", LastTransitionTime: metav1.Time{Time: c.now().Truncate(time.Second)},
	})
	if _, err := c.write.UpdateStatus(ctx, pod); err != nil {
		return ignore(err)
	}
	c.events.Event(pod, corev1.EventTypeNormal, "TaintManagerEviction", fmt.Sprintf("Marking for deletion Pod %s/%s", pod.Namespace, pod.Name))
	return ignore(c.write.Delete(ctx, api.Key{Resource: "pods", Namespace: pod.Namespace, Name: pod.Name}, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}))
}
