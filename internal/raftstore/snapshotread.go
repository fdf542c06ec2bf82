package raftstore

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/wherry-project/wherry/internal/raftlog"
)

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
