package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wherry-project/wherry/internal/apierr"
	"github.com/wherry-project/wherry/internal/daemon"
	"github.com/wherry-project/wherry/internal/raftstore"
	"github.com/wherry-project/wherry/internal/store"
	"github.com/wherry-project/wherry/internal/store/storetest"
)

// memberSettings are what a member's process is started with.
type memberSettings struct {
	ID, Address, Dir, Socket string
	First                    bool // it makes the cluster
}

// Member is what the test asks of a member's process.
type Member struct {
	store  *raftstore.Store
	disk   *faultyDisk
	cables *cables

	mu      sync.Mutex
	watches map[string]*watching
}

// watching is one watcher's watch, and the revision that it has read.
type watching struct {
	watch   *store.Watch
	reached uint64
}

// runMember is the process of a member. It ends with its standard input, which
// the test holds open.
func runMember(text string) int {
	var set memberSettings
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		return 2
	}
	if err := serveMember(set); err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		return 1
	}
	return 0
}

func serveMember(set memberSettings) error {
	_ = daemon.Nice(-10) // as controld does, where it may
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	m := &Member{disk: &faultyDisk{}, cables: &cables{cut: map[string]bool{}, conns: map[*cable]bool{}}, watches: map[string]*watching{}}
	raftDoor, err := net.Listen("tcp", set.Address)
	if err != nil {
		return err
	}
	m.store, err = raftstore.Open(raftstore.Config{
		ID: set.ID, Address: set.Address, Dir: set.Dir, Cluster: "chaos", FS: m.disk,
		Codec: storetest.Codec(), Logger: log.With("member", set.ID),
		Limits: raftstore.Limits{SnapshotEntries: 400, TrailingEntries: 100},
		Dial: func(_ context.Context, to string) (grpc.ClientConnInterface, error) {
			return grpc.NewClient("passthrough:///"+to, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(m.cables.dial))
		},
	})
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	m.store.Register(server)
	go func() { _ = server.Serve(raftDoor) }()
	if set.First {
		if err := m.store.Bootstrap(); err != nil && !errors.Is(err, apierr.ErrConflict) {
			return err
		}
	}
	control, err := net.Listen("unix", set.Socket)
	if err != nil {
		return err
	}
	answers := rpc.NewServer()
	if err := answers.Register(m); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := control.Accept()
			if err != nil {
				return
			}
			go answers.ServeConn(conn)
		}
	}()
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(gone)
	}()
	select {
	case <-gone: // killed: nobody is told
		return nil
	case <-m.store.Failed():
		return m.store.Err()
	}
}

// Op is one operation of a client: a command, or without steps a read of Key.
type Op struct {
	Steps    []Step
	Key      string
	Stale    bool // the fault that the checker must find: any state will do
	Patience time.Duration
}

// Step is what a command does with one key.
type Step struct {
	Key, Value string
	Do         store.Op
	If         store.Cond // a revision, or that there is none
}

// set is the command that writes a key.
func set(key, value string, on store.Cond) Op {
	return Op{Steps: []Step{{Key: key, Value: value, Do: store.Put, If: on}}}
}

func (s Step) change() store.Change {
	key := storetest.Key(s.Key)
	c := store.Change{Op: s.Do, Key: key, If: s.If}
	if s.Do == store.Put {
		c.Record = storetest.Record(key, s.Value)
	}
	return c
}

// what is what watchers will see of a command.
func (op Op) what() (text string) {
	for _, s := range op.Steps {
		switch s.Do {
		case store.Put:
			text += s.Key + "=" + s.Value + ";"
		case store.Delete:
			text += s.Key + " gone;"
		}
	}
	return text
}

// Done is how it went.
type Done struct {
	Value    string
	Revision uint64
	OK       bool // the conditions held
	Unknown  bool // it may or may not have been done
	Not      bool // it has not been done, says the error
}

// Do does an operation.
func (m *Member) Do(op Op, out *Done) error {
	ctx, cancel := context.WithTimeout(context.Background(), op.Patience)
	defer cancel()
	if op.Steps == nil {
		at := store.At{}
		if op.Stale {
			at.Level = store.Any
		}
		snap, err := m.store.Snapshot(ctx, at)
		if err != nil {
			*out = Done{Unknown: true}
			return nil
		}
		out.Value, out.Revision = storetest.Value(snap, storetest.Key(op.Key))
		return nil
	}
	var command store.Command
	for _, s := range op.Steps {
		command.Changes = append(command.Changes, s.change())
	}
	revision, err := m.store.Commit(ctx, command)
	var compare *store.CompareError
	switch {
	case errors.As(err, &compare):
	case err != nil:
		out.Unknown, out.Not = true, strings.Contains(err.Error(), "nothing was written")
	default:
		out.Revision, out.OK = revision, true
	}
	return nil
}

// WatchFrom asks for what came after a revision.
type WatchFrom struct {
	Watcher string
	From    uint64
	Wait    time.Duration
}

// Seen is what a watch gave.
type Seen struct {
	Events  []Change
	UpTo    uint64
	Expired bool
	Err     string
}

// Change is the events of one revision.
type Change struct {
	Revision uint64
	What     string // see Op.what
}

// Watch goes on with a watcher's watch, or starts it where the watcher is.
func (m *Member) Watch(ask WatchFrom, out *Seen) error {
	ctx, cancel := context.WithTimeout(context.Background(), ask.Wait)
	defer cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[ask.Watcher]
	if w == nil || w.reached != ask.From {
		watch, err := m.store.Watch(ctx, store.Filter{}, ask.From)
		if err != nil {
			out.Err, out.Expired = err.Error(), errors.Is(err, apierr.ErrExpired)
			return nil
		}
		w = &watching{watch, ask.From}
		m.watches[ask.Watcher] = w
	}
	events, upTo, err := w.watch.Next(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		delete(m.watches, ask.Watcher)
		out.Err, out.Expired = err.Error(), errors.Is(err, apierr.ErrExpired)
		return nil
	}
	for _, e := range events {
		if n := len(out.Events); n == 0 || out.Events[n-1].Revision != e.Revision {
			out.Events = append(out.Events, Change{Revision: e.Revision})
		}
		c := &out.Events[len(out.Events)-1]
		if e.New != nil {
			c.What += e.Key().Name + "=" + storetest.Text(e.New) + ";"
		} else {
			c.What += e.Key().Name + " gone;"
		}
	}
	w.reached, out.UpTo = upTo, upTo
	return nil
}

// Faults are what is wrong with a member.
type Faults struct {
	Cut   []string // addresses
	Slow  time.Duration
	Full  bool
	Clock time.Duration
}

// Break sets the faults of now.
func (m *Member) Break(f Faults, _ *struct{}) error {
	m.cables.set(f.Cut)
	m.disk.slow.Store(int64(f.Slow))
	m.disk.full.Store(f.Full)
	setClock(f.Clock)
	return nil
}

// Replacement is a change of the members.
type Replacement struct {
	Old, ID, Address string
	Patience         time.Duration
}

// Replace puts a member in the place of another, or of none.
func (m *Member) Replace(r Replacement, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), r.Patience)
	defer cancel()
	return m.store.ReplaceMember(ctx, r.Old, r.ID, r.Address)
}

// Transfer hands leadership to anybody.
func (m *Member) Transfer(patience time.Duration, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return m.store.TransferLeadership(ctx, "")
}

// State is how a member is.
type State struct {
	Leader, Ready bool
	Term          uint64
	Revision      uint64
	Members       []raftstore.Member
}

// State tells how it is.
func (m *Member) State(_ struct{}, out *State) error {
	now, _ := m.store.Leadership()
	*out = State{Leader: now.Leader, Ready: now.Ready, Term: now.Term, Revision: m.store.Revision(), Members: m.store.Members()}
	return nil
}
