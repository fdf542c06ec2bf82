package apiserver

import (
	"context"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// scaleOf is the /scale of an object.
func scaleOf(k *api.Kind, obj api.Object) *autoscalingv1.Scale {
	spec, status := k.Scale.Get(obj)
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec: spec, Status: status,
	}
}

func (s *Server) updateScale(ctx context.Context, u api.User, k *api.Kind, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	scale, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return api.Value{}, errBody(obj, autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	}
	if scale.Name != "" && scale.Name != t.Name {
		return api.Value{}, errNames(scale.Name, t.Name)
	}
	if scale.Namespace != "" && scale.Namespace != t.Namespace {
		return api.Value{}, apierr.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return s.rescale(ctx, u, k, t, o, func(*autoscalingv1.Scale) (*autoscalingv1.Scale, []string, error) { return scale, nil, nil })
}

func (s *Server) patchScale(ctx context.Context, u api.User, k *api.Kind, t api.Target, pt types.PatchType, body []byte, o api.WriteOptions) (api.Value, error) {
	if pt == types.ApplyPatchType {
		return s.applyScale(ctx, u, k, t, body, o)
	}
	return s.rescale(ctx, u, k, t, o, func(old *autoscalingv1.Scale) (*autoscalingv1.Scale, []string, error) {
		return s.merge.PatchScale(old, pt, body, o.FieldValidation)
	})
}

// applyScale is server-side apply of a Scale.
func (s *Server) applyScale(ctx context.Context, u api.User, k *api.Kind, t api.Target, body []byte, o api.WriteOptions) (api.Value, error) {
	parent := t
	parent.Subresource = ""
	v, err := s.modify(ctx, u, k, write{target: parent, options: o, applied: true, change: func(old api.Object) (api.Object, []string, error) {
		obj, err := s.merge.ApplyScale(k, old, body, o.FieldManager, o.Force)
		if err == nil {
			err = checkReplicas(k, obj, t)
		}
		return obj, nil, err
	}})
	return s.scaleValue(k, v, err)
}

func checkReplicas(k *api.Kind, obj api.Object, t api.Target) error {
	if spec, _ := k.Scale.Get(obj); spec.Replicas < 0 {
		return apierr.Invalid("Scale.autoscaling", t.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), spec.Replicas, "must be greater than or equal to 0")})
	}
	return nil
}

// scaleValue answers with the Scale of what was written.
func (s *Server) scaleValue(k *api.Kind, v api.Value, err error) (api.Value, error) {
	if err != nil {
		return v, err
	}
	obj, ok := v.Object.(api.Object)
	if !ok {
		if obj, err = s.codec.Decode(v.Record); err != nil {
			return v, err
		}
	}
	return api.Value{Object: scaleOf(k, obj), Warnings: v.Warnings}, nil
}

// rescale changes spec.replicas through a Scale.
func (s *Server) rescale(ctx context.Context, u api.User, k *api.Kind, t api.Target, o api.WriteOptions, change func(*autoscalingv1.Scale) (*autoscalingv1.Scale, []string, error)) (api.Value, error) {
	parent := t
	parent.Subresource = ""
	v, err := s.modify(ctx, u, k, write{target: parent, options: o, manages: "scale", change: func(old api.Object) (api.Object, []string, error) {
		scale, warnings, err := change(scaleOf(k, old))
		if err != nil {
			return nil, nil, err
		}
		obj := old.DeepCopyObject().(api.Object)
		obj.SetResourceVersion(scale.ResourceVersion)
		if scale.UID != "" {
			obj.SetUID(scale.UID)
		}
		k.Scale.Set(obj, scale.Spec.Replicas)
		return obj, warnings, checkReplicas(k, obj, t)
	}})
	return s.scaleValue(k, v, err)
}
