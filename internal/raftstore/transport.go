package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

// transport carries Raft's requests over gRPC. It implements raft.Transport and
// raft.WithPreVote. Each peer has two connections, so that entries and
// snapshots never stand before heartbeats and votes.
type transport struct {
	id, address string
	cluster     string
	dial        Dial
	log         *slog.Logger
	callTimeout time.Duration // small requests
	bulkTimeout time.Duration // entries and votes, which wait for the peer's disk

	ctx    context.Context // of everything sent; ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	consume   chan raft.RPC
	heartbeat atomic.Pointer[func(raft.RPC)]
	committed atomic.Uint64

	mu        sync.Mutex
	peers     map[string]*peer
	pipelines map[*pipeline]bool
	questions map[string]*question
	votes     map[string]took

	pulseMu sync.Mutex
	pulses  map[string]*pulse
	// durable is up to where this member's log survives a power cut. Nobody is
	// told of a commit beyond.
	durable func() uint64
	// stopped is why this member says nothing to the others any more, or nil.
	stopped func() error
	// wanted tells whether a member that is away is still waited for.
	wanted func(id raft.ServerID, address raft.ServerAddress, term uint64) bool

	ackMu   sync.Mutex
	acked   map[string]uint64 // the last entry each follower is known to have
	waiting []*ackWait
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)

	errClosed = errors.New("raft store is closed")
)

func newTransport(cfg Config) *transport {
	// Raft's interface has no contexts: this is the one for all it sends.
	ctx, cancel := context.WithCancel(context.Background())
	return &transport{
		id: cfg.ID, address: cfg.Address, cluster: cfg.Cluster, dial: cfg.Dial, log: cfg.Logger,
		callTimeout: max(time.Second, 2*cfg.Timeouts.Heartbeat), bulkTimeout: 30 * time.Second,
		ctx: ctx, cancel: cancel,
		consume: make(chan raft.RPC), peers: map[string]*peer{}, pipelines: map[*pipeline]bool{},
		questions: map[string]*question{}, votes: map[string]took{},
		pulses: map[string]*pulse{}, durable: func() uint64 { return math.MaxUint64 },
		stopped: func() error { return nil },
		acked:   map[string]uint64{},
	}
}

// close ends everything that is on its way and waits for it.
func (t *transport) close() {
	t.cancel()
	t.mu.Lock()
	peers := t.peers
	t.peers = nil
	t.mu.Unlock()
	for _, p := range peers {
		p.close()
	}
	t.wg.Wait()
}

// peer is the connections to another member.
type peer struct {
	t             *transport
	id, address   string
	control, bulk grpc.ClientConnInterface
	confirming    atomic.Int32

	mu      sync.Mutex // held while a stream is opened
	beats   *appendStream
	entries *appendStream
}

// peer gives the connections to a member at its address of now.
func (t *transport) peer(id, address string) (*peer, error) {
	t.mu.Lock()
	p := t.peers[id]
	t.mu.Unlock()
	if p != nil && p.address == address {
		return p, nil
	}
	fresh, err := t.connect(id, address)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers == nil {
		fresh.close()
		return nil, errClosed
	}
	if now := t.peers[id]; now != nil {
		if now.address == address {
			fresh.close()
			return now, nil
		}
		now.close()
	}
	t.peers[id] = fresh
	return fresh, nil
}

func (t *transport) connect(id, address string) (*peer, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.callTimeout)
	defer cancel()
	control, err := t.dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to member %s at %s: %w", id, address, err)
	}
	bulk, err := t.dial(ctx, address)
	if err != nil {
		closeConn(control)
		return nil, fmt.Errorf("connect to member %s at %s: %w", id, address, err)
	}
	return &peer{t: t, id: id, address: address, control: control, bulk: bulk}, nil
}

// drop forgets connections that went silent, so that the next request makes
// new ones instead of waiting for TCP to give up.
func (t *transport) drop(p *peer) {
	t.mu.Lock()
	if t.peers[p.id] == p {
		delete(t.peers, p.id)
	}
	t.mu.Unlock()
	p.close()
}

// recipient is how the peer is told that a request is for it.
func (p *peer) recipient() recipient { return recipient{p.id, p.t.cluster} }

func (p *peer) close() {
	closeConn(p.control)
	closeConn(p.bulk)
}

func closeConn(conn grpc.ClientConnInterface) {
	if c, ok := conn.(io.Closer); ok {
		_ = c.Close() // nothing is lost: requests on it fail and say so
	}
}

// failed passes an error on. Connections that went silent, or that wait before
// they connect again (gRPC does so longer and longer), are forgotten: a member
// that comes back must be found at once. Raft bounds how often it asks.
func (p *peer) failed(err error) error {
	if errors.Is(err, errSilent) || waits(p.control) || waits(p.bulk) {
		p.t.drop(p)
	}
	return fmt.Errorf("member %s at %s: %w", p.id, p.address, err)
}

// waits reports whether a connection could not be made and is not tried now.
func waits(conn grpc.ClientConnInterface) bool {
	c, ok := conn.(interface{ GetState() connectivity.State })
	return ok && c.GetState() == connectivity.TransientFailure
}

// beatStream gives the stream for heartbeats, entryStream that for entries
// outside a pipeline.
func (p *peer) beatStream() (*appendStream, error) {
	return p.streamOn(&p.beats, p.control, p.t.callTimeout, 16)
}

func (p *peer) entryStream() (*appendStream, error) {
	return p.streamOn(&p.entries, p.bulk, p.t.bulkTimeout, 4)
}

func (p *peer) streamOn(at **appendStream, conn grpc.ClientConnInterface, answer time.Duration, room int) (*appendStream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *at == nil || !(*at).alive() {
		s, err := p.t.openAppend(p.recipient(), conn, p.t.callTimeout, answer, room)
		if err != nil {
			return nil, err
		}
		*at = s
	}
	return *at, nil
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.consume }

// LocalAddr implements raft.Transport.
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.address) }

// EncodePeer implements raft.Transport.
func (t *transport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }

// DecodePeer implements raft.Transport.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport: heartbeats do not wait behind
// entries that wait for the disk.
func (t *transport) SetHeartbeatHandler(f func(raft.RPC)) { t.heartbeat.Store(&f) }

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(req) {
		err := t.append(id, target, (*peer).beatStream, req, resp, false)
		t.beat(string(id), err)
		return err
	}
	if err := t.awaitBack(id, target, req.Term); err != nil {
		return err
	}
	err := t.append(id, target, (*peer).entryStream, req, resp, true)
	if err == nil && resp.Success {
		t.ack(string(id), req)
	}
	return err
}

func (t *transport) append(id raft.ServerID, target raft.ServerAddress, open func(*peer) (*appendStream, error), req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, wait bool) error {
	p, err := t.peer(string(id), string(target))
	if err != nil {
		return err
	}
	return p.call(func() (*appendStream, error) { return open(p) }, req, resp, wait)
}

func (p *peer) call(open func() (*appendStream, error), req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, wait bool) error {
	s, err := open()
	if err != nil {
		return p.failed(err)
	}
	c := &appendCall{req: req, resp: &raft.AppendEntriesResponse{}, start: time.Now(), done: make(chan struct{})}
	if err := s.send(c, wait); err != nil {
		return p.failed(err)
	}
	<-c.done // an answer, or the stream's timeout
	if c.err != nil {
		if time.Since(c.start) >= s.timeout {
			return p.failed(fmt.Errorf("append: %w", errSilent))
		}
		return p.failed(c.err)
	}
	*resp = *c.resp
	return nil
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	start := time.Now()
	err := t.askVote(id, target, 2*req.Term+1, func(ctx context.Context, to recipient, c wherryv1.RaftClient) error {
		m, err := c.Vote(ctx, &wherryv1.VoteRequest{
			Header: to.headerOut(req.RPCHeader), Term: req.Term,
			LastIndex: req.LastLogIndex, LastTerm: req.LastLogTerm, LeadershipTransfer: req.LeadershipTransfer,
		})
		*resp = raft.RequestVoteResponse{RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(), Granted: m.GetGranted()}
		return err
	})
	if err == nil {
		t.voted(id, time.Since(start))
	}
	return err
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.askVote(id, target, 2*req.Term, func(ctx context.Context, to recipient, c wherryv1.RaftClient) error {
		m, err := c.PreVote(ctx, &wherryv1.PreVoteRequest{
			Header: to.headerOut(req.RPCHeader), Term: req.Term,
			LastIndex: req.LastLogIndex, LastTerm: req.LastLogTerm,
		})
		*resp = raft.RequestPreVoteResponse{RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(), Granted: m.GetGranted()}
		return err
	})
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	ctx, cancel := context.WithTimeout(t.ctx, t.bulkTimeout)
	defer cancel()
	return t.ask(ctx, id, target, func(ctx context.Context, to recipient, c wherryv1.RaftClient) error {
		m, err := c.TimeoutNow(ctx, &wherryv1.TimeoutNowRequest{Header: to.headerOut(req.RPCHeader)})
		*resp = raft.TimeoutNowResponse{RPCHeader: headerIn(m.GetHeader())}
		return err
	})
}

// call is a request on its way to a member.
type call func(context.Context, recipient, wherryv1.RaftClient) error

func (t *transport) ask(ctx context.Context, id raft.ServerID, target raft.ServerAddress, f call) error {
	if err := t.stopped(); err != nil {
		return err
	}
	p, err := t.peer(string(id), string(target))
	if err != nil {
		return err
	}
	if err := f(ctx, p.recipient(), wherryv1.NewRaftClient(p.control)); err != nil {
		return p.failed(silent(ctx, err))
	}
	return nil
}

// silent says that an error came because the time for a request was over.
func silent(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errSilent
	}
	return err
}

// snapshotChunk is the size of a snapshot's messages.
const snapshotChunk = 256 << 10

// InstallSnapshot implements raft.Transport. It takes as long as data flows.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.awaitBack(id, target, req.Term); err != nil {
		return err
	}
	p, err := t.peer(string(id), string(target))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	idle := time.AfterFunc(t.bulkTimeout, cancel)
	defer idle.Stop()
	m, err := sendSnapshot(ctx, p.recipient(), wherryv1.NewRaftClient(p.bulk), req, data, func() { idle.Reset(t.bulkTimeout) })
	if err != nil {
		return p.failed(err)
	}
	*resp = raft.InstallSnapshotResponse{RPCHeader: headerIn(m.GetHeader()), Term: m.GetTerm(), Success: m.GetSuccess()}
	return nil
}

func sendSnapshot(ctx context.Context, to recipient, c wherryv1.RaftClient, req *raft.InstallSnapshotRequest, data io.Reader, alive func()) (*wherryv1.InstallSnapshotResponse, error) {
	stream, err := c.InstallSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&wherryv1.InstallSnapshotRequest{Part: &wherryv1.InstallSnapshotRequest_Header{Header: snapshotOut(to, req)}})
	for chunk := make([]byte, snapshotChunk); err == nil; alive() {
		n, readErr := io.ReadFull(data, chunk)
		if n > 0 {
			err = stream.Send(&wherryv1.InstallSnapshotRequest{Part: &wherryv1.InstallSnapshotRequest_Data{Data: chunk[:n]}})
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return nil, readErr
		}
	}
	// After a failed Send the reason comes with the answer.
	return stream.CloseAndRecv()
}
