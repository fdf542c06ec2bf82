package apiserver

import (
	"context"
	"errors"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/store"
)

// Heartbeats of nodes are not stored. Whoever reads a node or its lease is shown
// when this replica last heard of the node, at the revision of what is stored;
// watchers are told only of what changes in the store.

// leaseSeconds is what the lease of a node says it lasts: how long a node may be
// silent.
const leaseSeconds = 40

// live is a record as readers see it.
func (s *Server) live(r *api.Record) *api.Record {
	nodes := r.Resource == "nodes"
	if s.heard == nil || !nodes && (r.Resource != "leases.coordination.k8s.io" || r.Namespace != corev1.NamespaceNodeLease) {
		return r
	}
	at, ok := s.heard(r.Name)
	if !ok {
		return r
	}
	stored, err := s.codec.Decode(r)
	if err != nil {
		return r // whoever decodes it is told
	}
	shown := stored.DeepCopyObject().(api.Object)
	switch o := shown.(type) {
	case *corev1.Node:
		beat(&o.Status, metav1.Time{Time: at.Truncate(time.Second)})
	case *coordinationv1.Lease:
		if o.Spec.RenewTime == nil || o.Spec.RenewTime.Time.Before(at) {
			o.Spec.RenewTime = &metav1.MicroTime{Time: at.Truncate(time.Microsecond)}
		}
	}
	k, _ := s.Kinds().Of(shown)
	next, err := k.Record(shown)
	if err != nil {
		return r
	}
	next.Revision = r.Revision
	return next
}

// beat brings the heartbeats of a node's conditions up to date. Those that are
// Unknown were written when the node had gone silent.
func beat(st *corev1.NodeStatus, at metav1.Time) {
	for i := range st.Conditions {
		c := &st.Conditions[i]
		if c.Status != corev1.ConditionUnknown && c.LastHeartbeatTime.Before(&at) {
			c.LastHeartbeatTime = at
		}
	}
}

// keepLease makes the lease of a node, or gives the one that is there to the
// node that is there now. Where leases have no namespace there are none.
func (d *Direct) keepLease(ctx context.Context, node *corev1.Node) error {
	t := api.Target{Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Namespace: corev1.NamespaceNodeLease, Name: node.Name}
	snap, err := d.s.store.Snapshot(ctx, store.At{Level: store.Any})
	if err != nil {
		return err
	}
	key := api.Key{Resource: "leases.coordination.k8s.io", Namespace: t.Namespace, Name: t.Name}
	if r, ok := snap.Get(key); ok && len(r.Index.Owners) == 1 && r.Index.Owners[0] == string(node.UID) {
		return nil
	}
	k, err := d.s.enter(d.user, t, "update")
	if err != nil {
		return err
	}
	if err := d.s.Authorize(d.user, t, "create"); err != nil {
		return err
	}
	owners := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	_, err = d.s.insert(ctx, d.user, k, newLease(node.Name, owners, d.s.now()), api.WriteOptions{}, false)
	if errors.Is(err, apierr.ErrAlreadyExists) {
		_, err = d.s.modify(ctx, d.user, k, write{target: t, change: func(old api.Object) (api.Object, []string, error) {
			lease := old.DeepCopyObject().(*coordinationv1.Lease)
			lease.OwnerReferences = owners
			return lease, nil, nil
		}})
	}
	if errors.Is(err, apierr.ErrNotFound) || errors.Is(err, apierr.ErrForbidden) {
		return nil // the namespace is gone or going
	}
	return err
}

func newLease(node string, owners []metav1.OwnerReference, now time.Time) *coordinationv1.Lease {
	seconds := int32(leaseSeconds)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node, OwnerReferences: owners},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &node, LeaseDurationSeconds: &seconds,
			RenewTime: &metav1.MicroTime{Time: now.Truncate(time.Microsecond)},
		},
	}
}
