package nodelink

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// RequestToken asks for a token of a service account, as this node, over the
// connection of the primary session.
func (l *Link) RequestToken(ctx context.Context, namespace, account string, want *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	l.mu.Lock()
	se := l.primary
	l.mu.Unlock()
	if se == nil {
		return nil, apierr.Unavailable("no control plane member can be reached")
	}
	body, err := api.ToAny(want)
	if err != nil {
		return nil, err
	}
	resp, err := wherryv1.NewResourcesClient(se.conn).Create(ctx, &wherryv1.CreateRequest{
		Target: &wherryv1.Target{Version: "v1", Resource: "serviceaccounts", Namespace: namespace, Name: account, Subresource: "token"},
		Object: body,
	})
	if err != nil {
		return nil, apierr.FromGRPC(err)
	}
	return tokenOf(resp.GetObject())
}

func tokenOf(a *anypb.Any) (*authenticationv1.TokenRequest, error) {
	out := &authenticationv1.TokenRequest{}
	if err := api.FromAny(a, out); err != nil {
		return nil, fmt.Errorf("read the token that was asked for: %w", err)
	}
	return out, nil
}
