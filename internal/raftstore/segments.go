package raftstore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// wherryLog keeps the log in segments of raftlog.
type wherryLog struct{ l *raftlog.Log }

// FirstIndex implements raft.LogStore.
func (w wherryLog) FirstIndex() (uint64, error) { return w.l.First(), nil }

// LastIndex implements raft.LogStore.
func (w wherryLog) LastIndex() (uint64, error) { return w.l.Last(), nil }

// GetLog implements raft.LogStore.
func (w wherryLog) GetLog(index uint64, to *raft.Log) error {
	e, err := w.l.Get(index)
	if errors.Is(err, raftlog.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return err
	}
	*to = raft.Log{Index: e.Index, Term: e.Term, Type: raft.LogType(e.Type), Data: e.Data}
	return nil
}

// DeleteRange implements raft.LogStore: of the beginning or of the end.
func (w wherryLog) DeleteRange(first, last uint64) error {
	if last >= w.l.Last() {
		return w.l.CutBack(max(first, w.l.First()))
	}
	return w.l.CutFront(last)
}

func (w wherryLog) write(logs []*raft.Log) error {
	entries := make([]raftlog.Entry, len(logs))
	for i, l := range logs {
		entries[i] = raftlog.Entry{Index: l.Index, Term: l.Term, Type: uint8(l.Type), Data: l.Data}
	}
	err := w.l.Write(entries)
	if !errors.Is(err, raftlog.ErrGap) || logs[0].Index <= w.l.Last() {
		return err
	}
	// What comes before is in a snapshot, or Raft would not have taken it.
	if err := w.l.CutBack(w.l.First()); err != nil {
		return err
	}
	return w.l.Write(entries)
}

func (w wherryLog) sync() error { return w.l.Sync() }
func (w wherryLog) syncs() bool { return true }
func (w wherryLog) full() bool  { return w.l.Full() }
func (w wherryLog) prepare()    { w.l.Prepare() }

// follows: each entry of this log follows the one before.
func (w wherryLog) follows() bool { return true }

// convertLog brings the log of a directory with a bolt file into segments. Until
// the format file says so, the bolt file is what counts.
func convertLog(fs raftlog.FS, dir string, format directory, log *slog.Logger) (directory, error) {
	path := filepath.Join(dir, boltFile)
	b, err := openBolt(path)
	if err != nil {
		return format, err
	}
	if _, _, err := (boltLog{b}).verify(); err != nil {
		return format, errors.Join(fmt.Errorf("raft data: %s: %w; %w", path, err, ErrDamaged), b.Close())
	}
	err = removeSegments(fs, dir)
	if err == nil {
		err = copyLog(fs, dir, boltLog{b})
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return format, fmt.Errorf("raft data: convert the log: %w", err)
	}
	format.Format = formatWherry
	if err := writeFormat(fs, dir, format); err != nil {
		return format, err
	}
	log.Info("the log was converted into segments", "dir", dir)
	return format, nil
}

// removeSegments removes what a conversion that was not finished left.
func removeSegments(fs raftlog.FS, dir string) error {
	names, err := fs.ReadDir(filepath.Join(dir, logDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, name := range names {
		if err := fs.Remove(filepath.Join(dir, logDir, name)); err != nil {
			return err
		}
	}
	if err := fs.Remove(filepath.Join(dir, stableFile)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func copyLog(fs raftlog.FS, dir string, from boltLog) (err error) {
	l, _, err := raftlog.Open(fs, filepath.Join(dir, logDir), raftlog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	stable, err := raftlog.OpenStable(fs, filepath.Join(dir, stableFile), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stable.Close()) }()
	for _, key := range stableKeys {
		if v, err := from.Get([]byte(key)); err == nil {
			if err := stable.Set(key, v); err != nil {
				return err
			}
		} else if err.Error() != errNoKey.Error() {
			return err
		}
	}
	first, err := from.FirstIndex()
	if err != nil {
		return err
	}
	last, err := from.LastIndex()
	if err != nil {
		return err
	}
	for i := first; i <= last && last > 0; i++ {
		var e raft.Log
		if err := from.GetLog(i, &e); err != nil {
			return err
		}
		if err := (wherryLog{l}).write([]*raft.Log{&e}); err != nil {
			return err
		}
	}
	return l.Sync()
}

// removeBolt removes the bolt file of a directory that was converted.
func removeBolt(fs raftlog.FS, dir string, format directory) error {
	if format.Format == formatBolt {
		return nil
	}
	err := fs.Remove(filepath.Join(dir, boltFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	return nil
}
