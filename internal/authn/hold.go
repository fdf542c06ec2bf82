package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"

	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/pki"
)

// held are the requests that stay open, each with the connection that it came
// over.
type held struct {
	mu  sync.Mutex
	all map[*holding]struct{}
}

type holding struct {
	state *tls.ConnectionState
	end   context.CancelCauseFunc
}

// Hold gives a context for a request that stays open. It ends when a [Recheck]
// finds that the key of the member or node at the other end is believed no
// more. Hold before the user is asked for, so that no change falls between;
// release in the end.
//
// [Recheck]: Authenticator.Recheck
func (a *Authenticator) Hold(ctx context.Context, s *tls.ConnectionState) (_ context.Context, release func()) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return ctx, func() {}
	}
	ctx, end := context.WithCancelCause(ctx)
	h := &holding{s, end}
	a.held.mu.Lock()
	defer a.held.mu.Unlock()
	if a.held.all == nil {
		a.held.all = map[*holding]struct{}{}
	}
	a.held.all[h] = struct{}{}
	return ctx, func() {
		a.held.mu.Lock()
		delete(a.held.all, h)
		a.held.mu.Unlock()
		end(nil)
	}
}

// Recheck ends what is held by members and nodes whose key is believed no more.
// Call it when a pinned key has changed.
func (a *Authenticator) Recheck() {
	a.held.mu.Lock()
	all := make([]*holding, 0, len(a.held.all))
	for h := range a.held.all {
		all = append(all, h)
	}
	a.held.mu.Unlock()
	for _, h := range all {
		if _, err := a.cfg.Verifier.Peer(h.state); errors.Is(err, pki.ErrPinned) {
			h.end(apierr.New(apierr.ErrUnauthorized, "Unauthorized: %w", err))
		}
	}
}

// Revoked is why a held request ended, if it did because its key is believed no
// more.
func Revoked(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, pki.ErrPinned) {
		return err
	}
	return nil
}

// heldStream is a stream whose context is held.
type heldStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s heldStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream. What was said after the end is not
// heard.
func (s heldStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if why := Revoked(s.ctx); why != nil {
		return why
	}
	return err
}
