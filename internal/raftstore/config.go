package raftstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/store"
)

// Dial makes a new connection to another member's address, secured both ways.
// The store closes it if it has a Close method. It should be made without
// waiting, as grpc.NewClient does.
type Dial func(ctx context.Context, address string) (grpc.ClientConnInterface, error)

// Config says who this replica is and what it works with.
type Config struct {
	// ID is the member's identity for life, Address where others reach it now.
	ID, Address string
	// Cluster is the cluster's id, which is for life too; members of others
	// are refused. Empty ones are not compared.
	Cluster string
	// Dir holds the log, the snapshots and the format file.
	Dir string
	// Codec decodes records for the snapshots' readers.
	Codec *api.Codec
	// Sealer hides some records at rest; nil hides none.
	Sealer store.Sealer
	Dial   Dial
	// Authorize decides whether the peer of a call is a member; nil lets
	// everyone in and is for tests.
	Authorize func(ctx context.Context) error
	Logger    *slog.Logger
	// Metrics may be nil.
	Metrics  *prometheus.Registry
	Timeouts Timeouts
	Limits   Limits

	// Log says how a new data directory keeps its log: LogWherry (also "") or
	// LogBolt. A directory with a bolt log is converted when it is opened with
	// LogWherry, a directory of the other kind stays as it is.
	Log string
	// FS is what the log, the snapshots and the format file are kept on: the operating
	// system's files if it is nil, or one with faults for a test.
	FS raftlog.FS
	// DiskNews, if it is not nil, is told when the disk becomes slow or full
	// and when that is over. It must not block.
	DiskNews func(DiskNews)
}

// The kinds of log.
const (
	LogWherry = "wherry"
	LogBolt   = "bolt"
)

// DiskNews is a change in how the disk does.
type DiskNews struct {
	// Path is the directory, Message what there is to say about it.
	Path, Message string
	// Slow and Full say what holds now; with neither, all is well again.
	Slow, Full bool
	// Delay is how long a sync takes, or has taken so far.
	Delay time.Duration
}

// Timeouts tune elections and waits; zero fields have defaults.
type Timeouts struct {
	// Heartbeat is how long a follower waits for its leader, Election how long
	// a candidate waits for votes, Lease how long a leader leads without a
	// quorum: 450 ms, 450 ms, 400 ms. A leader whose connections are gone is
	// given up after Lease already.
	Heartbeat, Election, Lease time.Duration
	// Request bounds a read or write whose caller has no earlier deadline: 10 s.
	Request time.Duration
}

// Limits bound memory and entries; zero fields have defaults.
type Limits struct {
	// Mem bounds the state's ring and a command's size.
	Mem store.Limits
	// EntryCommands and EntryBytes bound the commands that share one log
	// entry: 512, 512 KiB (a larger command has an entry of its own).
	EntryCommands, EntryBytes int
	// Queue bounds the commands that wait for an entry; more callers wait
	// outside: 4096.
	Queue int
	// SnapshotEntries is after how many log entries a snapshot is made: 16384.
	// TrailingEntries stay in the log behind it: 8192.
	SnapshotEntries, TrailingEntries uint64
}

func (c Config) withDefaults() Config {
	set(&c.Timeouts.Heartbeat, 450*time.Millisecond)
	set(&c.Timeouts.Election, max(c.Timeouts.Heartbeat, 450*time.Millisecond))
	set(&c.Timeouts.Lease, c.Timeouts.Heartbeat*8/9)
	set(&c.Timeouts.Request, 10*time.Second)
	set(&c.Log, LogWherry)
	if c.FS == nil {
		c.FS = raftlog.Disk{}
	}
	set(&c.Limits.EntryCommands, 512)
	set(&c.Limits.EntryBytes, 512<<10)
	set(&c.Limits.Queue, 4096)
	set(&c.Limits.SnapshotEntries, 16384)
	set(&c.Limits.TrailingEntries, 8192)
	return c
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	switch {
	case c.ID == "":
		return errors.New("raft store: no member id")
	case c.Address == "":
		return errors.New("raft store: no address")
	case c.Dir == "":
		return errors.New("raft store: no data directory")
	case c.Log != LogWherry && c.Log != LogBolt:
		return fmt.Errorf("raft store: a log of kind %q; there are %s and %s", c.Log, LogWherry, LogBolt)
	case c.Codec == nil || c.Dial == nil || c.Logger == nil:
		return errors.New("raft store: codec, dialer and logger must be given")
	}
	return nil
}
