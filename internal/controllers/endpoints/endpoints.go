// Package endpoints keeps the EndpointSlices of every Service that selects pods:
// where its pods are, on which ports, and which of them may be used.
//
// https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
package endpoints

import (
	"context"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/owner"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "endpointslice"

const (
	resource = "endpointslices.discovery.k8s.io"
	// managedBy marks the slices that are this controller's.
	managedBy = "endpointslice-controller.k8s.io"
	workers   = 4
)

type controller struct{ write reconcile.Writer }

// New makes the controller.
func New(w reconcile.Writer) reconcile.Controller {
	c := &controller{w}
	return reconcile.Controller{
		Name: Name, Workers: workers, Reconcile: c.reconcile,
		Inputs: []reconcile.Input{{Resource: "services"}, {Resource: "pods", Keys: ofPod}, {Resource: resource, Keys: ofSlice}},
	}
}

// ofPod gives the Services that select a pod, or did before it changed.
func ofPod(e store.Event, s *store.Snapshot) []reconcile.Key {
	var keys []reconcile.Key
	for r := range s.Scan("services", e.Key().Namespace, api.Key{}) {
		svc, err := store.Decode[*corev1.Service](s, r)
		if err != nil || len(svc.Spec.Selector) == 0 {
			continue
		}
		sel := labels.SelectorFromSet(svc.Spec.Selector)
		if e.New != nil && sel.Matches(labels.Set(e.New.Index.Labels)) || e.Old != nil && sel.Matches(labels.Set(e.Old.Index.Labels)) {
			keys = append(keys, reconcile.KeyOf(r))
		}
	}
	return keys
}

// ofSlice gives the Service whose slice somebody changed.
func ofSlice(e store.Event, _ *store.Snapshot) []reconcile.Key {
	var keys []reconcile.Key
	for _, r := range []*api.Record{e.Old, e.New} {
		if r == nil || r.Index.Labels[discoveryv1.LabelManagedBy] != managedBy {
			continue
		}
		if k := (reconcile.Key{Namespace: r.Namespace, Name: r.Index.Labels[discoveryv1.LabelServiceName]}); len(keys) == 0 || keys[0] != k {
			keys = append(keys, k)
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
	svc, err := store.Get[*corev1.Service](s, api.Key{Resource: "services", Namespace: key.Namespace, Name: key.Name})
	if errors.Is(err, apierr.ErrNotFound) {
		return 0, nil // its slices go by owner reference
	} else if err != nil {
		return 0, err
	}
	if svc.DeletionTimestamp != nil {
		return 0, nil
	}
	have, err := slicesOf(s, svc)
	if err != nil {
		return 0, err
	}
	var groups []group
	if len(svc.Spec.Selector) > 0 && svc.Spec.Type != corev1.ServiceTypeExternalName {
		pods, err := podsOf(s, svc)
		if err != nil {
			return 0, err
		}
		groups = grouped(svc, pods, zones(s, pods))
	} else if len(have) == 0 {
		return 0, nil
	}
	return 0, c.do(ctx, svc, plan(svc, groups, have))
}

// slicesOf are a Service's slices that are ours.
func slicesOf(s *store.Snapshot, svc *corev1.Service) ([]*discoveryv1.EndpointSlice, error) {
	var out []*discoveryv1.EndpointSlice
	for r := range s.Scan(resource, svc.Namespace, api.Key{}) {
		if r.Index.Labels[discoveryv1.LabelServiceName] != svc.Name || r.Index.Labels[discoveryv1.LabelManagedBy] != managedBy {
			continue
		}
		one, err := store.Decode[*discoveryv1.EndpointSlice](s, r)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// podsOf are the pods that a Service selects.
func podsOf(s *store.Snapshot, svc *corev1.Service) ([]*corev1.Pod, error) {
	sel := labels.SelectorFromSet(svc.Spec.Selector)
	var out []*corev1.Pod
	for r := range s.Scan("pods", svc.Namespace, api.Key{}) {
		if !sel.Matches(labels.Set(r.Index.Labels)) {
			continue
		}
		p, err := store.Decode[*corev1.Pod](s, r)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// zones are the zones of the pods' nodes, by node.
func zones(s *store.Snapshot, pods []*corev1.Pod) map[string]string {
	out := map[string]string{}
	for _, p := range pods {
		if r, ok := s.Get(api.Key{Resource: "nodes", Name: p.Spec.NodeName}); ok {
			out[p.Spec.NodeName] = r.Index.Labels[corev1.LabelTopologyZone]
		}
	}
	return out
}

// do writes what the plan says. New slices come first: no endpoint is without
// one in between.
func (c *controller) do(ctx context.Context, svc *corev1.Service, p actions) error {
	var failed error
	for _, s := range p.create {
		s.ObjectMeta = metav1.ObjectMeta{
			Namespace: svc.Namespace, GenerateName: svc.Name + "-", Labels: labelsOf(svc),
			OwnerReferences: []metav1.OwnerReference{owner.Ref(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
		}
		_, err := c.write.Create(ctx, s)
		failed = errors.Join(failed, err)
	}
	for _, s := range p.update {
		_, err := c.write.Update(ctx, s)
		failed = errors.Join(failed, err)
	}
	for _, s := range p.remove {
		key := api.Key{Resource: resource, Namespace: s.Namespace, Name: s.Name}
		err := c.write.Delete(ctx, key, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(s.UID))})
		if !errors.Is(err, apierr.ErrNotFound) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// labelsOf are the labels of a Service's slices: its own, and what marks them.
func labelsOf(svc *corev1.Service) map[string]string {
	out := map[string]string{}
	maps.Copy(out, svc.Labels)
	delete(out, corev1.IsHeadlessService)
	out[discoveryv1.LabelServiceName] = svc.Name
	out[discoveryv1.LabelManagedBy] = managedBy
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		out[corev1.IsHeadlessService] = ""
	}
	return out
}

func sameEndpoints(a, b []discoveryv1.Endpoint) bool { return equality.Semantic.DeepEqual(a, b) }
