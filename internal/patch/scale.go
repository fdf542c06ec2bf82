package patch

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// PatchScale gives a new Scale: current with a patch of any type applied. An
// apply patch merges here; who owns spec.replicas is a matter of the object
// that is scaled.
func (f *Fields) PatchScale(current *autoscalingv1.Scale, pt types.PatchType, patch []byte, validation string) (*autoscalingv1.Scale, []string, error) {
	if pt == types.ApplyPatchType {
		body, err := yaml.YAMLToJSON(patch)
		if err != nil {
			return nil, nil, badYAML(err)
		}
		pt, patch = types.MergePatchType, body
	}
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
