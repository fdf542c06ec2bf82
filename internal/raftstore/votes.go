package raftstore

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// electionSyncs is for how many syncs a candidate waits for votes. It takes
	// four, one after the other: the candidate and whoever votes for it store
	// the term, and then the vote.
	electionSyncs = 6
	// maxElection bounds how long that may become.
	maxElection = 2 * time.Minute
)

// electionTimeout is how long a candidate waits for votes where a sync takes so
// long.
func electionTimeout(configured, sync time.Duration) time.Duration {
	d := configured
	for d < electionSyncs*sync && d < maxElection {
		d *= 2
	}
	return d
}

// waitForVotes has a candidate wait for as long as the disks take: this
// replica's, and those of the members that it has asked for their votes. With a
// shorter time no leader would be elected ever.
func (s *Store) waitForVotes(now time.Time) {
	d := electionTimeout(s.cfg.Timeouts.Election, max(s.disk.logs.watch.sync(now), s.transport.voteSync(now)))
	if s.raft.ReloadableConfig().ElectionTimeout == d {
		return
	}
	s.log.Debug("the time for an election was set to the time that disks take", "time", d)
	if err := s.alarm.reload(func(r *raft.ReloadableConfig) { r.ElectionTimeout = d }); err != nil {
		s.log.Warn("the time for an election could not be set", "err", err)
	}
}

// question asks a member for its vote, or whether it would give it. There is one
// at a time: when the library asks again it has begun another election, and an
// answer to the former question is of no use.
type question struct {
	order  uint64 // a later one has a higher one
	cancel context.CancelFunc
	since  time.Time // since when nothing was answered
}

// askVote asks a question, whose answer may have to wait for the member's disk.
// Connections on which nothing has been answered for long may have gone silent:
// the next question does not depend on them.
func (t *transport) askVote(id raft.ServerID, target raft.ServerAddress, order uint64, f call) error {
	ctx, cancel := context.WithTimeout(t.ctx, t.bulkTimeout)
	defer cancel()
	q, ok := t.supersede(string(id), order, cancel)
	if !ok {
		return errSuperseded
	}
	defer t.settled(string(id), q)
	return t.ask(ctx, id, target, f)
}

var errSuperseded = errors.New("the election goes on without this answer")

func (t *transport) supersede(id string, order uint64, cancel context.CancelFunc) (q *question, ok bool) {
	q = &question{order, cancel, time.Now()}
	t.mu.Lock()
	before, p := t.questions[id], t.peers[id]
	if before != nil && before.order > order {
		t.mu.Unlock()
		return nil, false
	}
	t.questions[id] = q
	if before != nil {
		q.since = before.since
	}
	silent := time.Since(q.since) > t.callTimeout
	if silent {
		q.since = time.Now()
	}
	t.mu.Unlock()
	if before != nil {
		before.cancel()
	}
	if silent && p != nil {
		t.drop(p)
	}
	return q, true
}

func (t *transport) settled(id string, q *question) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.questions[id] == q {
		delete(t.questions, id)
	}
}

// voted notes how long a member took for its vote: two syncs.
func (t *transport) voted(id raft.ServerID, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.votes[string(id)] = took{d / 2, time.Now()}
}

// voteSync is how long a sync seems to take where votes were asked for.
func (t *transport) voteSync(now time.Time) (d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, v := range t.votes {
		if v.old(now) {
			delete(t.votes, id)
		} else {
			d = max(d, v.d)
		}
	}
	return d
}

// votes reports whether this replica has just given its vote of a term to
// somebody else, who may be about to win: then it is not the time for another to
// try. The library says yes all the same, and two candidates would take each
// other's vote. Only for a while, though: whoever was voted for may be gone.
func (s *Store) votes(term uint64, candidate string) bool {
	if time.Since(s.disk.stable.votedAt()) > s.raft.ReloadableConfig().ElectionTimeout {
		return false
	}
	voted, err := s.disk.stable.GetUint64([]byte(keyVoteTerm))
	if err != nil || voted != term {
		return false
	}
	whom, err := s.disk.stable.Get([]byte(keyVoteFor))
	return err == nil && string(whom) != candidate
}
