package raftstore

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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

// Open implements raft.SnapshotStore. The whole file has been read and its
// checksum compared when it returns.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	r, err := s.open(id)
	if err != nil {
		return nil, nil, err
	}
	if err := r.verify(); err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return r.meta, r, nil
}

// snapshotReader reads one snapshot's state.
type snapshotFile struct {
	*io.SectionReader
	f    raftlog.File
	name string
	meta *raft.SnapshotMeta
}

// Close implements io.Closer.
func (r *snapshotFile) Close() error { return r.f.Close() }

func damagedSnapshot(name, what string) error {
	return fmt.Errorf("snapshot %s is damaged: %s%w", name, what, errSnapshotDamaged)
}

// errSnapshotDamaged is only to tell such errors; the text is the error's own.
var errSnapshotDamaged = silentError{}

type silentError struct{}

// Error implements error.
func (silentError) Error() string { return "" }

func (s *snapshots) open(name string) (_ *snapshotFile, err error) {
	f, err := s.fs.Open(filepath.Join(s.dir, name), 0)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	fixed := int64(len(snapshotsMagic) + 1 + 4)
	b := make([]byte, fixed)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, damagedSnapshot(name, "it is cut off")
	}
	if string(b[:len(snapshotsMagic)]) != snapshotsMagic {
		return nil, damagedSnapshot(name, "it does not begin as one")
	}
	if format := b[len(snapshotsMagic)]; format > snapshotsFormat {
		return nil, fmt.Errorf("snapshot %s is of format %d, this version knows %d: %w", name, format, snapshotsFormat, errNewer)
	}
	n := int64(binary.LittleEndian.Uint32(b[len(b)-4:]))
	if n > maxSnapshotHead || fixed+n+2*sumBytes > size {
		return nil, damagedSnapshot(name, "it is cut off")
	}
	b = append(b, make([]byte, n+sumBytes)...)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	body := b[:fixed+n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[fixed+n:]) {
		return nil, damagedSnapshot(name, "the checksum of its head is wrong")
	}
	var h snapshotHead
	if err := json.Unmarshal(body[fixed:], &h); err != nil || name != snapshotName(h.Term, h.Index) {
		return nil, damagedSnapshot(name, fmt.Sprintf("it says that it is entry %d of term %d (%v)", h.Index, h.Term, err))
	}
	if h.Cluster != "" && s.cluster != "" && h.Cluster != s.cluster {
		return nil, fmt.Errorf("snapshot %s is of cluster %s, this member is of cluster %s: %w", name, h.Cluster, s.cluster, errForeign)
	}
	begin := int64(len(b))
	r := &snapshotFile{f: f, name: name, SectionReader: io.NewSectionReader(f, begin, size-begin-sumBytes)}
	r.meta = &raft.SnapshotMeta{
		Version: raft.SnapshotVersion(h.Version), ID: name, Index: h.Index, Term: h.Term,
		Configuration: raft.DecodeConfiguration(h.Configuration), ConfigurationIndex: h.ConfigurationIndex, Size: r.SectionReader.Size(),
	}
	return r, nil
}

var (
	errNewer   = errors.New("start the newer version that wrote it")
	errForeign = errors.New("remove what was copied here, or bring a backup back with `wherry cluster restore`")
)

// verify compares the checksum of the whole file.
func (r *snapshotFile) verify() error {
	size, err := r.f.Size()
	if err != nil {
		return err
	}
	h := crc32.New(castagnoli)
	if _, err := io.Copy(h, bufio.NewReaderSize(io.NewSectionReader(r.f, 0, size-sumBytes), 256<<10)); err != nil {
		return fmt.Errorf("read snapshot %s: %w", r.name, err)
	}
	var tail [sumBytes]byte
	if _, err := r.f.ReadAt(tail[:], size-sumBytes); err != nil {
		return fmt.Errorf("read snapshot %s: %w", r.name, err)
	}
	if h.Sum32() != binary.LittleEndian.Uint32(tail[:]) {
		return damagedSnapshot(r.name, "its checksum is wrong")
	}
	return nil
}

// refuseSnapshots refuses snapshots of another cluster or of a newer version,
// before anything is changed.
func refuseSnapshots(fs raftlog.FS, dir, cluster string) error {
	s := &snapshots{fs: fs, dir: filepath.Join(dir, "snap"), cluster: cluster}
	names, err := s.names()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, name := range names {
		r, err := s.open(name)
		switch {
		case err == nil:
			err = r.Close()
		case !errors.Is(err, errNewer) && !errors.Is(err, errForeign):
			err = nil // damage is looked at when it is known what the log has
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check looks whether the newest snapshot is whole and the log goes on where it
// ends. If it is damaged, the one before will do, as long as the log has all
// that came after; then nothing is lost, and the damaged one goes.
func (s *snapshots) check(first, last uint64) error {
	names, err := s.names()
	if err != nil {
		return err
	}
	var damaged []string
	var why error
	for _, name := range names {
		meta, r, err := s.Open(name)
		if errors.Is(err, errNewer) || errors.Is(err, errForeign) {
			return err
		}
		if err != nil {
			damaged, why = append(damaged, name), errors.Join(why, err)
			continue
		}
		if err := r.Close(); err != nil {
			return err
		}
		s.newest.Store(meta.Size)
		return s.startFrom(name, meta.Index, first, last, damaged, why)
	}
	return s.startFrom("", 0, first, last, damaged, why)
}

// startFrom decides whether a replica can begin with a snapshot, or with none.
func (s *snapshots) startFrom(name string, index, first, last uint64, damaged []string, why error) error {
	if first > index+1 {
		return errors.Join(why, fmt.Errorf("the log begins at entry %d, but the newest whole snapshot ends at %d%w", first, index, errSnapshotDamaged))
	}
	for _, d := range damaged {
		var term, end uint64
		if _, err := fmt.Sscanf(d, snapshotPrefix+"%x-%x", &term, &end); err != nil || last < end || first == 0 {
			return why
		}
	}
	for _, d := range damaged {
		s.log.Warn("a damaged snapshot was removed; the log still has what it had", "snapshot", d, "instead", name, "err", why)
		if err := s.fs.Remove(filepath.Join(s.dir, d)); err != nil {
			return fmt.Errorf("remove damaged snapshot: %w", err)
		}
	}
	return nil
}
