package apiserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
)

// Virtual serves a kind that is not stored (api.Kind.Virtual): its objects are
// made when they are asked for. A nil function refuses its verb as not
// allowed; the kind's Verbs should not name it then. The functions are called
// after authorization; objects that they give belong to the server.
type Virtual struct {
	// Create answers a posted object, which was checked to be of the kind and
	// has the request's namespace. It may change and return it.
	Create func(ctx context.Context, u api.User, t api.Target, obj api.Object, o api.WriteOptions) (api.Object, error)
	// Get gives one object, or an error of kind apierr NotFound.
	Get func(ctx context.Context, u api.User, t api.Target) (api.Object, error)
	// List gives the objects of t.Namespace, or of all namespaces if that is
	// empty, in any order. The selection is applied to them afterwards; it is
	// handed in for those that can save work by it.
	List func(ctx context.Context, u api.User, t api.Target, sel api.Selection) ([]api.Object, error)
}

// virtual finds who serves a kind that is not stored.
func (s *Server) virtualOf(k *api.Kind) (Virtual, error) {
	v, ok := s.virtual[k.KeyResource()]
	if !ok {
		return v, apierr.Unavailable("%s are not served by this server", k.KeyResource())
	}
	return v, nil
}

// createVirtual answers a create of a kind that is not stored.
func (s *Server) createVirtual(ctx context.Context, u api.User, k *api.Kind, t api.Target, obj api.Object, o api.WriteOptions) (api.Value, error) {
	v, err := s.virtualOf(k)
	if err != nil {
		return api.Value{}, err
	}
	if v.Create == nil {
		return api.Value{}, apierr.MethodNotAllowed(k.KeyResource(), "create")
	}
	if k.Default != nil {
		k.Default(obj)
	}
	if k.Validate != nil {
		if errs := k.Validate(obj); len(errs) > 0 {
			return api.Value{}, apierr.Invalid(k.GVK().GroupKind().String(), obj.GetName(), errs)
		}
	}
	out, err := v.Create(ctx, u, t, obj, o)
	return virtualValue(k, out, err)
}

func (s *Server) getVirtual(ctx context.Context, u api.User, k *api.Kind, t api.Target) (api.Value, error) {
	v, err := s.virtualOf(k)
	if err != nil {
		return api.Value{}, err
	}
	if v.Get == nil {
		return api.Value{}, apierr.MethodNotAllowed(k.KeyResource(), "get")
	}
	out, err := v.Get(ctx, u, t)
	return virtualValue(k, out, err)
}

func virtualValue(k *api.Kind, obj api.Object, err error) (api.Value, error) {
	if err != nil {
		return api.Value{}, err
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GVK())
	return api.Value{Object: obj}, nil
}

// listVirtual lists a kind that is not stored: always the whole of it, without
// a revision.
func (s *Server) listVirtual(ctx context.Context, u api.User, k *api.Kind, t api.Target, o api.ListOptions) (*api.Page, error) {
	if err := checkList(o); err != nil {
		return nil, err
	}
	v, err := s.virtualOf(k)
	if err != nil {
		return nil, err
	}
	if v.List == nil {
		return nil, apierr.MethodNotAllowed(k.KeyResource(), "list")
	}
	sel, err := selection(k, t, o.Selection)
	if err != nil {
		return nil, err
	}
	objects, err := v.List(ctx, u, t, o.Selection)
	if err != nil {
		return nil, err
	}
	p := &api.Page{Kind: k}
	for _, obj := range objects {
		r, err := k.Record(obj)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", k.KeyResource(), err)
		}
		if sel.matches(r) {
			p.Records = append(p.Records, r)
		}
	}
	slices.SortFunc(p.Records, func(a, b *api.Record) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return p, nil
}
