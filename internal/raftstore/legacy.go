package raftstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// takeOver brings the newest snapshot of a directory of format 1, which the
// library wrote into folders, into files of ours, and then removes the folders.
func (s *snapshots) takeOver(dir string, log raftLogger) error {
	old := filepath.Join(dir, "snapshots")
	if _, err := os.Stat(old); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	from, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log)
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	metas, err := from.List()
	if err != nil {
		return fmt.Errorf("raft data: %w", err)
	}
	if len(metas) > 0 && len(names) == 0 {
		if err := s.copyFrom(from, metas[0]); err != nil {
			return err
		}
	}
	return os.RemoveAll(old)
}

func (s *snapshots) copyFrom(from *raft.FileSnapshotStore, m *raft.SnapshotMeta) error {
	_, r, err := from.Open(m.ID) // compares the checksum
	if err != nil {
		return damagedSnapshot(m.ID, err.Error())
	}
	defer r.Close()
	sink, err := s.Create(m.Version, m.Index, m.Term, m.Configuration, m.ConfigurationIndex, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, r); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
