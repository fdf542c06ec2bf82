// Package token keeps the Secrets of the type
// kubernetes.io/service-account-token: it fills in the token, the certificate of
// the CA and the namespace, and removes those whose account is gone. It makes
// none: who wants such a Secret creates it, with the name of the account as an
// annotation.
package token

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "token"

const (
	secrets  = "secrets"
	accounts = "serviceaccounts"
)

type controller struct {
	write  reconcile.Writer
	tokens *authn.Accounts
	ca     []byte
}

// New makes the controller; ca is the certificate as PEM.
func New(w reconcile.Writer, tokens *authn.Accounts, ca string) reconcile.Controller {
	c := &controller{w, tokens, []byte(ca)}
	return reconcile.Controller{
		Name: Name,
		Inputs: []reconcile.Input{
			{Resource: secrets, Keys: func(e store.Event, _ *store.Snapshot) []reconcile.Key {
				if !holder(e.New) && !holder(e.Old) {
					return nil
				}
				return []reconcile.Key{{Namespace: e.Key().Namespace, Name: e.Key().Name}}
			}},
			{Resource: accounts, Keys: func(e store.Event, s *store.Snapshot) []reconcile.Key {
				if e.Old == nil || e.New != nil && e.New.UID == e.Old.UID {
					return nil
				}
				return holders(s, e.Old.Namespace)
			}},
			// Another key: tokens of those that are forgotten are made anew.
			{Resource: authn.TokenKeys(), Keys: func(_ store.Event, s *store.Snapshot) []reconcile.Key { return holders(s, "") }},
		},
		Reconcile: c.reconcile,
	}
}

// holder reports whether a record is a Secret for a token.
func holder(r *api.Record) bool {
	return r != nil && r.Index.Fields["type"] == string(corev1.SecretTypeServiceAccountToken)
}

// holders are the Secrets for tokens of a namespace, or of all.
func holders(s *store.Snapshot, namespace string) []reconcile.Key {
	var keys []reconcile.Key
	for r := range s.Scan(secrets, namespace, api.Key{}) {
		if holder(r) {
			keys = append(keys, reconcile.KeyOf(r))
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
	secret, err := store.Get[*corev1.Secret](s, api.Key{Resource: secrets, Namespace: key.Namespace, Name: key.Name})
	switch {
	case errors.Is(err, apierr.ErrNotFound):
		return 0, c.unname(ctx, s, key)
	case err != nil:
		return 0, err
	case secret.Type != corev1.SecretTypeServiceAccountToken || secret.DeletionTimestamp != nil:
		return 0, nil
	}
	account, err := store.Get[*corev1.ServiceAccount](s, api.Key{Resource: accounts, Namespace: key.Namespace, Name: secret.Annotations[corev1.ServiceAccountNameKey]})
	uid := secret.Annotations[corev1.ServiceAccountUIDKey]
	switch {
	case errors.Is(err, apierr.ErrNotFound), err == nil && uid != "" && uid != string(account.UID):
		return 0, c.remove(ctx, secret)
	case err != nil:
		return 0, err
	}
	return 0, ignore(c.fill(ctx, s, secret, account))
}

// remove deletes a Secret whose account is gone or another one.
func (c *controller) remove(ctx context.Context, secret *corev1.Secret) error {
	err := c.write.Delete(ctx, api.Key{Resource: secrets, Namespace: secret.Namespace, Name: secret.Name},
		metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(secret.UID))})
	if errors.Is(err, apierr.ErrConflict) {
		return nil // it is another one by now
	}
	return ignore(err)
}

// fill writes what a Secret lacks. One that is immutable stays as it is.
func (c *controller) fill(ctx context.Context, s *store.Snapshot, secret *corev1.Secret, account *corev1.ServiceAccount) error {
	if secret.Immutable != nil && *secret.Immutable {
		return nil
	}
	token := secret.Data[corev1.ServiceAccountTokenKey]
	forgotten, err := c.tokens.Forgotten(s, string(token))
	if err != nil {
		return err
	}
	next := secret.DeepCopy()
	if next.Data == nil {
		next.Data = map[string][]byte{}
	}
	if len(token) == 0 || forgotten {
		fresh, err := c.tokens.ForSecret(s, account, secret.Name)
		if err != nil {
			return err
		}
		next.Data[corev1.ServiceAccountTokenKey] = []byte(fresh)
	}
	next.Data[corev1.ServiceAccountRootCAKey] = c.ca
	if len(next.Data[corev1.ServiceAccountNamespaceKey]) == 0 {
		next.Data[corev1.ServiceAccountNamespaceKey] = []byte(secret.Namespace)
	}
	next.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
	if same(next, secret) {
		return nil
	}
	_, err = c.write.Update(ctx, next)
	return err
}

// same reports whether nothing was filled in.
func same(next, secret *corev1.Secret) bool {
	if len(next.Data) != len(secret.Data) || next.Annotations[corev1.ServiceAccountUIDKey] != secret.Annotations[corev1.ServiceAccountUIDKey] {
		return false
	}
	for key, value := range next.Data {
		if !bytes.Equal(value, secret.Data[key]) {
			return false
		}
	}
	return true
}

// unname takes the name of a Secret that is gone out of the accounts that list
// it.
func (c *controller) unname(ctx context.Context, s *store.Snapshot, key reconcile.Key) error {
	all, err := store.List[*corev1.ServiceAccount](s, accounts, key.Namespace)
	if err != nil {
		return err
	}
	named := func(r corev1.ObjectReference) bool { return r.Name == key.Name }
	for _, account := range all {
		if !slices.ContainsFunc(account.Secrets, named) || account.DeletionTimestamp != nil {
			continue
		}
		next := account.DeepCopy()
		next.Secrets = slices.DeleteFunc(next.Secrets, named)
		if _, err := c.write.Update(ctx, next); ignore(err) != nil {
			return err
		}
	}
	return nil
}

func ignore(err error) error {
	if errors.Is(err, apierr.ErrNotFound) {
		return nil
	}
	return err
}
