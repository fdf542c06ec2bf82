package raftstore

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/api"
	"github.com/wherry-project/wherry/internal/raftlog"
	"github.com/wherry-project/wherry/internal/store"
)

// Offline is a replica's data while no daemon has it open. It is for bringing a
// cluster back from one member, or from a backup.
type Offline struct {
	disk    *disk
	fsm     *fsm
	servers []raft.Server
	index   uint64
	term    uint64
}

// OpenOffline opens the data of a member and replays it. It loses nothing, but it
// tidies up as a start does: what a power cut left unfinished is removed, and
// damaged snapshots for which there is another; behind a torn end of the log a
// segment is begun. A daemon that runs on it keeps it from being opened.
func OpenOffline(dir, member, cluster string, codec *api.Codec, log *slog.Logger) (o *Offline, err error) {
	d, err := openDiskOn(raftlog.Disk{}, dir, member, cluster, logAsFound, raftLogger{log: log})
	if err != nil {
		return nil, err
	}
	o = &Offline{disk: d, fsm: offlineFSM(codec)}
	if err := o.replay(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func offlineFSM(codec *api.Codec) *fsm {
	return &fsm{
		mem: store.NewMem(codec, store.Limits{}), committed: func(uint64) error { return nil }, batch: func() {}, failed: func(error) {},
		done: func(uint64, uint64, uint64, error) {},
	}
}

// replay reads the newest snapshot and the log behind it.
func (o *Offline) replay() error {
	metas, err := o.disk.snapshots.List()
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	if len(metas) > 0 {
		meta, from, err := o.disk.snapshots.Open(metas[0].ID)
		if err != nil {
			return fmt.Errorf("raft data: snapshot %s: %w", metas[0].ID, err)
		}
		if err := errors.Join(o.fsm.Restore(from), from.Close()); err != nil {
			return fmt.Errorf("raft data: snapshot %s: %w", meta.ID, err)
		}
		o.index, o.term, o.servers = meta.Index, meta.Term, meta.Configuration.Servers
	}
	last, err := o.disk.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	for i := o.index + 1; i <= last; i++ {
		var l raft.Log
		if err := o.disk.logs.GetLog(i, &l); err != nil {
			return fmt.Errorf("raft data: log entry %d: %w", i, err)
		}
		switch l.Type {
		case raft.LogConfiguration:
			o.servers = raft.DecodeConfiguration(l.Data).Servers
		case raft.LogCommand:
			o.fsm.Apply(&l)
			if err := o.fsm.broken(); err != nil {
				return fmt.Errorf("raft data: %w", err)
			}
		}
		o.index, o.term = l.Index, l.Term
	}
	if o.index == 0 {
		return errors.New("raft data: this member has never had any state; use another survivor, or restore a backup")
	}
	return nil
}

// State is the state with all that this replica has heard of.
func (o *Offline) State() *store.Mem { return o.fsm.mem }

// Last is the last entry that this replica has heard of. What was acknowledged
// later, by others, is not here.
func (o *Offline) Last() (index, term uint64) { return o.index, o.term }

// Members are the members as this replica knows them.
func (o *Offline) Members() []Member {
	var out []Member
	for _, m := range o.servers {
		out = append(out, Member{ID: string(m.ID), Address: string(m.Address), Voter: m.Suffrage == raft.Voter})
	}
	return out
}

// StandAlone makes the member the only one, with the state as State has it by
// now. It is done as a whole or not at all.
func (o *Offline) StandAlone(id, address string) error {
	if err := writeAlone(o.disk, o.fsm, id, address, o.index, o.term); err != nil {
		return err
	}
	first, err := o.disk.logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	last, err := o.disk.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	if first == 0 || last == 0 {
		return nil
	}
	// The snapshot is newer than every entry, and counts from now on.
	if err := o.disk.logs.DeleteRange(first, last); err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	return nil
}

// writeAlone writes a state as the snapshot of a Raft that has one member.
func writeAlone(d *disk, f *fsm, id, address string, index, term uint64) (err error) {
	alone := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(address),
	}}}
	state, err := f.Snapshot()
	if err != nil {
		return err
	}
	_, codec := raft.NewInmemTransport("") // writes addresses as they are
	sink, err := d.snapshots.Create(raft.SnapshotVersionMax, index, term, alone, 1, codec)
	if err != nil {
		return fmt.Errorf("raft data: write snapshot: %w", err)
	}
	if err := state.Persist(sink); err != nil { // it cancels, or closes, the sink
		return fmt.Errorf("raft data: write snapshot: %w", err)
	}
	return nil
}

// Close lets go of the files.
func (o *Offline) Close() error { return o.disk.close() }

// Install makes a new data directory of a member that stands alone with a
// state.
func Install(dir, id, cluster, address string, state *store.Mem, log *slog.Logger) (err error) {
	d, err := openDiskOn(raftlog.Disk{}, dir, id, cluster, logAsFound, raftLogger{log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if last, err := d.logs.LastIndex(); err != nil || last != 0 {
		return errors.Join(fmt.Errorf("raft data: %s holds a member's log already", dir), err)
	}
	f := offlineFSM(nil)
	f.mem = state
	const first = 1
	if err := d.stable.SetUint64([]byte(keyTerm), first); err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	return writeAlone(d, f, id, address, first, first)
}
