package images

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/wherry-project/wherry/internal/apierr"
)

// flight is one pull that any number of callers wait for.
type flight struct {
	done    chan struct{} // closed when img and err are there
	cancel  context.CancelFunc
	waiters int // guarded by Store.mu
	img     Image
	err     error
}

// Pull makes the image that ref names in its registry present and returns it.
// The registry is always asked; what is already here is not transferred again.
// The credentials are tried in order, then none. Callers that want the same
// image at the same time share one pull, which goes on while one of them waits.
func (s *Store) Pull(ctx context.Context, ref string, creds ...Auth) (Image, error) {
	name, err := ParseReference(ref)
	if err != nil {
		return Image{}, err
	}
	f, leave, err := s.join(ctx, name, creds)
	if err != nil {
		return Image{}, err
	}
	defer leave()
	select {
	case <-f.done:
		return f.img, f.err
	case <-ctx.Done():
		return Image{}, fmt.Errorf("pull %s: %w", name, ctx.Err())
	}
}

// join returns the flight for name and creds, started if there is none. The
// last to leave ends it.
func (s *Store) join(ctx context.Context, name Reference, creds []Auth) (*flight, func(), error) {
	secret, err := json.Marshal(creds)
	if err != nil {
		return nil, nil, err
	}
	key := fmt.Sprintf("%s %x", name, sha256.Sum256(secret))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errClosed
	}
	f := s.flights[key]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		var all context.Context
		all, f.cancel = context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
		s.flights[key] = f
		s.pulls.Go(func() {
			defer f.cancel()
			f.img, f.err = s.pull(all, name, creds)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			close(f.done)
		})
	}
	f.waiters++
	leave := sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.waiters--; f.waiters == 0 {
			f.cancel()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
		}
	})
	return f, leave, nil
}

// pull tries the credentials in turn until the registry accepts one. The first
// refusal is the one reported: it is about the login that was meant.
func (s *Store) pull(ctx context.Context, name Reference, creds []Auth) (Image, error) {
	var refused error
	for _, auth := range append(creds[:len(creds):len(creds)], Auth{}) {
		img, err := s.pullAs(ctx, name, auth)
		if err == nil {
			return img, nil
		}
		err = explain(name, err)
		if !errors.Is(err, apierr.ErrUnauthorized) {
			return Image{}, err
		}
		if refused == nil {
			refused = err
		}
	}
	return Image{}, refused
}

func (s *Store) pullAs(ctx context.Context, name Reference, auth Auth) (Image, error) {
	repo, err := s.reach.repository(name, auth, s.cfg)
	if err != nil {
		return Image{}, err
	}
	b, digest, err := repo.resolve(ctx, name, s.cfg)
	if err != nil {
		return Image{}, err
	}
	var tags []string
	if t := name.tagged(); t != "" {
		tags = []string{t}
	}
	return s.add(ctx, repo, b, tags, []string{name.Name() + "@" + digest})
}
