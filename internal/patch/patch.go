// Package patch makes the object that a patch asks for: JSON patch, merge
// patch, strategic merge patch, and server-side apply with the managed fields
// that it rests on. Errors have Kubernetes' texts and a kind of apierr.
package patch

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

const (
	// maxOperations bounds a JSON patch, as in Kubernetes.
	maxOperations = 10000
	// maxCopied bounds by how many bytes the copies of one JSON patch may
	// make an object grow.
	maxCopied = 3 << 20
)

// boundCopies sets the limit that the library keeps in a variable.
var boundCopies = sync.OnceFunc(func() { jsonpatch.AccumulatedCopySizeLimit = maxCopied })

// Patch gives a new object: current, which is not changed, with a JSON, merge
// or strategic merge patch applied. Both are of kind k, also where that is not
// the stored one. Validation is one of api.Validate….
func (f *Fields) Patch(k *api.Kind, current api.Object, pt types.PatchType, patch []byte, validation string) (api.Object, []string, error) {
	obj := k.New()
	warnings, err := patchInto(obj, current, pt, patch, validation)
	if err != nil {
		return nil, nil, err
	}
	if got := obj.GetObjectKind().GroupVersionKind(); got != k.GVK() {
		return nil, nil, apierr.BadRequest("the patch changes apiVersion or kind from %s, %s to %s, %s",
			k.APIVersion(), k.Kind, got.GroupVersion(), got.Kind)
	}
	return obj, warnings, nil
}

// patchInto fills obj, which is empty, with current after the patch.
func patchInto(obj, current runtime.Object, pt types.PatchType, patch []byte, validation string) ([]string, error) {
	switch pt {
	case types.StrategicMergePatchType:
		return strategic(obj, current, patch, validation)
	case types.JSONPatchType, types.MergePatchType:
	default:
		return nil, apierr.UnsupportedMediaType("the body of the request was in an unknown format - accepted media types include: %s, %s, %s, %s",
			types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyPatchType)
	}
	before, err := json.Marshal(current)
	if err != nil {
		return nil, fmt.Errorf("encode the object to patch: %w", err)
	}
	after, found, err := patchJSON(before, pt, patch, validation)
	if err != nil {
		return nil, err
	}
	more, err := kjson.UnmarshalStrict(after, obj)
	if err != nil {
		return nil, invalid(string(after), err)
	}
	warnings, err := api.Strictness(append(found, more...), validation)
	if err != nil {
		return nil, invalid(string(after), err)
	}
	return warnings, nil
}

// patchJSON patches a document. It gives what is not strict in the patch.
func patchJSON(doc []byte, pt types.PatchType, patch []byte, validation string) (after []byte, found []error, err error) {
	if pt == types.JSONPatchType {
		after, err = operations(doc, patch)
		return after, nil, err
	}
	var v map[string]any
	if found, err = kjson.UnmarshalStrict(patch, &v); err != nil {
		return nil, nil, apierr.BadRequest("error decoding patch: %w", err)
	}
	after, err = jsonpatch.MergePatch(doc, patch)
	if err != nil {
		return nil, nil, apierr.BadRequest("%w", err)
	}
	return after, found, nil
}

// operations does the operations of a JSON patch.
func operations(doc, patch []byte) ([]byte, error) {
	boundCopies()
	ops, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, apierr.BadRequest("%w", err)
	}
	if len(ops) > maxOperations {
		return nil, apierr.TooLarge("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(ops))
	}
	after, err := ops.Apply(doc)
	if err != nil {
		return nil, unprocessable(err)
	}
	return after, nil
}

// invalid says that the patched object is not of its kind.
func invalid(value string, why error) error {
	return apierr.Invalid("", "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, why.Error())})
}

// unprocessable says that the patch is well-formed and cannot be done.
func unprocessable(why error) error {
	e := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", why.Error(), 0, false)
	return apierr.FromStatus(e.Status())
}
