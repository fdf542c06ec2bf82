// Package apiserver is the one door to the cluster's state. Every write of an
// object, by a user, a node or a controller, is authorized, defaulted, admitted
// and validated here, under the writer's identity, before it is one
// compare-and-set command of the store. gRPC is served here; the Kubernetes
// REST paths are a translation in front of the same methods.
package apiserver

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/admission"
	"github.com/wherry-project/wherry/internal/alloc"
	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/authn"
	"github.com/wherry-project/wherry/internal/authz"
	"github.com/wherry-project/wherry/internal/patch"
	"github.com/wherry-project/wherry/internal/store"
)

// maxTries bounds how often a write is tried again after somebody else's. Of
// hundreds of writers of one object each has its turn before.
const maxTries = 300

// Config are the parts that a Server is made of.
type Config struct {
	Store store.Store
	Codec *api.Codec
	Alloc *alloc.Allocator
	// Now is the clock of creation and deletion timestamps; nil is time.Now.
	Now func() time.Time
	// LiveNode gives when this replica last heard of a node; not ok if it never
	// did. Readers of the node and of its lease see it, and the store does not.
	// Nil shows what is stored.
	LiveNode func(node string) (at time.Time, ok bool)
	// Virtual serves the kinds that are not stored, by the name of their
	// resource with its group, such as "pods.metrics.k8s.io". The server adds
	// those that it answers itself.
	Virtual map[string]Virtual
	// Tokens gives out and reviews service account tokens; nil refuses to.
	Tokens *authn.Accounts
}

// Server implements api.Resources over a store.
type Server struct {
	store store.Store
	codec *api.Codec
	alloc *alloc.Allocator
	authz *authz.Authorizer
	admit admission.Chain
	merge *patch.Fields
	now   func() time.Time
	heard func(node string) (time.Time, bool)
	// virtual is not changed after New.
	virtual map[string]Virtual
	tokens  *authn.Accounts
}

var _ api.Resources = (*Server)(nil)

// New makes a server.
func New(cfg Config) *Server {
	s := &Server{
		store: cfg.Store, codec: cfg.Codec, alloc: cfg.Alloc, now: cfg.Now, heard: cfg.LiveNode,
		admit: admission.BuiltIn(), merge: patch.NewFields(cfg.Codec.Kinds()),
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.authz = authz.New(cfg.Store)
	s.tokens, s.virtual = cfg.Tokens, s.reviews()
	s.virtual["componentstatuses"] = s.components()
	s.virtual["bindings"] = Virtual{Create: s.bind}
	maps.Copy(s.virtual, cfg.Virtual)
	return s
}

// Kinds is the table of what is served.
func (s *Server) Kinds() *api.Kinds { return s.codec.Kinds() }

// Codec decodes records.
func (s *Server) Codec() *api.Codec { return s.codec }

// resolve finds the kind that a target names, and checks its shape.
func (s *Server) resolve(t api.Target, verb string) (*api.Kind, error) {
	k, ok := s.Kinds().Resource(t.Group, t.Version, t.Resource)
	if !ok || t.Namespace != "" && !k.Namespaced {
		return nil, errNoResource()
	}
	verbs := k.Verbs
	if t.Subresource != "" {
		sub, ok := k.Subresource(t.Subresource)
		if !ok {
			return nil, errNoResource()
		}
		verbs = sub.Verbs
	}
	if !slices.Contains(verbs, verb) {
		return nil, errMethod()
	}
	return k, shaped(k, t, verb)
}

// shaped checks that a target names as much as its verb needs.
func shaped(k *api.Kind, t api.Target, verb string) error {
	one := t.Subresource != "" || verb == "get" || verb == "update" || verb == "patch" || verb == "delete"
	switch {
	case one && t.Name == "":
		return apierr.BadRequest("resource name may not be empty")
	case one && k.Namespaced && t.Namespace == "":
		return apierr.New(apierr.ErrNotFound, "the server could not find the requested resource: %s are in namespaces, and none is named", k.KeyResource())
	case verb == "deletecollection" && k.Namespaced && t.Namespace == "":
		return errMethod() // never those of all namespaces
	}
	return nil
}

// errMethod refuses a verb that the resource has not.
func errMethod() error {
	return apierr.New(apierr.ErrMethodNotAllowed, "the server does not allow this method on the requested resource")
}

func errNoResource() error {
	return apierr.New(apierr.ErrNotFound, "the server could not find the requested resource")
}

// enter authorizes and resolves, in this order: who may not is told no more.
func (s *Server) enter(u api.User, t api.Target, verb string) (*api.Kind, error) {
	if err := s.Authorize(u, t, verb); err != nil {
		return nil, err
	}
	return s.resolve(t, verb)
}

// enterMany is enter for a collection. A list of what has one name is allowed to
// who may list that name.
func (s *Server) enterMany(u api.User, t api.Target, sel api.Selection, verb string) (*api.Kind, error) {
	asked := t
	if asked.Name == "" && sel.Fields != nil {
		if name, ok := sel.Fields.RequiresExactMatch("metadata.name"); ok && len(path.IsValidPathSegmentName(name)) == 0 {
			asked.Name = name
		}
	}
	if err := s.Authorize(u, asked, verb); err != nil {
		return nil, err
	}
	return s.resolve(t, verb)
}

// Authorizer decides who may do what by this server's state.
func (s *Server) Authorizer() *authz.Authorizer { return s.authz }

// AuthorizePath answers whether u may do verb to a path that is no object.
func (s *Server) AuthorizePath(u api.User, verb, path string) error {
	return s.authz.Authorize(authz.Attributes{User: u, Verb: verb, Path: path})
}

// Authorize answers whether u may do verb to t, for the front ends' own
// verbs such as impersonate.
func (s *Server) Authorize(u api.User, t api.Target, verb string) error {
	return s.authz.Authorize(authz.Attributes{User: u, Verb: verb, Target: t})
}

// attempt runs do on this replica's state. A success stands: the store
// compared. An answer that rests on what was read alone (an error, or a write
// that would change nothing) is asked again of a linearizable snapshot, and a
// lost race is tried again from the state that won.
func (s *Server) attempt(ctx context.Context, do func(snap *store.Snapshot) (settled bool, err error)) error {
	at := store.At{Level: store.Any}
	for try := range maxTries {
		if err := pause(ctx, try); err != nil {
			return err
		}
		snap, err := s.store.Snapshot(ctx, at)
		if unanswered(err) { // in the words of a write that the store refuses
			return apierr.New(apierr.ErrTimeout, "nothing was written: %w", err)
		}
		if err != nil {
			return err
		}
		settled, err := do(snap)
		var lost *store.CompareError
		switch {
		case errors.As(err, &lost) && lost.Current > snap.Revision():
			at = store.At{Level: store.AtLeast, Revision: lost.Current}
		case errors.As(err, &lost):
			at = store.At{Level: store.Linearizable}
		case settled || at.Level == store.Linearizable || unanswered(err):
			return err
		default:
			at = store.At{Level: store.Linearizable}
		}
	}
	return apierr.ServerTimeout("objects", "update", time.Second)
}

// pause keeps those apart that lose to each other again and again: they rest a
// random while, longer with each try, or all of them would try for each one
// that wins.
func pause(ctx context.Context, try int) error {
	if try < 3 {
		return nil
	}
	t := time.NewTimer(rand.N(time.Millisecond << min(try-2, 5)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unanswered reports whether an error is no judgement on what was read: the
// write may have been done, and trying it again could find its own result.
func unanswered(err error) bool {
	return errors.Is(err, apierr.ErrTimeout) || errors.Is(err, apierr.ErrUnavailable)
}

func (s *Server) timestamp() metav1.Time { return metav1.Time{Time: s.now().Truncate(time.Second)} }
