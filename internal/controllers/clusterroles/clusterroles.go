// Package clusterroles keeps the cluster roles that are sums of others
// (aggregationRule), and brings the roles and bindings that come with Wherry up
// to date when a leader starts.
package clusterroles

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/reconcile"
	"github.com/wherry-project/wherry/internal/store"
)

// Name is the controller's name, and its user's by authz.Controller.
const Name = "clusterrole-aggregation"

const (
	roles    = "clusterroles.rbac.authorization.k8s.io"
	bindings = "clusterrolebindings.rbac.authorization.k8s.io"
)

// New makes the controller of sums.
func New(w reconcile.Writer) reconcile.Controller {
	return reconcile.Controller{
		Name: Name,
		Inputs: []reconcile.Input{{Resource: roles, Keys: func(_ store.Event, s *store.Snapshot) []reconcile.Key {
			var keys []reconcile.Key
			all, err := store.List[*rbacv1.ClusterRole](s, roles, "")
			if err != nil {
				return nil
			}
			for _, r := range all {
				if r.AggregationRule != nil {
					keys = append(keys, reconcile.Key{Name: r.Name})
				}
			}
			return keys
		}}},
		Reconcile: func(ctx context.Context, s *store.Snapshot, key reconcile.Key) (time.Duration, error) {
			role, err := store.Get[*rbacv1.ClusterRole](s, api.Key{Resource: roles, Name: key.Name})
			if errors.Is(err, apierr.ErrNotFound) || err == nil && role.DeletionTimestamp != nil {
				return 0, nil
			} else if err != nil {
				return 0, err
			}
			all, err := store.List[*rbacv1.ClusterRole](s, roles, "")
			if err != nil {
				return 0, err
			}
			rules, ok, err := authz.Aggregated(role, all)
			if err != nil || !ok || equality.Semantic.DeepEqual(rules, role.Rules) {
				return 0, err
			}
			next := role.DeepCopy()
			next.Rules = rules
			_, err = w.Update(ctx, next)
			return 0, err
		},
	}
}

// Defaults makes the controller of what comes with Wherry: once in a leader's
// life it makes what is missing and adds the rules and subjects that are. What
// was added by others stays. An object whose annotation autoupdate is "false"
// is left alone. It writes as an administrator.
func Defaults(w reconcile.Writer) reconcile.Controller {
	var done atomic.Bool
	return reconcile.Controller{
		Name: "default roles",
		Inputs: []reconcile.Input{{Resource: "namespaces", Keys: func(store.Event, *store.Snapshot) []reconcile.Key {
			if done.Load() {
				return nil
			}
			return []reconcile.Key{{Name: "defaults"}}
		}}},
		Reconcile: func(ctx context.Context, s *store.Snapshot, _ reconcile.Key) (time.Duration, error) {
			if done.Load() {
				return 0, nil
			}
			err := defaults(ctx, w, s)
			done.Store(err == nil)
			return 0, err
		},
	}
}

func defaults(ctx context.Context, w reconcile.Writer, s *store.Snapshot) error {
	p := authz.Defaults()
	var failed []error
	for _, r := range p.ClusterRoles {
		failed = append(failed, keep(ctx, w, s, roles, r, func(have *rbacv1.ClusterRole) {
			have.AggregationRule = r.AggregationRule
			if r.AggregationRule == nil {
				have.Rules = union(have.Rules, r.Rules)
			}
		}))
	}
	for _, b := range p.ClusterRoleBindings {
		failed = append(failed, keep(ctx, w, s, bindings, b, func(have *rbacv1.ClusterRoleBinding) { have.Subjects = union(have.Subjects, b.Subjects) }))
	}
	for _, r := range p.Roles {
		failed = append(failed, keep(ctx, w, s, "roles.rbac.authorization.k8s.io", r, func(have *rbacv1.Role) { have.Rules = union(have.Rules, r.Rules) }))
	}
	for _, b := range p.RoleBindings {
		failed = append(failed, keep(ctx, w, s, "rolebindings.rbac.authorization.k8s.io", b, func(have *rbacv1.RoleBinding) { have.Subjects = union(have.Subjects, b.Subjects) }))
	}
	return errors.Join(failed...)
}

// keep makes an object that is missing, or adds to the one that is there.
func keep[T api.Object](ctx context.Context, w reconcile.Writer, s *store.Snapshot, resource string, want T, add func(T)) error {
	have, err := store.Get[T](s, api.Key{Resource: resource, Namespace: want.GetNamespace(), Name: want.GetName()})
	if errors.Is(err, apierr.ErrNotFound) {
		_, err = w.Create(ctx, want.DeepCopyObject().(api.Object))
		if errors.Is(err, apierr.ErrAlreadyExists) {
			return nil
		}
		return err
	}
	if err != nil || have.GetAnnotations()[authz.AutoUpdate] == "false" || have.GetDeletionTimestamp() != nil {
		return err
	}
	next := have.DeepCopyObject().(T)
	add(next)
	if equality.Semantic.DeepEqual(have, next) {
		return nil
	}
	_, err = w.Update(ctx, next)
	return err
}

// union adds what is missing.
func union[T any](have, want []T) []T {
	for _, v := range want {
		if !slices.ContainsFunc(have, func(h T) bool { return equality.Semantic.DeepEqual(h, v) }) {
			have = append(have, v)
		}
	}
	return have
}
