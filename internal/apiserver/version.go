package apiserver

import (
	"context"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// A request may speak of a kind in another version than the stored one
// (api.Kind.As). It is authorized by the group that it names; inside the server
// all is done with objects of the stored kind, and only managedFields remember
// the version. The functions here stand where objects come in and go out.

// stored gives an object of a request as it is stored. What its own version
// alone demands is checked before; old is nil for a new object.
func stored(k *api.Kind, obj, old api.Object) (api.Object, error) {
	if k.As == nil {
		return obj, nil
	}
	var errs field.ErrorList
	if old == nil && k.Validate != nil {
		errs = k.Validate(obj)
	}
	if old != nil && k.ValidateUpdate != nil {
		errs = append(errs, k.ValidateUpdate(obj, k.FromStored(old))...)
	}
	if len(errs) > 0 {
		return nil, apierr.Invalid(k.GVK().GroupKind().String(), obj.GetName(), errs)
	}
	return k.ToStored(obj), nil
}

// shown gives a value in the version of the request.
func (s *Server) shown(k *api.Kind, v api.Value, err error) (api.Value, error) {
	if err != nil || k.As == nil && v.Record == nil {
		return v, err
	}
	if v.Record != nil {
		if v.Record, err = s.codec.View(k, v.Record); err != nil {
			return api.Value{}, err
		}
		if k.As != nil {
			v.Object = nil
		}
		return v, nil
	}
	if obj, ok := v.Object.(api.Object); ok {
		v.Object = k.FromStored(obj)
	}
	return v, nil
}

// shownStream is a watch in the version of the request.
type shownStream struct {
	api.Stream
	kind  *api.Kind
	codec *api.Codec
}

// Next implements api.Stream.
func (s shownStream) Next(ctx context.Context) ([]api.WatchEvent, error) {
	events, err := s.Stream.Next(ctx)
	if err != nil {
		return nil, err
	}
	for i, e := range events {
		if e.Record == nil {
			continue
		}
		if events[i].Record, err = s.codec.View(s.kind, e.Record); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// storedSelection gives a selection with the stored kind's names of fields. It
// has been checked.
func storedSelection(k *api.Kind, sel fields.Selector) (fields.Selector, error) {
	if k.As == nil || sel == nil {
		return sel, nil
	}
	return sel.Transform(func(name, value string) (string, string, error) {
		if to, ok := k.As.Labels[name]; ok {
			return to, value, nil
		}
		return name, value, nil
	})
}
