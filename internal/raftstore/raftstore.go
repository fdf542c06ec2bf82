package raftstore

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/store"
)

// Store is one replica.
type Store struct{ cfg Config }

var _ store.Store = (*Store)(nil)

var errNotBuilt = errors.New("raft store: not built yet")

// Open starts the replica on its data directory. A new one waits to be made the
// first member by Bootstrap, or to be added by another member.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Store{cfg: cfg}, nil
}

// Register puts the Raft service on a server. Call it before the server serves.
func (s *Store) Register(server grpc.ServiceRegistrar) {}

// Bootstrap makes this replica the first member of a new cluster. It refuses
// where there is one already.
func (s *Store) Bootstrap() error { return errNotBuilt }

// Close hands leadership over if this replica has it, and stops.
func (s *Store) Close(ctx context.Context) error { return errNotBuilt }

// Snapshot implements store.Reader.
func (s *Store) Snapshot(ctx context.Context, at store.At) (*store.Snapshot, error) {
	return nil, errNotBuilt
}

// Commit implements store.Writer.
func (s *Store) Commit(ctx context.Context, c store.Command) (uint64, error) { return 0, errNotBuilt }

// Watch implements store.Watcher.
func (s *Store) Watch(ctx context.Context, f store.Filter, from uint64) (*store.Watch, error) {
	return nil, errNotBuilt
}

// Revision is what this replica has applied.
func (s *Store) Revision() uint64 { return 0 }

// Member is one replica as the members' list has it.
type Member struct {
	ID, Address   string
	Voter, Leader bool
}

// Members lists the members as this replica knows them.
func (s *Store) Members() []Member { return nil }

// AddMember adds a replica without a vote, waits until it has caught up, and
// gives it the vote. Doing it again goes on where it stopped; an id that is a
// member already gets the new address. It may be called on any replica.
func (s *Store) AddMember(ctx context.Context, id, address string) error { return errNotBuilt }

// RemoveMember takes a replica out. It may be called on any replica.
func (s *Store) RemoveMember(ctx context.Context, id string) error { return errNotBuilt }

// TransferLeadership hands leadership to a member, or to any ("").
func (s *Store) TransferLeadership(ctx context.Context, id string) error { return errNotBuilt }

// Leadership says who leads, as this replica knows it.
type Leadership struct {
	// ID and Address are empty while nobody is known to lead.
	ID, Address string
	// Leader reports that this replica leads.
	Leader bool
	// Ready reports that it leads and has applied everything that was ever
	// acknowledged: controllers may start.
	Ready bool
	// Term counts leaderships; it goes up with each.
	Term uint64
}

// Leadership gives what holds now, and a channel that is closed when it changes.
func (s *Store) Leadership() (Leadership, <-chan struct{}) { return Leadership{}, nil }
