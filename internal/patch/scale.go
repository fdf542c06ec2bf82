package patch

import (
	"encoding/json"
	"fmt"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// PatchScale gives a new Scale: current with a JSON, merge or strategic merge
// patch applied.
func (f *Fields) PatchScale(current *autoscalingv1.Scale, pt types.PatchType, patch []byte, validation string) (*autoscalingv1.Scale, []string, error) {
	scale := &autoscalingv1.Scale{}
	warnings, err := patchInto(scale, current, pt, patch, validation)
	if err != nil {
		return nil, nil, err
	}
	if got, want := scale.GroupVersionKind(), current.GroupVersionKind(); got != want {
		return nil, nil, apierr.BadRequest("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), want.GroupVersion())
	}
	return scale, warnings, nil
}

// ApplyScale gives obj after a server-side apply of a Scale, whose manager then
// owns the replicas of obj, through the subresource.
func (f *Fields) ApplyScale(k *api.Kind, obj api.Object, patch []byte, manager string, force bool) (api.Object, error) {
	scale := &autoscalingv1.Scale{}
	if err := yaml.Unmarshal(patch, scale); err != nil {
		return nil, badYAML(err)
	}
	if got, want := scale.GroupVersionKind(), scaleKind(); got != want {
		return nil, apierr.BadRequest("the API version in the data (%s, %s) does not match the expected API version (%s, %s)", got.GroupVersion(), got.Kind, want.GroupVersion(), want.Kind)
	}
	if scale.ManagedFields != nil {
		return nil, apierr.BadRequest("metadata.managedFields must be nil")
	}
	meta := map[string]any{"name": obj.GetName(), "namespace": obj.GetNamespace()}
	if scale.ResourceVersion != "" {
		meta["resourceVersion"] = scale.ResourceVersion
	}
	if scale.UID != "" {
		meta["uid"] = string(scale.UID)
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": k.APIVersion(), "kind": k.Kind, "metadata": meta, "spec": map[string]any{"replicas": scale.Spec.Replicas},
	})
	if err != nil {
		return nil, err
	}
	out, err := f.Apply(k, obj, body, manager, "scale", force)
	if apierr.KindOf(err) != apierr.ErrConflict {
		return out, err
	}
	// Who wrote through another path is told of as of a Scale.
	st := apierr.StatusOf(err)
	as := func(text string) string {
		return strings.ReplaceAll(text, " using "+k.APIVersion(), " using "+scaleKind().GroupVersion().String())
	}
	st.Message = as(st.Message)
	for i := range st.Details.Causes {
		st.Details.Causes[i].Message = as(st.Details.Causes[i].Message)
	}
	return nil, apierr.FromStatus(st)
}

func scaleKind() schema.GroupVersionKind { return autoscalingv1.SchemeGroupVersion.WithKind("Scale") }

func badYAML(err error) error { return apierr.BadRequest("error decoding YAML: %w", err) }

// Repeated says what validation makes of keys that an apply patch has twice:
// warnings, or an error.
func Repeated(patch []byte, validation string) ([]string, error) {
	if validation == api.ValidateIgnore {
		return nil, nil
	}
	if _, err := yaml.YAMLToJSONStrict(patch); err != nil {
		if validation == api.ValidateStrict {
			return nil, apierr.BadRequest("error strict decoding YAML: %w", err)
		}
		return []string{fmt.Sprintf("error strict decoding YAML: %v", err)}, nil
	}
	return nil, nil
}
