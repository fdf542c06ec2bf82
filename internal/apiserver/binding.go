package apiserver

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// post serves the subresources that are created: bindings, evictions and
// tokens.
func (s *Server) post(ctx context.Context, u api.User, k *api.Kind, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	sub, _ := k.Subresource(t.Subresource)
	if k.Group == "" && k.Resource == "pods" && t.Subresource == "eviction" {
		return s.evict(ctx, u, k, t, obj, o)
	}
	switch t.Subresource {
	case "binding":
	case "token":
		return s.requestToken(ctx, u, k, t, obj, o)
	default:
		return api.Value{}, errStream(k, t)
	}
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return api.Value{}, errBody(obj, k.Body(sub))
	}
	if err := checkBinding(binding, t); err != nil {
		return api.Value{}, err
	}
	_, err := s.modify(ctx, u, k, write{target: t, options: o, change: func(old api.Object) (api.Object, []string, error) {
		pod, err := bound(old, binding)
		if err == nil {
			setScheduled(pod, s.timestamp())
		}
		return pod, nil, err
	}})
	if err != nil {
		return api.Value{}, err
	}
	return api.Value{Object: created()}, nil
}

// created is the answer to a body that asks for something and is not kept.
func created() *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: http.StatusCreated,
	}
}

// bind does what a Binding that is posted to a namespace asks for.
func (s *Server) bind(ctx context.Context, u api.User, t api.Target, obj api.Object, o api.WriteOptions) (api.Object, error) {
	if obj.GetName() == "" {
		return nil, apierr.BadRequest("name is required")
	}
	t.Resource, t.Name, t.Subresource = "pods", obj.GetName(), "binding"
	k, err := s.resolve(t, "create")
	if err != nil {
		return nil, err
	}
	_, err = s.post(ctx, u, k, t, obj, o)
	return obj, err
}

// errStream sends the callers of streams to where they are.
func errStream(k *api.Kind, t api.Target) error {
	return apierr.BadRequest("%s/%s is a stream and has no object: open it by its own path, or by the gRPC service wherry.v1.Pods", k.Resource, t.Subresource)
}

func checkBinding(b *corev1.Binding, t api.Target) error {
	if b.Name != "" && b.Name != t.Name {
		return apierr.BadRequest("name in URL does not match name in Binding object")
	}
	if b.Namespace != "" && b.Namespace != t.Namespace {
		return apierr.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	var errs field.ErrorList
	path := field.NewPath("target")
	if kind := b.Target.Kind; kind != "" && kind != "Node" {
		errs = append(errs, field.NotSupported(path.Child("kind"), kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	if len(errs) > 0 {
		return apierr.Invalid("Binding", t.Name, errs)
	}
	return nil
}

// bound is a pod on the node that a binding names.
func bound(old api.Object, b *corev1.Binding) (*corev1.Pod, error) {
	pod := old.DeepCopyObject().(*corev1.Pod)
	refuse := func(format string, args ...any) (*corev1.Pod, error) {
		return nil, apierr.Conflict("pods/binding", pod.Name, fmt.Errorf(format, args...))
	}
	switch {
	case b.UID != "" && b.UID != pod.UID:
		return refuse("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, pod.UID)
	case b.ResourceVersion != "" && b.ResourceVersion != pod.ResourceVersion:
		return refuse("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", b.ResourceVersion, pod.ResourceVersion)
	case pod.DeletionTimestamp != nil:
		return refuse("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return refuse("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return refuse("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = b.Target.Name
	for key, v := range b.Annotations {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, key, v)
	}
	return pod, nil
}

// setScheduled writes the condition that a binding fulfils.
func setScheduled(pod *corev1.Pod, now metav1.Time) {
	want := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}
	for i, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			pod.Status.Conditions[i] = want
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, want)
}
