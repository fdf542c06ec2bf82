package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/satoken"
	"github.com/wherry-project/wherry/internal/store"
)

// TokenKeys is the resource of the record of the keys: whoever watches it hears
// that there are others.
func TokenKeys() string { return tokenKeysKey().Resource }

// ForSecret makes the token of an account that a Secret is to hold.
func (a *Accounts) ForSecret(snap *store.Snapshot, account *corev1.ServiceAccount, secret string) (string, error) {
	keys, err := a.keysOf(snap)
	if err != nil {
		return "", err
	}
	return keys.SignLegacy(satoken.Legacy{Namespace: account.Namespace, Secret: secret, Account: account.Name, AccountUID: string(account.UID)})
}

// Forgotten reports whether a token of a Secret was signed with a key that is
// no longer believed.
func (a *Accounts) Forgotten(snap *store.Snapshot, token string) (bool, error) {
	keys, err := a.keysOf(snap)
	if err != nil {
		return false, err
	}
	return keys.Forgotten(token), nil
}

// legacy is who holds a token that is kept in a Secret. It is meant for the API
// itself, and good for as long as the Secret holds it.
func (a *Accounts) legacy(ctx context.Context, snap *store.Snapshot, keys *satoken.KeySet, token string, audiences []string) (api.User, []string, error) {
	l, err := keys.VerifyLegacy(token)
	if err != nil {
		return api.User{}, nil, err
	}
	if len(audiences) > 0 && !slices.Contains(audiences, a.cfg.Issuer) {
		return api.User{}, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string{a.cfg.Issuer}, audiences)
	}
	if err := kept(snap, l, token); err != nil {
		// Another member may have filled the Secret a moment ago.
		fresh, ferr := a.cfg.State.Snapshot(ctx, store.At{Level: store.Linearizable})
		if ferr != nil || fresh.Revision() == snap.Revision() {
			return api.User{}, nil, err
		}
		if err := kept(fresh, l, token); err != nil {
			return api.User{}, nil, err
		}
	}
	return api.User{
		Name: satoken.Subject(l.Namespace, l.Account), UID: l.AccountUID,
		Groups: []string{allServiceAccounts, allServiceAccounts + ":" + l.Namespace},
	}, []string{a.cfg.Issuer}, nil
}

// kept looks whether the Secret of a token still holds it, and its account is
// still there.
func kept(snap *store.Snapshot, l satoken.Legacy, token string) error {
	s, err := store.Get[*corev1.Secret](snap, api.Key{Resource: "secrets", Namespace: l.Namespace, Name: l.Secret})
	switch {
	case errors.Is(err, apierr.ErrNotFound), err == nil && s.DeletionTimestamp != nil:
		return fmt.Errorf("the token's Secret %q is no longer there", l.Secret)
	case err != nil:
		return err
	case subtle.ConstantTimeCompare(s.Data[corev1.ServiceAccountTokenKey], []byte(token)) != 1:
		return fmt.Errorf("the token's Secret %q holds another token", l.Secret)
	}
	account, ok := snap.Get(api.Key{Resource: "serviceaccounts", Namespace: l.Namespace, Name: l.Account})
	if !ok || account.UID != l.AccountUID || account.Index.Deleting {
		return fmt.Errorf("the token's service account %q is no longer there", l.Account)
	}
	return nil
}
