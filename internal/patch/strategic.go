package patch

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// strategic fills obj with current after a strategic merge patch. How lists
// merge is read from the tags of obj's Go type.
func strategic(obj, current runtime.Object, patch []byte, validation string) (warnings []string, err error) {
	before, err := runtime.DefaultUnstructuredConverter.ToUnstructured(current)
	if err != nil {
		return nil, fmt.Errorf("take the object to patch apart: %w", err)
	}
	changes := map[string]any{}
	found, err := kjson.UnmarshalStrict(patch, &changes)
	if err != nil {
		return nil, apierr.BadRequest("%w", err)
	}
	shown := fmt.Sprintf("%+v", changes) // the merge changes it
	after, err := merge(before, changes, obj)
	if err != nil {
		return nil, err
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(after, obj, validation != api.ValidateIgnore)
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		found = append(found, strict.Errors()...)
	} else if err != nil {
		return nil, invalid(shown, err)
	}
	warnings, err = api.Strictness(found, validation)
	if err != nil {
		return nil, invalid(shown, err)
	}
	return warnings, nil
}

// merge calls the library, which panics on some patches whose values have not
// the type that the tags promise.
func merge(before, changes map[string]any, schema runtime.Object) (after map[string]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			after, err = nil, apierr.BadRequest("the strategic merge patch does not fit the object: %v", p)
		}
	}()
	after, err = strategicpatch.StrategicMergeMapPatch(before, changes, schema)
	switch {
	case err == nil:
		return after, nil
	case errors.Is(err, mergepatch.ErrNoListOfLists):
		return nil, unprocessable(err)
	}
	return nil, apierr.BadRequest("%w", err)
}
