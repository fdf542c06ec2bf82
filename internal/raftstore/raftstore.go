package raftstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/apierr"
	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
	"github.com/wherry-project/wherry/internal/store"
)

// Store is one replica.
type Store struct {
	cfg       Config
	log       *slog.Logger
	mem       *store.Mem
	fsm       *fsm
	disk      *disk
	transport *transport
	raft      *raft.Raft
	metrics   *metrics

	// ctx ends when the store closes. It belongs to what the store does by
	// itself; whoever calls brings a context of their own.
	ctx     context.Context
	cancel  context.CancelFunc
	spawnMu sync.Mutex
	wg      sync.WaitGroup
	closed  sync.Once

	// origin and numbers name this process's proposals.
	origin     uint64
	numbers    atomic.Uint64
	queue      chan *proposal
	places     chan struct{}
	expectedMu sync.Mutex
	expected   map[uint64]*proposal

	forwardMu sync.Mutex
	forward   *forwarder
	reads     reads
	alarm     *alarm
	lead      lead
	elected   chan bool
	compact   chan struct{}

	// running is raft once NewRaft has returned; the state machine runs before.
	running atomic.Pointer[raft.Raft]
	failure atomic.Pointer[error]
	failed  chan struct{}
}

var _ store.Store = (*Store)(nil)

const (
	// inFlight is how many batches may be on their way; with few, they grow.
	inFlight = 2
	// commitTimeout is when the leader tells followers the commit index again,
	// besides at once.
	commitTimeout = 250 * time.Millisecond
	// maxAppend is how many entries one append request may have. A follower with
	// a slow disk gets one request in each commitTimeout.
	maxAppend = 256
	// logBytes is how much log there may be before a snapshot is made, and
	// trailingBytes how much of it about stays.
	logBytes      = 64 << 20
	trailingBytes = 32 << 20
)

// Open starts the replica on its data directory. A new one waits to be made the
// first member by Bootstrap, or to be added by another member.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d, err := openDiskOn(cfg.FS, cfg.Dir, cfg.ID, cfg.Cluster, cfg.Log, raftLogger{log: cfg.Logger})
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, disk: d,
		mem:       store.NewMem(cfg.Codec, cfg.Limits.Mem),
		transport: newTransport(cfg),
		queue:     make(chan *proposal, cfg.Limits.Queue), places: make(chan struct{}, inFlight),
		expected: map[uint64]*proposal{}, elected: make(chan bool, 16), compact: make(chan struct{}, 1),
		failed: make(chan struct{}),
	}
	s.mem.Use(cfg.Sealer)
	s.ctx, s.cancel = context.WithCancel(s.transport.ctx)
	s.reads.s = s
	s.alarm = newAlarm(s)
	s.transport.wanted = s.wanted
	s.transport.durable, s.transport.stopped = d.logs.durable, s.Err
	d.logs.failed, d.logs.leads = s.fail, s.leadsNow
	s.lead.changed = make(chan struct{})
	s.fsm = &fsm{mem: s.mem, done: s.done, committed: d.logs.waitCommitted, batch: s.applying, failed: s.fail}
	if s.origin, err = randomOrigin(); err == nil {
		err = s.start()
	}
	if err != nil {
		s.cancel()
		s.transport.close()
		return nil, errors.Join(err, d.close())
	}
	return s, nil
}

func (s *Store) start() error {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(s.cfg.ID)
	c.HeartbeatTimeout = s.cfg.Timeouts.Heartbeat
	c.ElectionTimeout = s.cfg.Timeouts.Election
	c.LeaderLeaseTimeout = s.cfg.Timeouts.Lease
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = maxAppend
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.TrailingLogs = s.cfg.Limits.TrailingEntries
	c.SnapshotInterval = 24 * time.Hour // this store says when, see compactLog
	c.SnapshotThreshold = math.MaxInt64
	c.NotifyCh = s.elected
	c.Logger = raftLogger{log: s.log, quiet: newQuiet()}
	c.NoLegacyTelemetry = true
	r, err := raft.NewRaft(c, s.fsm, s.disk.logs, s.disk.stable, s.disk.snapshots, s.transport)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	s.raft = r
	s.running.Store(r)
	if s.metrics, err = newMetrics(s, s.cfg.Metrics); err != nil {
		s.transport.cancel()
		return errors.Join(err, r.Shutdown().Error())
	}
	s.disk.logs.watch.observe(func(took time.Duration) { s.metrics.syncs.Observe(took.Seconds()) })
	if err := s.electSelf(); err != nil {
		s.cancel()
		return errors.Join(err, r.Shutdown().Error())
	}
	s.spawn(s.followLeadership)
	s.spawn(s.propose)
	s.spawn(s.alarm.run)
	s.spawn(s.compactLog)
	s.spawn(s.watchDisk)
	return nil
}

// electSelf lets a replica that votes alone stand for election at once: there is
// nobody whose heartbeat it could be waiting for.
func (s *Store) electSelf() error {
	servers, err := s.servers()
	if err != nil {
		return err
	}
	for _, m := range servers {
		if (m.Suffrage == raft.Voter) != (m.ID == raft.ServerID(s.cfg.ID)) {
			return nil
		}
	}
	// A follower looks at its timer again when the time-out becomes shorter.
	sooner := s.cfg.Timeouts.Heartbeat - time.Millisecond
	if len(servers) == 0 || sooner < s.cfg.Timeouts.Lease {
		return nil
	}
	return s.alarm.reload(func(r *raft.ReloadableConfig) { r.HeartbeatTimeout = sooner })
}

// randomOrigin tells this process's proposals from those of any other,
// including this member's before a restart.
func randomOrigin() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// spawn starts a goroutine that Close waits for; it reports false after Close.
func (s *Store) spawn(f func()) bool {
	s.spawnMu.Lock()
	defer s.spawnMu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.wg.Go(f)
	return true
}

// Register puts the Raft service on a server. Call it before the server serves.
func (s *Store) Register(server grpc.ServiceRegistrar) {
	wherryv1.RegisterRaftServer(server, &service{s: s})
}

// Bootstrap makes this replica the first member of a new cluster. It refuses
// where there is one already.
func (s *Store) Bootstrap() error {
	err := s.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(s.cfg.ID), Address: raft.ServerAddress(s.cfg.Address),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return apierr.New(apierr.ErrConflict, "%s already holds a cluster's data; nothing was changed", s.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// Close hands leadership over if this replica has it and another can take it,
// and stops. Writes that wait end with an error that says whether they may have
// been done. ctx bounds the handing over; the rest waits for the disk, however
// long a sync takes: whoever cannot wait leaves it behind, as [daemon.Run] does.
//
// [daemon.Run]: github.com/wherry-project/wherry/internal/daemon.Run
func (s *Store) Close(ctx context.Context) error {
	var err error
	s.closed.Do(func() {
		s.handOver(ctx)
		s.spawnMu.Lock()
		s.cancel()
		s.spawnMu.Unlock()
		// Raft answers what has been asked of it while it runs, and not
		// afterwards; so it is stopped when nobody waits any more. A leader
		// without a majority gives up within its lease.
		s.wg.Wait()
		s.transport.cancel()
		err = s.raft.Shutdown().Error()
		s.transport.close()
		s.metrics.close()
		err = errors.Join(err, s.disk.close())
	})
	return err
}

// handOver transfers leadership. If it fails the others elect a leader anyway,
// a little later.
func (s *Store) handOver(ctx context.Context) {
	if ctx.Err() != nil || !s.leads() || s.voters() < 2 {
		return
	}
	if err := s.await(ctx, s.raft.LeadershipTransfer()); err != nil {
		s.log.Info("leadership could not be handed over", "err", err)
	}
}

// await waits for what Raft was asked for, until ctx ends.
func (s *Store) await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	if !s.spawn(func() { done <- f.Error() }) {
		return errClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Failed is closed when this replica cannot go on; Err says why. The process
// should end: a newer version, or joining again, is the remedy.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err is why this replica cannot go on, or nil.
func (s *Store) Err() error {
	if e := s.failure.Load(); e != nil {
		return *e
	}
	return nil
}

func (s *Store) fail(err error) {
	err = fmt.Errorf("this replica has stopped so as not to differ from the others: %w", err)
	if s.failure.CompareAndSwap(nil, &err) {
		s.log.Error("replica has stopped", "err", err)
		close(s.failed)
	}
}

// err refuses what cannot be served any more.
func (s *Store) err() error {
	if s.ctx.Err() != nil {
		return apierr.Unavailable("%w", errClosed)
	}
	if err := s.Err(); err != nil {
		return apierr.Unavailable("%w", err)
	}
	return nil
}

// Revision is what this replica has applied.
func (s *Store) Revision() uint64 { return s.mem.Revision() }

// leadsNow reports whether this replica leads, also while it starts.
func (s *Store) leadsNow() bool {
	r := s.running.Load()
	return r != nil && r.State() == raft.Leader
}

// applying is called before entries are applied.
func (s *Store) applying() {
	r := s.running.Load()
	if r == nil {
		return
	}
	s.transport.committedIs(min(r.CommitIndex(), s.disk.logs.durable()))
	bytes, entries := s.disk.logs.sinceSnapshot()
	if snapshotDue(bytes, entries, s.cfg.Limits.SnapshotEntries, uint64(s.disk.snapshots.newest.Load())) {
		select {
		case s.compact <- struct{}{}:
		default:
		}
	}
}

// snapshotDue reports whether there is log enough for a snapshot. It is at least
// half as large as the last snapshot, so that a byte of log never costs more
// than two or so of snapshots, however large the state; and it is bounded by the
// state, or a constant, so that a restart never reads much more than the state.
func snapshotDue(bytes, entries, limit, last uint64) bool {
	return (bytes >= logBytes || entries >= limit) && bytes >= last/2
}

// snapshotRetry is how long a replica rests after a snapshot that could not be
// made, as on a full disk: the next write alone changes nothing.
const snapshotRetry = 5 * time.Second

// compactLog makes a snapshot whenever the log has grown enough, and lets the
// library cut the log behind it.
func (s *Store) compactLog() {
	for {
		select {
		case <-s.compact:
		case <-s.ctx.Done():
			return
		}
		bytes, entries := s.disk.logs.sinceSnapshot()
		if entries == 0 {
			continue
		}
		trailing := min(s.cfg.Limits.TrailingEntries, max(64, trailingBytes/max(1, bytes/entries)))
		err := s.alarm.reload(func(r *raft.ReloadableConfig) { r.TrailingLogs = trailing })
		if err == nil {
			err = s.raft.Snapshot().Error()
		}
		switch {
		case err == nil:
			s.disk.logs.snapshotted()
		case !errors.Is(err, raft.ErrNothingNewToSnapshot) && s.ctx.Err() == nil:
			s.log.Warn("snapshot could not be made", "err", err, "retry", snapshotRetry)
			select {
			case <-time.After(snapshotRetry):
			case <-s.ctx.Done():
			}
		}
	}
}
