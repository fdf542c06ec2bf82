package apiserver

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
)

// Direct is the API in process, as one user: what controllers, the scheduler
// and the nodes' sessions write through. It implements reconcile.Writer.
type Direct struct {
	s    *Server
	user api.User
}

// As gives the API as a user.
func (s *Server) As(u api.User) *Direct { return &Direct{s, u} }

func (d *Direct) target(obj api.Object, sub string) (api.Target, error) {
	k, ok := d.s.Kinds().Of(obj)
	if !ok {
		return api.Target{}, fmt.Errorf("%T is not a served kind", obj)
	}
	return api.Target{Group: k.Group, Version: k.Version, Resource: k.Resource, Namespace: obj.GetNamespace(), Name: obj.GetName(), Subresource: sub}, nil
}

func (d *Direct) object(v api.Value, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	return d.s.codec.Decode(v.Record)
}

// Create implements reconcile.Writer.
func (d *Direct) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	t, err := d.target(obj, "")
	if err != nil {
		return nil, err
	}
	return d.object(d.s.Create(ctx, d.user, t, obj, api.WriteOptions{}))
}

// Update implements reconcile.Writer.
func (d *Direct) Update(ctx context.Context, obj api.Object) (api.Object, error) {
	return d.UpdateSubresource(ctx, obj, "")
}

// UpdateStatus implements reconcile.Writer.
func (d *Direct) UpdateStatus(ctx context.Context, obj api.Object) (api.Object, error) {
	return d.UpdateSubresource(ctx, obj, "status")
}

// UpdateSubresource implements reconcile.Writer.
func (d *Direct) UpdateSubresource(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	t, err := d.target(obj, sub)
	if err != nil {
		return nil, err
	}
	return d.object(d.s.Update(ctx, d.user, t, obj, api.WriteOptions{}))
}

// Bind assigns a pod to a node.
func (d *Direct) Bind(ctx context.Context, pod *corev1.Pod, node string) error {
	t := api.Target{Version: "v1", Resource: "pods", Namespace: pod.Namespace, Name: pod.Name, Subresource: "binding"}
	b := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	_, err := d.s.Create(ctx, d.user, t, b, api.WriteOptions{})
	return err
}

// Delete implements reconcile.Writer.
func (d *Direct) Delete(ctx context.Context, key api.Key, o metav1.DeleteOptions) error {
	k, ok := d.s.Kinds().ByKey(key.Resource)
	if !ok {
		return fmt.Errorf("%s is not a served resource", key.Resource)
	}
	t := api.Target{Group: k.Group, Version: k.Version, Resource: k.Resource, Namespace: key.Namespace, Name: key.Name}
	_, err := d.s.Delete(ctx, d.user, t, o)
	return err
}
