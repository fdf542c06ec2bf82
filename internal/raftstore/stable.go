package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// What the library keeps in a stable store.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteFor  = "LastVoteCand"
)

var stableKeys = []string{keyTerm, keyVoteTerm, keyVoteFor}

// errNoKey is what the library takes for "nothing stored yet": by its text.
var errNoKey = errors.New("not found")

// stable is a stable store that knows when it was last given a vote.
type stable interface {
	raft.StableStore
	votedAt() time.Time
}

// voteClock is when a vote was stored.
type voteClock struct{ at atomic.Pointer[time.Time] }

func (c *voteClock) voted() {
	now := time.Now()
	c.at.Store(&now)
}

func (c *voteClock) votedAt() time.Time {
	if at := c.at.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// stableStore implements raft.StableStore. The library panics when a value
// cannot be stored. So it is not told: this replica stops, and says nothing to
// the others from then on.
//
// The library stores a vote in two steps, the term and then the candidate, and
// tells nobody of it before the second. So the term is held back until then, or
// until anything else is stored, and both cost one sync: a vote must not take
// long. A power cut in between leaves the vote before, as it did happen.
type stableStore struct {
	voteClock
	s    *raftlog.Stable
	logs *logStore

	mu   sync.Mutex
	held []byte // the term of a vote, or nil
}

var _, _ stable = (*stableStore)(nil), (*boltStable)(nil)

// Set implements raft.StableStore.
func (s *stableStore) Set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(key) == keyVoteTerm {
		s.held = append([]byte{}, value...)
		return nil
	}
	values := map[string][]byte{string(key): value}
	if s.held != nil {
		values[keyVoteTerm] = s.held
	}
	done := s.logs.watch.begin(true)
	err := s.s.SetAll(values)
	done()
	if err != nil {
		s.logs.fail(fmt.Errorf("the disk of the term and the vote: %w", err))
		return nil
	}
	if s.held != nil {
		s.held = nil
		s.voted()
	}
	return nil
}

// Get implements raft.StableStore.
func (s *stableStore) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if held != nil && string(key) == keyVoteTerm {
		return held, nil
	}
	if v := s.s.Get(string(key)); v != nil {
		return v, nil
	}
	return nil, errNoKey
}

// SetUint64 implements raft.StableStore.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("stable value %s has %d bytes", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// boltStable is a stable store in a bolt file whose disk is watched.
type boltStable struct {
	voteClock
	raft.StableStore
	watch *diskWatch
}

// Set implements raft.StableStore.
func (s *boltStable) Set(key, value []byte) error {
	defer s.watch.begin(true)()
	err := s.StableStore.Set(key, value)
	if string(key) == keyVoteFor {
		s.voted()
	}
	return err
}

// SetUint64 implements raft.StableStore.
func (s *boltStable) SetUint64(key []byte, value uint64) error {
	defer s.watch.begin(true)()
	return s.StableStore.SetUint64(key, value)
}
