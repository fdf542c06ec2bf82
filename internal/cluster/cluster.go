// Package cluster serves the cluster itself (wherry.v1.Cluster): machines join
// by token, members and nodes renew their certificates, members enter and leave
// the Raft.
//
// Invariants: a certificate of a member or node leaves only after its public
// key is pinned, by one command that also checks what let it in; a name never
// changes its key while its holder is part of the cluster.
package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/pki"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
)

// Members is what the service needs of the Raft; *raftstore.Store is one.
type Members interface {
	Members() []raftstore.Member
	AddMember(ctx context.Context, id, address string) error
	RemoveMember(ctx context.Context, id string) error
	TransferLeadership(ctx context.Context, id string) error
	Revision() uint64
}

// Door is where join tokens are kept, as the caller's user.
type Door interface {
	Create(ctx context.Context, obj api.Object) (api.Object, error)
	Delete(ctx context.Context, key api.Key, o metav1.DeleteOptions) error
}

// Config are the parts of a Server.
type Config struct {
	Store   store.Store
	Members Members
	// Self is this member's id.
	Self string
	// Keyring is this member's; without one, nothing is sealed.
	Keyring *Keyring
	// Version goes into backups.
	Version string
	// Identify finds out which user calls, Peer which member or node.
	Identify func(ctx context.Context) (api.User, error)
	Peer     func(ctx context.Context) (pki.Peer, error)
	// As gives the API as a user.
	As func(api.User) Door
	// Ask asks the controld at an address whether it serves.
	Ask func(ctx context.Context, address string) error
	// RotateTokens makes a new key for the tokens of service accounts, and gives
	// its id and how many are believed.
	RotateTokens func(ctx context.Context) (id string, believed int, err error)
	// Now is the clock of certificates and tokens.
	Now func() time.Time
	Log *slog.Logger
}

// Server implements wherryv1.ClusterServer.
type Server struct {
	wherryv1.UnimplementedClusterServer
	cfg Config

	mu     sync.Mutex // guards the CA as it was last read
	ca     *pki.Authority
	caFrom uint64
}

// New makes a server.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Controls gives host:port of every member.
func (s *Server) Controls() []string {
	var out []string
	for _, m := range s.cfg.Members.Members() {
		out = append(out, m.Address)
	}
	return out
}

// Authority opens the CA of a state of this cluster.
func (s *Server) Authority(snap *store.Snapshot) (*pki.Authority, error) { return s.authority(snap) }

// authority opens the cluster's CA.
func (s *Server) authority(snap *store.Snapshot) (*pki.Authority, error) {
	v, revision, err := read[authority](snap, authorityKey())
	if err != nil {
		return nil, err
	}
	if revision == 0 {
		return nil, apierr.Unavailable("the cluster's CA has not arrived here yet")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ca != nil && s.caFrom == revision {
		return s.ca, nil
	}
	a, err := pki.OpenAuthority(v.Certificate, v.Key)
	if err != nil {
		return nil, apierr.Internal(err)
	}
	s.ca, s.caFrom = a, revision
	return a, nil
}

// master refuses whoever does not administer the cluster.
func (s *Server) master(ctx context.Context, what string) (api.User, error) {
	u, err := s.cfg.Identify(ctx)
	if err != nil {
		return u, err
	}
	if !u.Has(pki.MastersGroup) {
		return u, apierr.Forbidden("", "", fmt.Errorf("user %q may not %s: only the group %s may", u.Name, what, pki.MastersGroup))
	}
	return u, nil
}
