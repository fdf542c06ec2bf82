package nodelink

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// RequestToken asks for a token of a service account.
func (l *Link) RequestToken(ctx context.Context, namespace, account string, want *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	out := &authenticationv1.TokenRequest{}
	t := &wherryv1.Target{Version: "v1", Resource: "serviceaccounts", Namespace: namespace, Name: account, Subresource: "token"}
	return out, l.create(ctx, t, want, out)
}

// ReviewToken asks the API whose a token is.
func (l *Link) ReviewToken(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	out := &authenticationv1.TokenReview{}
	return out, l.create(ctx, &wherryv1.Target{Group: authenticationv1.GroupName, Version: "v1", Resource: "tokenreviews"}, r, out)
}

// ReviewAccess asks the API what somebody may.
func (l *Link) ReviewAccess(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	out := &authorizationv1.SubjectAccessReview{}
	return out, l.create(ctx, &wherryv1.Target{Group: authorizationv1.GroupName, Version: "v1", Resource: "subjectaccessreviews"}, r, out)
}

// message is a Kubernetes message.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// create posts what to the API, as this node, over the connection of the primary
// session, and reads the answer.
func (l *Link) create(ctx context.Context, t *wherryv1.Target, what, answer message) error {
	l.mu.Lock()
	se := l.primary
	l.mu.Unlock()
	if se == nil {
		return apierr.Unavailable("no control plane member can be reached")
	}
	body, err := api.ToAny(what)
	if err != nil {
		return err
	}
	resp, err := wherryv1.NewResourcesClient(se.conn).Create(ctx, &wherryv1.CreateRequest{Target: t, Object: body})
	if err != nil {
		return apierr.FromGRPC(err)
	}
	if err := api.FromAny(resp.GetObject(), answer); err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	return nil
}
