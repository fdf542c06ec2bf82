package raftstore

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// snapshots keeps the newest snapshots in files, two of them. A file is a magic
// word, a format byte, what the snapshot is behind its length and checksum, the
// state, and the checksum of all. It is written under another name and synced
// before it gets its own.
type snapshots struct {
	fs           raftlog.FS
	dir, cluster string
	log          *slog.Logger
	newest       atomic.Int64 // the size of the newest one
}

var _ raft.SnapshotStore = (*snapshots)(nil)

const (
	snapshotsMagic  = "wherrysnapfile"
	snapshotsFormat = 1
	snapshotsKept   = 2
	snapshotPrefix  = "snapshot-"
	snapshotMade    = ".made" // a file that is being written
	maxSnapshotHead = 1 << 20
	sumBytes        = 4
)

// snapshotHead is what a snapshot is.
type snapshotHead struct {
	Version            int    `json:"version"`
	Index              uint64 `json:"index"`
	Term               uint64 `json:"term"`
	Configuration      []byte `json:"configuration"`
	ConfigurationIndex uint64 `json:"configurationIndex"`
	Cluster            string `json:"cluster,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openSnapshots opens the folder of the snapshots, or makes it.
func openSnapshots(fs raftlog.FS, dir, cluster string, log *slog.Logger) (*snapshots, error) {
	s := &snapshots{fs: fs, dir: dir, cluster: cluster, log: log}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("raft data: %w", err)
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("raft data: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, snapshotMade) { // was never finished
			if err := fs.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("raft data: %w", err)
			}
		}
	}
	return s, nil
}

func snapshotName(term, index uint64) string {
	return fmt.Sprintf("%s%016x-%016x", snapshotPrefix, term, index)
}

// names gives the snapshots, newest first.
func (s *snapshots) names() ([]string, error) {
	all, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var names []string
	for i := len(all) - 1; i >= 0; i-- {
		if strings.HasPrefix(all[i], snapshotPrefix) && !strings.HasSuffix(all[i], snapshotMade) {
			names = append(names, all[i])
		}
	}
	return names, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	head, err := json.Marshal(snapshotHead{int(version), index, term, raft.EncodeConfiguration(c), configurationIndex, s.cluster})
	if err != nil {
		return nil, err
	}
	name := snapshotName(term, index)
	path := filepath.Join(s.dir, name)
	f, err := s.fs.Open(path+snapshotMade, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	w := &snapshotSink{s: s, name: name, path: path, f: f}
	w.out = bufio.NewWriterSize(fileWriter{w}, 256<<10)
	b := append([]byte(snapshotsMagic), snapshotsFormat)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = append(b, head...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := w.Write(b); err != nil {
		return nil, errors.Join(err, w.Cancel())
	}
	return w, nil
}

// snapshotSink writes one snapshot.
type snapshotSink struct {
	s          *snapshots
	name, path string
	f          raftlog.File
	out        *bufio.Writer
	at         int64
	sum        uint32
	ended      bool
}

type fileWriter struct{ w *snapshotSink }

// Write implements io.Writer.
func (f fileWriter) Write(b []byte) (int, error) {
	n, err := f.w.f.WriteAt(b, f.w.at)
	f.w.at += int64(n)
	return n, err
}

// ID implements raft.SnapshotSink.
func (w *snapshotSink) ID() string { return w.name }

// Write implements io.Writer.
func (w *snapshotSink) Write(b []byte) (int, error) {
	w.sum = crc32.Update(w.sum, castagnoli, b)
	return w.out.Write(b)
}

// Close implements raft.SnapshotSink: the snapshot counts from here on.
func (w *snapshotSink) Close() error {
	if w.ended {
		return nil
	}
	_, err := w.out.Write(binary.LittleEndian.AppendUint32(nil, w.sum))
	if err == nil {
		err = w.out.Flush()
	}
	if err == nil {
		err = w.f.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), w.Cancel())
	}
	w.ended = true
	err = w.f.Close()
	if err == nil {
		err = w.s.fs.Rename(w.path+snapshotMade, w.path)
	}
	if err == nil {
		err = w.s.fs.SyncDir(w.s.dir)
	}
	if err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	w.s.newest.Store(w.at)
	return w.s.prune()
}

// Cancel implements raft.SnapshotSink.
func (w *snapshotSink) Cancel() error {
	if w.ended {
		return nil
	}
	w.ended = true
	return errors.Join(w.f.Close(), w.s.fs.Remove(w.path+snapshotMade))
}

// prune removes all but the newest, for good: a power cut must not bring them
// back, or a machine that loses power often fills its disk with them.
func (s *snapshots) prune() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	old := names[min(len(names), snapshotsKept):]
	if len(old) == 0 {
		return nil
	}
	for _, name := range old {
		if err := s.fs.Remove(filepath.Join(s.dir, name)); err != nil {
			return fmt.Errorf("remove old snapshot: %w", err)
		}
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("remove old snapshots: %w", err)
	}
	return nil
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var metas []*raft.SnapshotMeta
	for _, name := range names {
		r, err := s.open(name)
		if err != nil {
			return nil, err
		}
		metas = append(metas, r.meta)
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return metas, nil
}
