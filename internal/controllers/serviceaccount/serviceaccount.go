// Package serviceaccount gives every namespace its ServiceAccount "default".
package serviceaccount

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "service-account"

const account = "default"

// New makes the controller.
func New(w reconcile.Writer) reconcile.Controller {
	return reconcile.Controller{
		Name: Name,
		Inputs: []reconcile.Input{
			{Resource: "namespaces"},
			{Resource: "serviceaccounts", Keys: func(e store.Event, _ *store.Snapshot) []reconcile.Key {
				if e.New != nil || e.Old.Name != account {
					return nil
				}
				return []reconcile.Key{{Name: e.Old.Namespace}}
			}},
		},
		Reconcile: func(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
			ns, ok := s.Get(api.Key{Resource: "namespaces", Name: key.Name})
			if !ok || ns.Index.Deleting {
				return 0, nil
			}
			if _, ok := s.Get(api.Key{Resource: "serviceaccounts", Namespace: key.Name, Name: account}); ok {
				return 0, nil
			}
			_, err := w.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Name, Name: account}})
			if errors.Is(err, apierr.ErrAlreadyExists) || errors.Is(err, apierr.ErrNotFound) {
				return 0, nil
			}
			return 0, err
		},
	}
}
