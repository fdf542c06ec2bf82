package apiserver

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// RegisterNode makes the Node that a node describes, and its lease, or brings the
// labels of the one that is there up to date; labels that users added stay. The status is not
// written: every member's session registers the node, but only the primary one
// reports, so that no older status can follow a newer one.
func (d *Direct) RegisterNode(ctx context.Context, want *corev1.Node) (api.Object, error) {
	t := api.Target{Version: "v1", Resource: "nodes", Name: want.Name}
	if err := d.s.Authorize(d.user, t, "create"); err != nil {
		return nil, err
	}
	k, err := d.s.resolve(t, "create")
	if err != nil {
		return nil, err
	}
	fresh := want.DeepCopy()
	fresh.Status = corev1.NodeStatus{}
	obj, err := d.object(d.s.insert(ctx, d.user, k, fresh, api.WriteOptions{}, false))
	if err != nil && !errors.Is(err, apierr.ErrAlreadyExists) {
		return nil, err
	}
	if err != nil {
		obj, err = d.object(d.s.modify(ctx, d.user, k, write{target: t, change: func(old api.Object) (api.Object, []string, error) {
			node := old.DeepCopyObject().(*corev1.Node)
			if node.Labels == nil {
				node.Labels = map[string]string{}
			}
			maps.Copy(node.Labels, want.Labels)
			return node, nil, nil
		}}))
		if err != nil {
			return nil, err
		}
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return nil, fmt.Errorf("the node %s is a %T", want.Name, obj)
	}
	return node, d.keepLease(ctx, node)
}

// ReportNode stores a node's own view of its status. Conditions of types that
// the node does not report stay, and a condition that did not change keeps its
// times: an idle node costs no write.
func (d *Direct) ReportNode(ctx context.Context, name string, status *corev1.NodeStatus) error {
	t := api.Target{Version: "v1", Resource: "nodes", Name: name, Subresource: "status"}
	k, err := d.s.enter(d.user, t, "update")
	if err != nil {
		return err
	}
	_, err = d.s.modify(ctx, d.user, k, write{target: t, change: func(old api.Object) (api.Object, []string, error) {
		node := old.DeepCopyObject().(*corev1.Node)
		next := status.DeepCopy()
		next.Conditions = mergeNodeConditions(node.Status.Conditions, status.Conditions)
		if next.Phase == "" {
			next.Phase = node.Status.Phase
		}
		if !equality.Semantic.DeepEqual(&node.Status, next) {
			node.Status = *next
		}
		return node, nil, nil
	}})
	return err
}

func mergeNodeConditions(old, reported []corev1.NodeCondition) []corev1.NodeCondition {
	out := make([]corev1.NodeCondition, 0, len(old))
	mine := map[corev1.NodeConditionType]corev1.NodeCondition{}
	for _, c := range reported {
		mine[c.Type] = c
	}
	for _, c := range old {
		n, ok := mine[c.Type]
		if !ok {
			out = append(out, c)
			continue
		}
		delete(mine, c.Type)
		if n.Status == c.Status {
			n.LastTransitionTime = c.LastTransitionTime
			if n.Reason == c.Reason && n.Message == c.Message {
				n.LastHeartbeatTime = c.LastHeartbeatTime
			}
		}
		out = append(out, n)
	}
	for _, c := range reported {
		if _, ok := mine[c.Type]; ok {
			out = append(out, c)
		}
	}
	return out
}

// ownedByNode reports whether a pod condition is the node's to write.
func ownedByNode(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
		corev1.PodResizePending, corev1.PodResizeInProgress:
		return true
	}
	return false
}

// ReportPod stores a node's view of a pod's status. What others wrote into the
// status stays: scheduling, disruption, readiness gates.
func (d *Direct) ReportPod(ctx context.Context, namespace, name, uid string, status *corev1.PodStatus) error {
	t := api.Target{Version: "v1", Resource: "pods", Namespace: namespace, Name: name, Subresource: "status"}
	k, err := d.s.enter(d.user, t, "update")
	if err != nil {
		return err
	}
	_, err = d.s.modify(ctx, d.user, k, write{target: t, change: func(old api.Object) (api.Object, []string, error) {
		pod := old.DeepCopyObject().(*corev1.Pod)
		if string(pod.UID) != uid {
			return nil, nil, apierr.Conflict("pods", name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, pod.UID))
		}
		if done(pod.Status.Phase) && status.Phase != pod.Status.Phase {
			return nil, nil, apierr.Conflict("pods", name, fmt.Errorf("phase %s is final", pod.Status.Phase))
		}
		was := pod.Status
		pod.Status = *status.DeepCopy()
		pod.Status.Conditions = mergePodConditions(was.Conditions, status.Conditions)
		pod.Status.NominatedNodeName = was.NominatedNodeName
		pod.Status.QOSClass = was.QOSClass
		pod.Status.Resize = was.Resize //nolint:staticcheck // kept for whoever wrote it
		pod.Status.ResourceClaimStatuses = was.ResourceClaimStatuses
		return pod, nil, nil
	}})
	return err
}

func done(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

func mergePodConditions(old, reported []corev1.PodCondition) []corev1.PodCondition {
	var out []corev1.PodCondition
	was := map[corev1.PodConditionType]corev1.PodCondition{}
	for _, c := range old {
		was[c.Type] = c
	}
	told := map[corev1.PodConditionType]bool{}
	for _, c := range reported {
		told[c.Type] = true
		if o, ok := was[c.Type]; ok && o.Status == c.Status {
			c.LastTransitionTime = o.LastTransitionTime
		}
		if o, ok := was[c.Type]; ok && !ownedByNode(c.Type) && o.Status == corev1.ConditionTrue {
			c = o // another's word stands; the node only repeats it
		}
		out = append(out, c)
	}
	for _, c := range old {
		if !told[c.Type] && !ownedByNode(c.Type) {
			out = append(out, c)
		}
	}
	return out
}
