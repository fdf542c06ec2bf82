package apiserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/kinds/authentication"
	"github.com/wherry-project/wherry/internal/store"
)

// reviews are the kinds that are questions, which the server answers itself.
func (s *Server) reviews() map[string]Virtual {
	ask := func(f func(ctx context.Context, u api.User, obj api.Object) (api.Object, error)) Virtual {
		return Virtual{Create: func(ctx context.Context, u api.User, _ api.Target, obj api.Object, _ api.WriteOptions) (api.Object, error) {
			return f(ctx, u, obj)
		}}
	}
	return map[string]Virtual{
		"tokenreviews.authentication.k8s.io":             ask(s.tokenReview),
		"selfsubjectreviews.authentication.k8s.io":       ask(s.whoAmI),
		"subjectaccessreviews.authorization.k8s.io":      ask(s.accessReview),
		"localsubjectaccessreviews.authorization.k8s.io": ask(s.accessReview),
		"selfsubjectaccessreviews.authorization.k8s.io":  ask(s.accessReview),
		"selfsubjectrulesreviews.authorization.k8s.io":   ask(s.rulesReview),
	}
}

// tokenReview says whose a token is.
func (s *Server) tokenReview(ctx context.Context, _ api.User, obj api.Object) (api.Object, error) {
	r := obj.(*authenticationv1.TokenReview)
	if r.Spec.Token == "" {
		return nil, apierr.BadRequest("token is required for TokenReview in authentication")
	}
	if s.tokens == nil {
		return nil, apierr.BadRequest("TokenReviews are not supported by this server: it has no keys for tokens")
	}
	r.Status = authenticationv1.TokenReviewStatus{}
	u, audiences, err := s.tokens.Review(ctx, r.Spec.Token, r.Spec.Audiences)
	switch {
	case errors.Is(err, apierr.ErrUnavailable), errors.Is(err, apierr.ErrTimeout):
		return nil, err
	case err != nil:
		r.Status.Error = "[invalid bearer token, " + err.Error() + "]"
		return r, nil
	}
	r.Status.Authenticated, r.Status.User = true, userInfo(authn.Known(u))
	r.Status.Audiences = audiences
	return r, nil
}

func userInfo(u api.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for k, v := range u.Extra {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[k] = v
	}
	return info
}

// whoAmI says who asks.
func (s *Server) whoAmI(_ context.Context, u api.User, obj api.Object) (api.Object, error) {
	r := obj.(*authenticationv1.SelfSubjectReview)
	r.CreationTimestamp = s.timestamp()
	r.Status.UserInfo = userInfo(u)
	return r, nil
}

// accessReview says whether somebody may do something.
func (s *Server) accessReview(_ context.Context, u api.User, obj api.Object) (api.Object, error) {
	var spec authorizationv1.SubjectAccessReviewSpec
	var status *authorizationv1.SubjectAccessReviewStatus
	switch r := obj.(type) {
	case *authorizationv1.SubjectAccessReview:
		spec, status = r.Spec, &r.Status
	case *authorizationv1.LocalSubjectAccessReview:
		spec, status = r.Spec, &r.Status
	case *authorizationv1.SelfSubjectAccessReview:
		spec.ResourceAttributes, spec.NonResourceAttributes, status = r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes, &r.Status
		spec.User, spec.UID, spec.Groups = u.Name, u.UID, u.Groups
	}
	a := authz.Attributes{User: api.User{Name: spec.User, UID: spec.UID, Groups: spec.Groups}}
	if on := spec.ResourceAttributes; on != nil {
		a.Verb = on.Verb
		a.Target = api.Target{Group: on.Group, Version: on.Version, Resource: on.Resource, Subresource: on.Subresource, Namespace: on.Namespace, Name: on.Name}
	} else {
		a.Verb, a.Path = spec.NonResourceAttributes.Verb, spec.NonResourceAttributes.Path
		if a.Path == "" {
			a.Path = "/"
		}
	}
	*status = authorizationv1.SubjectAccessReviewStatus{}
	status.Allowed, status.Reason = s.authz.Decide(a)
	return obj, nil
}

// rulesReview lists what the asker may do in a namespace.
func (s *Server) rulesReview(_ context.Context, u api.User, obj api.Object) (api.Object, error) {
	r := obj.(*authorizationv1.SelfSubjectRulesReview)
	if r.Spec.Namespace == "" {
		return nil, apierr.BadRequest("no namespace on request")
	}
	rules, err := s.authz.Rules(u, r.Spec.Namespace)
	r.Status = authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	for i, rule := range rules {
		if !slices.ContainsFunc(rules[:i], func(before rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(before, rule) }) {
			addRule(&r.Status, rule)
		}
	}
	if err != nil {
		r.Status.Incomplete, r.Status.EvaluationError = true, strings.ReplaceAll(err.Error(), "\n", ", ")
	}
	if _, ok := authz.NodeName(u); ok {
		r.Status.Incomplete, r.Status.EvaluationError = true, "node authorizer does not support user rule resolution"
	}
	return r, nil
}

func addRule(to *authorizationv1.SubjectRulesReviewStatus, r rbacv1.PolicyRule) {
	if len(r.Resources) > 0 {
		to.ResourceRules = append(to.ResourceRules, authorizationv1.ResourceRule{
			Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames,
		})
	}
	if len(r.NonResourceURLs) > 0 {
		to.NonResourceRules = append(to.NonResourceRules, authorizationv1.NonResourceRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
	}
}

// requestToken answers for serviceaccounts/NAME/token.
func (s *Server) requestToken(ctx context.Context, u api.User, k *api.Kind, t api.Target, obj runtime.Object, o api.WriteOptions) (api.Value, error) {
	r, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		sub, _ := k.Subresource(t.Subresource)
		return api.Value{}, errBody(obj, k.Body(sub))
	}
	if s.tokens == nil {
		return api.Value{}, apierr.Unavailable("this server has no keys for tokens")
	}
	if r.Name != "" && r.Name != t.Name {
		return api.Value{}, errNames(r.Name, t.Name)
	}
	if r.Namespace != "" && r.Namespace != t.Namespace {
		return api.Value{}, apierr.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	r.Name, r.Namespace = t.Name, t.Namespace
	authentication.DefaultTokenRequest(r)
	if errs := authentication.ValidateTokenRequest(r); len(errs) > 0 {
		return api.Value{}, apierr.Invalid("TokenRequest.authentication.k8s.io", "", errs)
	}
	snap, err := s.snapshot(ctx, store.At{Level: store.Linearizable})
	if err != nil {
		return api.Value{}, err
	}
	account, err := store.Get[*corev1.ServiceAccount](snap, k.Key(t.Namespace, t.Name))
	if err != nil {
		return api.Value{}, err
	}
	if err := s.ownPod(snap, u, t, r); err != nil {
		return api.Value{}, err
	}
	if err := s.tokens.Issue(snap, account, r); err != nil {
		return api.Value{}, err
	}
	if o.DryRun {
		r.Status.Token = ""
	}
	r.CreationTimestamp = s.timestamp()
	sub, _ := k.Subresource(t.Subresource)
	r.GetObjectKind().SetGroupVersionKind(k.Body(sub))
	return api.Value{Object: r}, nil
}

// ownPod keeps a node to tokens that are bound to its own pods, and for what
// these use them.
func (s *Server) ownPod(snap *store.Snapshot, u api.User, t api.Target, r *authenticationv1.TokenRequest) error {
	node := nodeOf(u)
	if node == "" {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return apierr.Forbidden("serviceaccounts", t.Name, errors.New(apierr.New(apierr.ErrForbidden, format, args...).Error()))
	}
	ref := r.Spec.BoundObjectRef
	switch {
	case ref == nil || ref.Kind != "Pod" || ref.Name == "":
		return refuse("node requested token not bound to a pod")
	case ref.UID == "":
		return refuse("node requested token with a pod binding without a uid")
	}
	bound, ok := snap.Get(api.Key{Resource: "pods", Namespace: t.Namespace, Name: ref.Name})
	switch {
	case !ok:
		return apierr.NotFound("pods", ref.Name)
	case bound.UID != string(ref.UID):
		return refuse("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	case bound.Index.Fields["spec.nodeName"] != node:
		return refuse("node requested token bound to a pod scheduled on a different node")
	}
	pod, err := store.Decode[*corev1.Pod](snap, bound)
	if err != nil {
		return err
	}
	if err := s.podAudience(snap, u, t, r, pod); err != nil {
		return apierr.Forbidden("serviceaccounts", t.Name, err)
	}
	return nil
}
