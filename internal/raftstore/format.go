package raftstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/wherry-project/wherry/internal/raftlog"
)

// The formats of a data directory: with a log in a bolt file, and in segments.
const (
	formatBolt   = 1
	formatWherry = 2
)

// directory is what the format file of a data directory says.
type directory struct {
	Format int    `json:"format"`
	Member string `json:"member"`
	// Cluster is empty where nobody said.
	Cluster string `json:"cluster,omitempty"`
}

// The files of a data directory besides the snapshots.
const (
	formatFile = "format.json"
	boltFile   = "log.db"
	logDir     = "log"
	stableFile = "stable"
)

// readFormat reads the format file and looks whether the directory is this
// member's. A new directory has none: format 0.
func readFormat(fs raftlog.FS, dir, member, cluster string) (directory, error) {
	path := filepath.Join(dir, formatFile)
	b, err := readFile(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		names, err := fs.ReadDir(dir)
		if err != nil {
			return directory{}, fmt.Errorf("raft data: %w", err)
		}
		if slices.Contains(names, boltFile) {
			return directory{}, fmt.Errorf("raft data: %s has a log but no %s; %w", dir, formatFile, ErrDamaged)
		}
		return directory{Member: member, Cluster: cluster}, nil
	}
	if err != nil {
		return directory{}, fmt.Errorf("raft data: %w", err)
	}
	var d directory
	if err := json.Unmarshal(b, &d); err != nil || d.Format < formatBolt {
		return d, fmt.Errorf("raft data: %s cannot be read (%v); %w", path, err, ErrDamaged)
	}
	switch {
	case d.Format > formatWherry:
		return d, fmt.Errorf("raft data: %s is of format %d, this version knows up to %d: start the newer version that wrote it", dir, d.Format, formatWherry)
	case d.Member != member:
		return d, fmt.Errorf("raft data: %s belongs to member %s, this is %s: use the directory of this member", dir, d.Member, member)
	case d.Cluster != "" && cluster != "" && d.Cluster != cluster:
		return d, fmt.Errorf("raft data: %s belongs to cluster %s, this member is of cluster %s: use the directory of this cluster", dir, d.Cluster, cluster)
	}
	return d, nil
}

func readFile(fs raftlog.FS, path string) (b []byte, err error) {
	f, err := fs.Open(path, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b = make([]byte, size)
	if n, err := f.ReadAt(b, 0); int64(n) < size && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// writeFormat puts the format file in its place, as a whole.
func writeFormat(fs raftlog.FS, dir string, d directory) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, formatFile)
	f, err := fs.Open(path+".tmp", os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	_, err = f.WriteAt(append(b, '\n'), 0)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fs.Rename(path+".tmp", path)
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	return nil
}
