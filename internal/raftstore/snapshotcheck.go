package raftstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wherry-project/wherry/internal/raftlog"
)

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
	for i, name := range names {
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
		if err := s.startFrom(name, meta.Index, first, last, damaged, why); err != nil {
			return err
		}
		return s.checkOlder(names[i+1:])
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

// checkOlder removes snapshots whose head is damaged and that are not needed,
// since there is a newer one that is whole. The library lists them all.
func (s *snapshots) checkOlder(names []string) error {
	for _, name := range names {
		r, err := s.open(name)
		if errors.Is(err, errSnapshotDamaged) || errors.Is(err, syscall.EIO) {
			s.log.Warn("a damaged old snapshot was removed; it was not needed any more", "snapshot", name, "err", err)
			err = s.fs.Remove(filepath.Join(s.dir, name))
		} else if err == nil {
			err = r.Close()
		}
		if err != nil {
			return fmt.Errorf("old snapshot %s: %w", name, err)
		}
	}
	return nil
}
