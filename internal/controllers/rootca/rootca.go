// Package rootca gives every namespace the ConfigMap kube-root-ca.crt: the
// certificate of the cluster's CA, by which pods know the API server. It tells
// the API servers of others too, by which CA users are known.
package rootca

import (
	"context"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "root-ca-cert-publisher"

const (
	configMap = "kube-root-ca.crt"
	file      = "ca.crt"
	// why is an annotation that says what the map is for.
	why  = "kubernetes.io/description"
	text = "The certificate of the cluster's CA, which signs what the API server shows on its internal names. " +
		"It is kept as it is by the cluster, and mounted into pods that have a service account's token."
)

// New makes the controller; ca is the certificate as PEM.
func New(w reconcile.Writer, ca string) reconcile.Controller {
	return reconcile.Controller{
		Name: Name,
		Inputs: []reconcile.Input{
			{Resource: "namespaces"},
			{Resource: "configmaps", Keys: func(e store.Event, _ *store.Snapshot) []reconcile.Key {
				if e.Key().Name != configMap {
					return nil
				}
				return []reconcile.Key{{Name: e.Key().Namespace}}
			}},
		},
		Reconcile: func(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
			ns, ok := s.Get(api.Key{Resource: "namespaces", Name: key.Name})
			if !ok || ns.Index.Deleting {
				return 0, nil
			}
			err := keep(ctx, w, s, key.Name, ca)
			if errors.Is(err, apierr.ErrAlreadyExists) || errors.Is(err, apierr.ErrNotFound) {
				return 0, nil
			}
			return 0, err
		},
	}
}

func keep(ctx context.Context, w reconcile.Writer, s *store.Snapshot, namespace, ca string) error {
	data := map[string]string{file: ca}
	have, err := store.Get[*corev1.ConfigMap](s, api.Key{Resource: "configmaps", Namespace: namespace, Name: configMap})
	if errors.Is(err, apierr.ErrNotFound) {
		_, err = w.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: configMap, Annotations: map[string]string{why: text}},
			Data:       data,
		})
		return err
	}
	if err != nil || maps.Equal(have.Data, data) && len(have.BinaryData) == 0 || have.DeletionTimestamp != nil {
		return err
	}
	next := have.DeepCopy()
	next.Data, next.BinaryData = data, nil
	_, err = w.Update(ctx, next)
	return err
}
