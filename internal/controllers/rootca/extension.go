package rootca

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

const (
	// extension is the ConfigMap in kube-system where API servers of others look
	// up how the cluster's users authenticate.
	extension = "extension-apiserver-authentication"
	clientCA  = "client-ca-file"
)

// Extension makes the controller that keeps the ConfigMap
// kube-system/extension-apiserver-authentication: the CA of users'
// certificates. Other keys of it are left alone. It names no proxy whose word is
// to be taken for who a user is (requestheader-*), since there is none.
func Extension(w reconcile.Writer, ca string) reconcile.Controller {
	return reconcile.Controller{
		Name: "extension authentication",
		Inputs: []reconcile.Input{
			{Resource: "namespaces", Keys: only(api.Key{Name: metav1.NamespaceSystem})},
			{Resource: "configmaps", Keys: only(api.Key{Namespace: metav1.NamespaceSystem, Name: extension})},
		},
		Reconcile: func(ctx context.Context, s *store.Snapshot, _ reconcile.Key) (time.Duration, error) {
			err := publish(ctx, w, s, ca)
			if errors.Is(err, apierr.ErrAlreadyExists) || errors.Is(err, apierr.ErrNotFound) {
				return 0, nil
			}
			return 0, err
		},
	}
}

// only looks at changes of one object, and at one key after them.
func only(want api.Key) func(store.Event, *store.Snapshot) []reconcile.Key {
	return func(e store.Event, _ *store.Snapshot) []reconcile.Key {
		if k := e.Key(); k.Namespace != want.Namespace || k.Name != want.Name {
			return nil
		}
		return []reconcile.Key{{Namespace: metav1.NamespaceSystem, Name: extension}}
	}
}

func publish(ctx context.Context, w reconcile.Writer, s *store.Snapshot, ca string) error {
	have, err := store.Get[*corev1.ConfigMap](s, api.Key{Resource: "configmaps", Namespace: metav1.NamespaceSystem, Name: extension})
	if errors.Is(err, apierr.ErrNotFound) {
		_, err = w.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: extension}, Data: map[string]string{clientCA: ca},
		})
		return err
	}
	if err != nil || have.Data[clientCA] == ca || have.DeletionTimestamp != nil {
		return err
	}
	next := have.DeepCopy()
	if next.Data == nil {
		next.Data = map[string]string{}
	}
	next.Data[clientCA] = ca
	_, err = w.Update(ctx, next)
	return err
}
