package raftstore

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pipelineRoom is how many append requests to one follower may be on their way.
const pipelineRoom = 32

// pipeline implements raft.AppendPipeline on a stream of its own. It also tells
// the follower of new commits at once, in append requests without entries;
// the library would leave that to the next entries or the commit timeout.
type pipeline struct {
	t      *transport
	id     raft.ServerID
	stream *appendStream
	ready  chan raft.AppendFuture
	wake   chan struct{} // a new commit may have to be told
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	last *raft.AppendEntriesRequest // the newest one sent, without entries
	told uint64                     // the newest commit the follower was told
}

var _ raft.AppendPipeline = (*pipeline)(nil)

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.peer(string(id), string(target))
	if err != nil {
		return nil, err
	}
	s, err := t.openAppend(p.recipient(), p.bulk, t.callTimeout, t.bulkTimeout, pipelineRoom)
	if err != nil {
		return nil, p.failed(err)
	}
	l := &pipeline{
		t: t, id: id, stream: s, wake: make(chan struct{}, 1), closed: make(chan struct{}),
		ready: make(chan raft.AppendFuture, pipelineRoom),
	}
	t.mu.Lock()
	t.pipelines[l] = true
	t.mu.Unlock()
	t.wg.Go(l.tellCommits)
	return l, nil
}

// AppendEntries implements raft.AppendPipeline. It waits for room.
func (l *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	c := &appendCall{req: req, resp: resp, start: time.Now(), done: make(chan struct{}), answered: l.answered}
	l.mu.Lock()
	defer l.mu.Unlock()
	durable := l.t.durable()
	if err := l.stream.send(c, true); err != nil {
		return nil, err
	}
	last := *req
	if n := len(req.Entries); n > 0 {
		last.PrevLogEntry, last.PrevLogTerm, last.Entries = req.Entries[n-1].Index, req.Entries[n-1].Term, nil
	}
	l.last = &last
	l.told = max(l.told, min(req.LeaderCommitIndex, last.PrevLogEntry, durable))
	return future{c}, nil
}

// answered hands an answer to the library, or waits no longer than it does.
func (l *pipeline) answered(c *appendCall) {
	if c.err == nil && c.resp.Success {
		l.t.ack(string(l.id), c.req)
	}
	select {
	case l.ready <- future{c}:
	case <-l.closed:
	}
}

// tellCommits sends what is new of the commit index until the pipeline ends.
func (l *pipeline) tellCommits() {
	for {
		select {
		case <-l.wake:
			l.tell(l.t.committed.Load())
		case <-l.closed:
			return
		case <-l.stream.dead:
			return
		}
	}
}

// tell says that entries up to a commit index may be applied, as far as they
// have been sent on this pipeline. A follower that refused them refuses this
// too; the library finds that out by its own requests.
func (l *pipeline) tell(commit uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil || min(commit, l.last.PrevLogEntry) <= l.told {
		return
	}
	req := *l.last
	req.LeaderCommitIndex = min(commit, req.PrevLogEntry)
	c := &appendCall{req: &req, resp: &raft.AppendEntriesResponse{}, done: make(chan struct{})}
	if l.stream.send(c, false) == nil { // a full stream brings the news itself
		l.told = req.LeaderCommitIndex
	}
}

// Consumer implements raft.AppendPipeline.
func (l *pipeline) Consumer() <-chan raft.AppendFuture { return l.ready }

// Close implements raft.AppendPipeline.
func (l *pipeline) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.stream.close()
		l.t.mu.Lock()
		delete(l.t.pipelines, l)
		l.t.mu.Unlock()
	})
	return nil
}

// future implements raft.AppendFuture.
type future struct{ call *appendCall }

// Error implements raft.Future.
func (f future) Error() error {
	<-f.call.done
	return f.call.err
}

// Start implements raft.AppendFuture.
func (f future) Start() time.Time { return f.call.start }

// Request implements raft.AppendFuture.
func (f future) Request() *raft.AppendEntriesRequest { return f.call.req }

// Response implements raft.AppendFuture.
func (f future) Response() *raft.AppendEntriesResponse { return f.call.resp }
